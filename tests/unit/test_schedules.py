"""When something happens again: cron with time zones, intervals, one time."""

import math
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flux
from flux.engine.schedules import (
    COUNTED_AT_MOST,
    Interval,
    Once,
    Spec,
    catch_up,
    cron,
    decode_spec,
    encode_spec,
    first_after,
    interval,
    next_after,
    once,
    parse_every,
    parse_time,
)
from flux.errors import InvalidInput

ZONES = [
    "UTC", "Europe/London", "America/New_York", "Asia/Kolkata", "Australia/Sydney", "Asia/Beirut",
    "Australia/Lord_Howe", "America/Santiago", "Africa/Casablanca",
]  # fmt: skip
#: Three years, in which every zone changes its clocks six times.
TIMES = st.floats(datetime(2024, 1, 1, tzinfo=UTC).timestamp(), datetime(2027, 1, 1, tzinfo=UTC).timestamp())
MINUTES = st.sampled_from(["0", "30", "15,45", "*/20", "10-12", "*"])
HOURS = st.sampled_from(["1", "2", "3", "0,2", "1-3", "*/6", "*"])
DAYS = st.sampled_from(["*", "*", "1", "15", "L"])
WEEKDAYS = st.sampled_from(["*", "*", "MON-FRI", "SUN"])
CRONS = st.builds("{} {} {} * {}".format, MINUTES, HOURS, DAYS, WEEKDAYS)


def at(zone: str, *when: int, fold: int = 0) -> float:
    return datetime(*when, tzinfo=ZoneInfo(zone), fold=fold).timestamp()  # type: ignore[arg-type, misc]


def times(spec: Spec, after: float, count: int) -> list[float]:
    found: list[float] = []
    for _ in range(count):
        after = first_after(spec, after)
        found.append(after)
    return found


@pytest.mark.behaviour("schedules:next:cron")
def test_cron_follows_the_clock_of_its_zone() -> None:
    spec = cron("0 9 * * MON-FRI", timezone="Europe/Berlin")
    friday = at("Europe/Berlin", 2026, 3, 27, 9)
    assert times(spec, friday - 60, 3) == [
        friday, at("Europe/Berlin", 2026, 3, 30, 9), at("Europe/Berlin", 2026, 3, 31, 9)
    ]  # fmt: skip
    assert at("Europe/Berlin", 2026, 3, 30, 9) - friday == 3 * 86_400 - 3_600
    assert next_after(cron("*/10 * * * * *"), 0.5) == 10.0


@pytest.mark.behaviour("schedules:dst:gap")
def test_a_time_that_does_not_exist_fires_once_right_after_the_gap() -> None:
    spec = cron("30 2 * * *", timezone="Europe/Berlin")
    before = at("Europe/Berlin", 2026, 3, 28, 2, 30)
    assert times(spec, before, 2) == [at("Europe/Berlin", 2026, 3, 29, 3), at("Europe/Berlin", 2026, 3, 30, 2, 30)]
    twice = cron("15,45 2 * * *", timezone="Europe/Berlin")
    assert times(twice, at("Europe/Berlin", 2026, 3, 29, 1), 2) == [
        at("Europe/Berlin", 2026, 3, 29, 3), at("Europe/Berlin", 2026, 3, 30, 2, 15)
    ]  # fmt: skip


@pytest.mark.behaviour("schedules:dst:fold")
def test_a_time_that_exists_twice_fires_once_also_seen_from_the_second_hour() -> None:
    spec = cron("30 2 * * *", timezone="Europe/Berlin")
    first, next_day = at("Europe/Berlin", 2026, 10, 25, 2, 30), at("Europe/Berlin", 2026, 10, 26, 2, 30)
    assert times(spec, first - 3_600, 2) == [first, next_day]
    second_hour = at("Europe/Berlin", 2026, 10, 25, 2, 10, fold=1)
    assert second_hour > first
    assert next_after(spec, second_hour) == next_day


@pytest.mark.behaviour("schedules:dst:fold")
def test_every_half_hour_follows_real_time_through_both_changes() -> None:
    spec = cron("*/30 * * * *", timezone="Europe/Berlin")
    for start in (at("Europe/Berlin", 2026, 10, 25, 1), at("Europe/Berlin", 2026, 3, 29, 1)):
        assert times(spec, start, 6) == [start + 1_800 * n for n in range(1, 7)]


@pytest.mark.behaviour("schedules:dst:gap")
def test_no_minute_is_lost_behind_a_gap_at_midnight_or_of_half_an_hour() -> None:
    beirut = cron("* 1-3 * * SUN", timezone="Asia/Beirut")  # 00:00 becomes 01:00
    assert next_after(beirut, at("Asia/Beirut", 2026, 3, 28, 19)) == at("Asia/Beirut", 2026, 3, 29, 1)
    lord_howe = cron("* 23 1 * *", timezone="Australia/Lord_Howe")  # 02:00 becomes 02:30
    assert next_after(lord_howe, at("Australia/Lord_Howe", 2023, 9, 30, 14)) == at(
        "Australia/Lord_Howe", 2023, 10, 1, 23
    )


@pytest.mark.behaviour("schedules:dst:gap")
def test_a_time_that_is_always_in_a_gap_never_fires() -> None:
    # The day on which 02:00 becomes 03:00; as a day of the month and of the week it is "and", because of the star.
    spec = cron("*/30 2 */1 3 7L", timezone="Europe/Berlin")
    with pytest.raises(InvalidInput, match="never fires"):
        first_after(spec, at("Europe/Berlin", 2026, 1, 1))


@pytest.mark.behaviour("schedules:next:cron")
@settings(max_examples=150, deadline=None)
@given(CRONS, st.sampled_from(ZONES), TIMES)
def test_the_next_time_is_later_matches_and_none_was_left_out(expr: str, zone: str, after: float) -> None:
    spec = cron(expr, zone)
    found = next_after(spec, after)
    assert found is not None
    assert found > after
    assert found % 60 == 0
    # Seen from anywhere between, the next time is the same one.
    for part in (0.25, 0.5, 0.999):
        assert next_after(spec, min(after + (found - after) * part, math.nextafter(found, 0))) == found
    assert next_after(spec, math.nextafter(found, 0)) == found


@pytest.mark.behaviour("schedules:next:cron")
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 59), st.integers(0, 23), st.sampled_from(ZONES), TIMES)
def test_a_daily_time_comes_exactly_once_on_every_day_of_its_zone(minute: int, hour: int, zone: str, at: float) -> None:
    spec = cron(f"{minute} {hour} * * *", zone)
    midnight = datetime.fromtimestamp(at, ZoneInfo(zone)).replace(hour=0, minute=0, second=0, microsecond=0)
    found = [datetime.fromtimestamp(one, ZoneInfo(zone)) for one in times(spec, midnight.timestamp() - 0.5, 200)]
    assert [one.date() for one in found] == [midnight.date() + timedelta(days=n) for n in range(200)]


@pytest.mark.behaviour("schedules:next:interval")
@settings(max_examples=100, deadline=None)
@given(st.integers(1, 10**7), TIMES, st.floats(0, 10**8))
def test_an_interval_keeps_its_rhythm_however_late_it_is_seen(seconds: int, due: float, late: float) -> None:
    stand = catch_up(interval(seconds=seconds), due, due + late)
    assert stand.next_at is not None
    assert stand.next_at > due + late
    assert stand.next_at - due == pytest.approx((stand.missed + 1) * seconds)
    assert stand.latest == pytest.approx(due + stand.missed * seconds)


@pytest.mark.behaviour("schedules:missed:counted")
@settings(max_examples=50, deadline=None)
@given(CRONS, st.sampled_from(ZONES), TIMES, st.integers(0, 40))
def test_catching_up_counts_every_time_that_passed(expr: str, zone: str, after: float, passed: int) -> None:
    spec = cron(expr, zone)
    all_times = times(spec, after, passed + 2)
    stand = catch_up(spec, all_times[0], all_times[passed] + 0.5)
    assert (stand.missed, stand.latest, stand.next_at) == (passed, all_times[passed], all_times[passed + 1])


@pytest.mark.behaviour("schedules:missed:counted")
def test_what_is_too_much_to_count_is_left_behind_all_the_same() -> None:
    stand = catch_up(cron("* * * * *"), 0, 10**9)
    assert stand.missed == COUNTED_AT_MOST
    assert stand.next_at is not None
    assert 10**9 < stand.next_at <= 10**9 + 60


@pytest.mark.behaviour("schedules:next:once")
def test_one_time_fires_once_and_is_read_in_its_zone() -> None:
    spec = once(datetime(2030, 7, 1, 9), "Europe/Berlin")
    moment = at("Europe/Berlin", 2030, 7, 1, 9)
    assert next_after(spec, moment - 1) == moment
    assert next_after(spec, moment) is None
    assert spec == parse_time("2030-07-01T09:00+02:00", "Europe/Berlin")
    gap = once(datetime(2026, 3, 29, 2, 30), "Europe/Berlin")
    assert next_after(gap, 0) == at("Europe/Berlin", 2026, 3, 29, 3)


@pytest.mark.behaviour("schedules:spec:json")
@settings(max_examples=100, deadline=None)
@given(
    st.one_of(
        st.builds(cron, CRONS, st.sampled_from(ZONES)),
        st.builds(lambda s, z: interval(seconds=s, timezone=z), st.floats(1, 10**9), st.sampled_from(ZONES)),
        st.builds(once, st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1)), st.sampled_from(ZONES)),
    )
)
def test_a_schedule_survives_json(spec: Spec) -> None:
    assert decode_spec(encode_spec(spec)) == spec


@pytest.mark.behaviour("schedules:spec:refused")
@pytest.mark.parametrize(
    ("expr", "zone", "said"),
    [
        ("0 9 * *", "UTC", "cron '0 9 * *': 4 fields; write minute hour day-of-month month day-of-week"),
        ("61 9 * * *", "UTC", "the minute is wrong"),
        ("0 24 * * *", "UTC", "the hour is wrong"),
        ("0 0 * 13 *", "UTC", "the month is wrong"),
        ("0 0 * * FUNDAY", "UTC", "the day-of-week is wrong"),
        ("0 0 32 * *", "UTC", "the day-of-month is wrong"),
        ("0 0 30 2 *", "UTC", "cron '0 0 30 2 *' never fires: none of its months has such a day"),
        ("0 0 31 4,6 *", "Asia/Kolkata", "never fires"),
        ("0 0 * * *", "Mars/Olympus", "there is no time zone 'Mars/Olympus'; write it as UTC or Europe/Berlin"),
        ("0 0 * * *", "../../etc/passwd", "there is no time zone"),
        ("0 0 * * *", "Europe", "there is no time zone"),
        ("0 0 * * *", "", "there is no time zone"),
        ("* " * 300, "UTC", "at most 256 characters"),
    ],
)
def test_a_wrong_cron_is_refused_with_what_is_wrong(expr: str, zone: str, said: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        cron(expr, zone)
    assert said in str(refused.value)


@pytest.mark.behaviour("schedules:spec:refused")
def test_an_interval_or_time_that_cannot_be_is_refused() -> None:
    for wrong in ({}, {"seconds": 0.5}, {"hours": -1}, {"days": math.inf}, {"weeks": math.nan}, {"days": 10**400}):
        with pytest.raises(InvalidInput, match="interval: "):
            interval(**wrong)
    for text in ("", "6", "h6", "6 hours", "6h!", "-6h", "9" * 13 + "h"):
        with pytest.raises(InvalidInput, match="interval"):
            parse_every(text)
    for text in ("", "tomorrow", "2030-02-30T00:00", "25:00"):
        with pytest.raises(InvalidInput, match="once"):
            parse_time(text)
    for past in (once(datetime(2001, 1, 1)), Once("2001-01-01T00:00:00+00:00")):
        with pytest.raises(InvalidInput, match="never fires: 2001-01-01T00:00:00\\+00:00 is in the past"):
            first_after(past, 10**9)
    for far in (datetime.min, datetime.max):
        with pytest.raises(InvalidInput, match="too far away"):
            once(far, "Asia/Kolkata" if far is datetime.min else "America/New_York")
    for broken in ('{"type":"never"}', "[]", "{", '{"type":"cron","expr":"x"}', '{"type":"interval","seconds":0}'):
        with pytest.raises(InvalidInput):
            decode_spec(broken)


@pytest.mark.behaviour("schedules:spec:json")
def test_schedules_are_found_where_scripts_look_for_them() -> None:
    assert (flux.cron, flux.interval, flux.once) == (cron, interval, once)


@pytest.mark.behaviour("schedules:next:interval")
def test_intervals_are_written_short() -> None:
    assert parse_every("6h") == interval(hours=6) == Interval(21_600.0)
    assert parse_every(" 1w 2d 3h4m5s ") == interval(weeks=1, days=2, hours=3, minutes=4, seconds=5)
    assert parse_every("1.5h") == interval(minutes=90)
