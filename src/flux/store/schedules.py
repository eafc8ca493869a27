"""Schedules: what is to start when, and what became of each time that came."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct, structs

from flux.errors import ScheduleExists
from flux.store.database import Row, Scope, Steps

Target = Literal["workflow", "agent"]
Overlap = Literal["skip", "allow"]
Missed = Literal["once", "skip"]
ScheduleState = Literal["active", "paused", "done"]
RunOutcome = Literal["started", "skipped", "failed", "missed"]

#: How many runs of a schedule are kept.
KEPT_RUNS = 1_000


class Schedule(Struct, frozen=True):
    """One row. `workflow` is "namespace/name", `input` and `spec` are JSON; times in seconds since the epoch.

    `overlap`: what to do while the execution of the last time has not ended. `missed`: whether times that passed
    unseen are made up for by one run. `failures` counts failed starts in a row.
    """

    id: str
    tenant: str
    owner: str
    name: str
    target: Target
    workflow: str | None
    agent: str | None
    instance: str | None
    message: str | None
    input: str
    spec: str
    overlap: Overlap
    missed: Missed
    state: ScheduleState
    next_at: float | None
    last_at: float | None
    last_execution: str | None
    failures: int
    created: float
    updated: float

    @property
    def scope(self) -> Scope:
        """The owner's scope, under which its runs act."""
        return Scope(self.tenant, self.owner)


class ScheduleRun(Struct, frozen=True):
    """What became of one time. `missed` counts later times that had passed as well, when it was seen."""

    schedule_id: str
    due: float
    fired: float
    execution_id: str | None
    outcome: RunOutcome
    missed: int
    error: str | None


class Given(Struct, frozen=True, kw_only=True):
    """What the user decides about a schedule, as columns."""

    target: Target
    workflow: str | None = None
    agent: str | None = None
    instance: str | None = None
    message: str | None = None
    input: str = "null"
    spec: str
    overlap: Overlap = "skip"
    missed: Missed = "once"


COLUMNS = ", ".join(Schedule.__struct_fields__)
RUN_COLUMNS = ", ".join(ScheduleRun.__struct_fields__)

INSERT = f"""
insert into schedules ({COLUMNS})
values (:id, :tenant, :owner, :name, :target, cast(:workflow as text), cast(:agent as text), cast(:instance as text),
  cast(:message as text), :input, :spec, :overlap, :missed, 'active', cast(:next_at as double precision), null, null,
  0, :now, :now)
on conflict do nothing returning {COLUMNS}"""

UPDATE = f"""
update schedules set owner = :owner, target = :target, workflow = cast(:workflow as text),
  agent = cast(:agent as text), instance = cast(:instance as text), message = cast(:message as text), input = :input,
  spec = :spec, overlap = :overlap, missed = :missed, state = :state, next_at = cast(:next_at as double precision),
  updated = :now
where tenant = :tenant and name = :name returning {COLUMNS}"""

SET_STATE = f"""
update schedules set state = :state, next_at = cast(:next_at as double precision), updated = :now
where tenant = :tenant and name = :name returning {COLUMNS}"""

#: Who moves a schedule on owns the time it was due at; the loser of two finds no row.
TAKE = f"""
update schedules set next_at = cast(:next_at as double precision), last_at = :due,
  state = case when cast(:next_at as double precision) is null then :rest else 'active' end, updated = :now
where id = :id and state = 'active' and next_at = :due and spec = :spec returning {COLUMNS}"""

INSERT_RUN = f"""
insert into schedule_runs ({RUN_COLUMNS})
values (:id, :due, :now, cast(:execution_id as text), :outcome, :missed, cast(:error as text))
on conflict do nothing"""

FORGET_OLD = """
delete from schedule_runs where schedule_id = :id and due <= (
  select due from schedule_runs where schedule_id = :id order by due desc limit 1 offset :kept)"""

FINISH = """
update schedules set last_execution = coalesce(cast(:execution_id as text), last_execution),
  failures = case when :outcome = 'failed' then failures + 1 when :outcome = 'started' then 0 else failures end
where id = :id"""


def now() -> Steps[float]:
    """The database's clock."""
    rows = yield "select :now", {}
    return float(rows[0][0])


def create(scope: Scope, id: str, name: str, given: Given, next_at: float) -> Steps[Schedule]:
    """Store a new schedule.

    :raises ScheduleExists: the name is taken
    """
    rows = yield INSERT, _parameters(scope, name, given) | {"id": id, "next_at": next_at}
    if not rows:
        raise ScheduleExists(f"a schedule {name!r} exists already; change it, or give another name")
    return Schedule(*rows[0])


def lock(scope: Scope, name: str) -> Steps[Schedule | None]:
    """A schedule of this tenant, which nobody else changes until this transaction is over."""
    rows = yield (
        f"update schedules set updated = updated where tenant = :tenant and name = :name returning {COLUMNS}",
        {"tenant": scope.tenant, "name": name},
    )
    return Schedule(*rows[0]) if rows else None


def replace(scope: Scope, name: str, given: Given, state: ScheduleState, next_at: float | None) -> Steps[Schedule]:
    """Change a schedule that the caller holds; it belongs to the scope's principal from now on."""
    rows = yield UPDATE, _parameters(scope, name, given) | {"state": state, "next_at": next_at}
    return Schedule(*rows[0])


def set_state(scope: Scope, name: str, state: ScheduleState, next_at: float | None) -> Steps[Schedule]:
    """Pause or resume a schedule that the caller holds."""
    rows = yield SET_STATE, {"tenant": scope.tenant, "name": name, "state": state, "next_at": next_at}
    return Schedule(*rows[0])


def get(scope: Scope, name: str) -> Steps[Schedule | None]:
    """A schedule of this tenant."""
    rows = yield (
        f"select {COLUMNS} from schedules where tenant = :tenant and name = :name",
        {"tenant": scope.tenant, "name": name},
    )
    return Schedule(*rows[0]) if rows else None


def page(scope: Scope, after: str = "", limit: int = 50) -> Steps[list[Schedule]]:
    """Schedules by name, behind `after`."""
    rows = yield (
        f"select {COLUMNS} from schedules where tenant = :tenant and name > :after order by name limit :limit",
        {"tenant": scope.tenant, "after": after, "limit": limit},
    )
    return [Schedule(*row) for row in rows]


def delete(scope: Scope, name: str) -> Steps[bool]:
    """Remove a schedule with its history; what it has started goes on."""
    rows = yield (
        "delete from schedules where tenant = :tenant and name = :name returning id",
        {"tenant": scope.tenant, "name": name},
    )
    for (id,) in rows:
        yield "delete from schedule_runs where schedule_id = :id", {"id": id}
    return bool(rows)


def history(scope: Scope, name: str, before: float | None = None, limit: int = 50) -> Steps[list[ScheduleRun]]:
    """What became of the times of a schedule, newest first; `before` is the time of the last one seen."""
    columns = ", ".join(f"r.{column}" for column in ScheduleRun.__struct_fields__)
    rows = yield (
        f"select {columns} from schedule_runs r join schedules s on s.id = r.schedule_id"
        " where s.tenant = :tenant and s.name = :name"
        " and (cast(:before as double precision) is null or r.due < :before) order by r.due desc limit :limit",
        {"tenant": scope.tenant, "name": name, "before": before, "limit": limit},
    )
    return [ScheduleRun(*row) for row in rows]


def due(limit: int) -> Steps[tuple[list[Schedule], float, float | None]]:
    """The schedules of every tenant whose time has come, oldest first; the clock; and seconds until the next time."""
    at = yield from now()
    rows: list[Row] = yield (
        f"select {COLUMNS} from schedules where state = 'active' and next_at <= :at order by next_at limit :limit",
        {"at": at, "limit": limit},
    )
    later = yield "select min(next_at) from schedules where state = 'active' and next_at > :at", {"at": at}
    next_at = later[0][0]
    return [Schedule(*row) for row in rows], at, None if next_at is None else next_at - at


def take(seen: Schedule, next_at: float | None, rest: ScheduleState = "done") -> Steps[Schedule | None]:
    """Move a schedule on from the time it was due at; None: somebody else did, or it was changed.

    `rest` is its state when no time is left.
    """
    rows = yield TAKE, {"id": seen.id, "due": seen.next_at, "spec": seen.spec, "next_at": next_at, "rest": rest}
    return Schedule(*rows[0]) if rows else None


def record(
    id: str, due: float, outcome: RunOutcome, *, missed: int, execution_id: str | None = None, error: str | None = None
) -> Steps[None]:
    """Write what became of a time into the history, by the transaction that took it."""
    told = {"id": id, "execution_id": execution_id, "outcome": outcome}
    yield INSERT_RUN, told | {"due": due, "missed": missed, "error": error}
    yield FINISH, told
    yield FORGET_OLD, {"id": id, "kept": KEPT_RUNS}


def _parameters(scope: Scope, name: str, given: Given) -> dict[str, Any]:
    return {"tenant": scope.tenant, "owner": scope.principal, "name": name, **structs.asdict(given)}
