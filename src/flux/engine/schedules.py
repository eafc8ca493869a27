"""When something happens again: `cron`, `interval` and `once`, as data, and the pure question what comes next.

Times are seconds since the epoch. A cron expression is read as Debian's cron does: a fixed time that a change of
the clocks leaves out fires once right after the gap, one that exists twice fires the first time; an expression whose
minutes or hours begin with `*` follows the real time that passes.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
from cronsim import CronSim, CronSimError
from msgspec import Struct

from flux.errors import InvalidInput

LONGEST_SECONDS = 50 * 366 * 86_400.0
LONGEST_EXPRESSION = 256
DAY = 86_400
#: Occurrences that passed unseen are counted up to here.
COUNTED_AT_MOST = 1_000
UNITS = {"w": "weeks", "d": "days", "h": "hours", "m": "minutes", "s": "seconds"}


class Cron(Struct, frozen=True, tag="cron", tag_field="type"):
    """A cron expression of five fields, or six with seconds first."""

    expr: str
    timezone: str = "UTC"


class Interval(Struct, frozen=True, tag="interval", tag_field="type"):
    """Every so many seconds of real time; the zone is only for people who read it."""

    seconds: float
    timezone: str = "UTC"


class Once(Struct, frozen=True, tag="once", tag_field="type"):
    """At one time: ISO 8601 with its offset."""

    at: str
    timezone: str = "UTC"


Spec = Cron | Interval | Once


class CatchUp(Struct, frozen=True):
    """Where a schedule stands: its next time, the latest that has come, and how many came since the one looked at."""

    next_at: float | None
    latest: float
    missed: int


def cron(expr: str, timezone: str = "UTC") -> Cron:
    """At the times of a cron expression, in a time zone.

    :raises InvalidInput: the expression or the zone is wrong, or there is no such day in any year
    """
    zone = _zone(timezone)
    text: Any = expr
    if not isinstance(text, str) or len(text) > LONGEST_EXPRESSION:
        raise InvalidInput(f"cron: an expression is text of at most {LONGEST_EXPRESSION} characters")
    fields = expr.split()
    if len(fields) not in (5, 6):
        raise InvalidInput(f"cron {expr!r}: {len(fields)} fields; write minute hour day-of-month month day-of-week")
    try:
        CronSim(expr, datetime.fromtimestamp(0, zone))
    except CronSimError as error:
        if _parses([*fields[:-2], "*", fields[-1]]) and "day" in str(error):
            raise InvalidInput(f"cron {expr!r} never fires: none of its months has such a day") from error
        field = str(error).removeprefix("Bad ")
        raise InvalidInput(f"cron {expr!r}: the {field} is wrong; ranges are 1-5, lists 1,5, steps */5") from error
    return Cron(" ".join(fields), timezone)


def interval(
    *, weeks: float = 0, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0,
    timezone: str = "UTC",
) -> Interval:  # fmt: skip
    """Again and again, after so much real time.

    :raises InvalidInput: less than a second or more than 50 years
    """
    _zone(timezone)
    given: dict[str, Any] = {"weeks": weeks, "days": days, "hours": hours, "minutes": minutes, "seconds": seconds}
    for unit, number in given.items():
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 <= number <= LONGEST_SECONDS:
            raise InvalidInput(f"interval: {unit} must be a number from 0 on, of at most 50 years")
    total = 60.0 * (60.0 * (24.0 * (7.0 * weeks + days) + hours) + minutes) + seconds
    if not 1 <= total <= LONGEST_SECONDS:
        raise InvalidInput("interval: give at least one second and at most 50 years, as in interval(hours=6)")
    return Interval(total, timezone)


def once(at: datetime, timezone: str = "UTC") -> Once:
    """At one time; `timezone` is that of a time without an offset of its own.

    :raises InvalidInput: it is no time, or the zone is wrong
    """
    zone = _zone(timezone)
    if not isinstance(at, datetime):
        raise InvalidInput(f"once: give a datetime, not {type(at).__name__}")
    try:
        moment = at if at.tzinfo is not None else _after_gap(at.replace(tzinfo=zone))
        text = moment.astimezone(UTC).astimezone(zone).isoformat()
    except (OverflowError, ValueError) as error:
        raise InvalidInput("once: this time is too far away") from error
    return Once(text, timezone)


def parse_every(text: str, timezone: str = "UTC") -> Interval:
    """An interval written as `6h`, `1d 12h` or `90s`.

    :raises InvalidInput: it is written otherwise
    """
    found = re.findall(r"(\d{1,12}(?:\.\d{1,6})?)\s*([wdhms])\s*", text)
    if not found or not re.fullmatch(r"\s*(?:\d{1,12}(?:\.\d{1,6})?\s*[wdhms]\s*)+", text, re.ASCII):
        raise InvalidInput(f"interval {text[:80]!r}: write it as 6h, 1d12h or 90s (w, d, h, m, s)")
    total = dict.fromkeys(UNITS.values(), 0.0)
    for number, unit in found:
        total[UNITS[unit]] += float(number)
    return interval(**total, timezone=timezone)


def parse_time(text: str, timezone: str = "UTC") -> Once:
    """A time written in ISO 8601, such as `2030-01-31T09:00` or `2030-01-31T09:00+02:00`.

    :raises InvalidInput: it is written otherwise
    """
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidInput(f"once {text[:80]!r}: write the time as 2030-01-31T09:00 or with an offset") from error
    return once(at, timezone)


def encode_spec(spec: Spec) -> str:
    """JSON, as `decode_spec` reads it."""
    return msgspec.json.encode(spec).decode()


def decode_spec(text: str | bytes) -> Spec:
    """A schedule from its JSON, checked.

    :raises InvalidInput: it is none
    """
    try:
        spec: Spec = msgspec.json.decode(text, type=Spec)
    except msgspec.DecodeError as error:
        raise InvalidInput(f"this is no schedule: {error}") from error
    match spec:
        case Cron():
            return cron(spec.expr, spec.timezone)
        case Interval():
            return interval(seconds=spec.seconds, timezone=spec.timezone)
    return parse_time(spec.at, spec.timezone)


def next_after(spec: Spec, after: float) -> float | None:
    """The first time behind `after`; None when there is none. An interval begins at `after`."""
    match spec:
        case Cron():
            return _cron_after(spec.expr, _zone(spec.timezone), after)
        case Interval():
            return after + spec.seconds
    at = datetime.fromisoformat(spec.at).timestamp()
    return at if at > after else None


def first_after(spec: Spec, after: float) -> float:
    """The first time of a new schedule.

    :raises InvalidInput: it would never fire
    """
    found = next_after(spec, after)
    if found is None:
        if isinstance(spec, Once):
            raise InvalidInput(f"this schedule never fires: {spec.at} is in the past")
        raise InvalidInput("this schedule never fires")
    return found


def catch_up(spec: Spec, due: float, now: float) -> CatchUp:
    """Where a schedule stands that was due at `due`, which has come. Its rhythm stays that of `due`."""
    if isinstance(spec, Interval):
        passed = max(0, math.floor((now - due) / spec.seconds))
        latest = due + passed * spec.seconds
        return CatchUp(max(latest + spec.seconds, math.nextafter(now, math.inf)), latest, passed)
    missed, latest = 0, due
    at = next_after(spec, due)
    while at is not None and at <= now and missed < COUNTED_AT_MOST:
        missed, latest = missed + 1, at
        at = next_after(spec, at)
    if at is not None and at <= now:
        at = next_after(spec, now)
    return CatchUp(at, latest, missed)


def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC  # the one that cronsim knows to be without changes
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, TypeError, AttributeError, LookupError) as error:
        raise InvalidInput(f"there is no time zone {str(name)[:80]!r}; write it as UTC or Europe/Berlin") from error


def _cron_after(expr: str, zone: tzinfo, after: float) -> float | None:
    minutes, hours = expr.split()[-5:-3]
    if zone is not UTC and (minutes.startswith("*") or hours.startswith("*") or len(expr.split()) == 6):
        return _passing_after(expr, zone, math.floor(after))
    times = (found.timestamp() for found in CronSim(expr, datetime.fromtimestamp(math.floor(after), zone)))
    # A time told again in the second of two equal hours lies before it: it has been.
    return next((at for at in times if at > after), None)


def _passing_after(expr: str, zone: tzinfo, after: int) -> float | None:
    """The first second behind `after` in which a clock of the zone shows a time of the expression.

    Between two changes of the clocks a zone is like UTC; cronsim itself loses minutes where it steps over one.
    """
    at, offset = after, _offset(zone, after)
    while at < after + LONGEST_SECONDS:
        found = next(CronSim(expr, datetime.fromtimestamp(at, UTC) + offset), None)
        if found is None:
            return None
        until = int((found - offset).timestamp())
        change = _change(zone, at, until, offset)
        if change is None:
            return float(until)
        at, offset = change - 1, _offset(zone, change)
    return None


def _change(zone: tzinfo, at: int, until: int, offset: timedelta) -> int | None:
    """The first second behind `at`, `until` at most, in which the zone has another offset from UTC; None: none."""
    low = at + 1
    for high in (*range(low, until, DAY), until):
        if _offset(zone, high) != offset:
            break
        low = high
    else:
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if _offset(zone, middle) == offset else (low, middle)
    return low


def _offset(zone: tzinfo, at: int) -> timedelta:
    return datetime.fromtimestamp(at, zone).utcoffset() or timedelta()


def _after_gap(at: datetime) -> datetime:
    """The time itself, or the end of the gap it lies in."""
    while at.astimezone(UTC).astimezone(at.tzinfo).replace(tzinfo=None) != at.replace(tzinfo=None):
        at += timedelta(minutes=1)
    return at


def _parses(fields: list[str]) -> bool:
    try:
        CronSim(" ".join(fields), datetime.fromtimestamp(0, UTC))
    except CronSimError:
        return False
    return True
