"""Driven children: sessions that run inside the process of the execution that drives them, under its epoch."""

from __future__ import annotations

from msgspec import Struct

from flux.errors import Fenced, SessionEnded, SessionExists
from flux.events import Cancelled, CompactRequested, Entry, SessionEndedEntry, SessionStarted, UserSaid
from flux.store import executions, log
from flux.store.database import Row, Scope, Steps
from flux.store.executions import COLUMNS, NOTHING_SPENT, Execution

#: The root is locked first, as in every statement about a tree: who ends or reaps it must see what is driven now.
LOCK = "update executions set updated = :now where id = :root and tenant = :tenant returning id"

#: Locks the driver's row, and proves that it is still ours.
HOLD = """
update executions set updated = :now where id = :id and tenant = :tenant and epoch = :epoch and state = 'running'
returning id"""

INSERT = """
insert into executions (id, kind, tenant, owner, agent, agent_version, definition_digest, instance, name,
  state, head, epoch, pool, failures, parent, driver, root, turns, usage, created, updated)
values (:id, 'session', :tenant, :owner, :agent, cast(:agent_version as integer), :definition_digest, :instance, :name,
  'idle', cast(:head as integer), 0, 'caller', 0, :driver, :driver, :root, cast(:turns as integer), :usage, :now, :now)
on conflict do nothing returning id"""

SAID = """
select 1 from events where execution_id = :id and type in ('user_message', 'compact_requested') and body like :message
limit 1"""

MOVE = """
update executions set head = head + :n where id = :id and tenant = :tenant and state <> 'ended'
returning head, epoch, run_id"""

TAKE = f"""
update executions set state = 'running', worker = :worker, epoch = epoch + 1, waiting_for = null, due = null,
  run_id = coalesce(run_id, cast(:run_id as text)), updated = :now
where id = :id and tenant = :tenant and driver = :driver and state <> 'ended'
returning {COLUMNS}"""

DESCENDANTS = """
select id, run_id, turns from executions where root = :root and driver is not null and state <> 'ended' order by id"""

MEMBERS = "select id, driver from executions where root = :root and driver is not null and tenant = :tenant"

TARGETS = """
select w.execution_id, w.target from waits w join executions e on e.id = w.execution_id
where e.root = :root and e.driver is not null order by w.target"""

END = """
update executions set state = 'ended', outcome = :outcome, epoch = epoch + 1, head = head + :n, worker = null,
  due = null, waiting_for = null, run_id = null, updated = :now
where id = :id and state <> 'ended' returning head, epoch"""


STOP = """
update executions set state = 'idle', epoch = epoch + 1, head = head + 1, worker = null, due = null,
  waiting_for = null, run_id = null, updated = :now
where id = :id returning head, epoch"""


NO_HISTORY = log.History()


class Driver(Struct, frozen=True):
    """Who drives: its id, the epoch in which it owns itself, and the root of its tree."""

    id: str
    epoch: int
    worker: str
    root: str


class Awaited(Struct, frozen=True):
    """What a driven session and those below it wait for: open questions, and executions that have not ended."""

    questions: frozenset[str]
    targets: tuple[str, ...]


class Taken(Struct, frozen=True):
    """A child as it was taken, and the entries that were written for it."""

    execution: Execution
    rows: tuple[log.LogRow, ...]


def drive(
    scope: Scope,
    driver: Driver,
    id: str,
    started: SessionStarted | None,
    said: UserSaid | CompactRequested | None,
    run_id: str,
    history: log.History = NO_HISTORY,
) -> Steps[Taken]:
    """Make the child unless it is there, give it the message unless it has it, and take it for the driver.

    `run_id` is that of the run which a new message begins; `history` what the child begins with.

    :raises Fenced: the driver does not own itself any more
    :raises SessionEnded: the child was ended
    :raises SessionExists: an open session of somebody else has its name
    """
    yield from hold(scope, driver)
    rows = (yield from make(scope, driver, id, started, history)) if started else ()
    fresh = said is not None and not (yield from _has(id, said))
    if said is not None and fresh:
        moved = yield MOVE, {"id": id, "tenant": scope.tenant, "n": 1}
        if not moved:
            raise SessionEnded()
        rows += yield from log.insert(id, [said], moved[0][0], moved[0][2], moved[0][1])
    taken = yield (
        TAKE,
        {
            "id": id,
            "tenant": scope.tenant,
            "driver": driver.id,
            "worker": driver.worker,
            "run_id": run_id if fresh else None,
        },
    )
    if not taken:
        raise SessionEnded()
    return Taken(Execution(*taken[0]), rows)


def hold(scope: Scope, driver: Driver) -> Steps[None]:
    """Lock a driver, its root first, and prove that it is still ours.

    :raises Fenced: the driver does not own itself any more
    """
    if driver.root != driver.id:
        yield LOCK, {"root": driver.root, "tenant": scope.tenant}
    if not (yield HOLD, {"id": driver.id, "tenant": scope.tenant, "epoch": driver.epoch}):
        raise Fenced(debug=f"{driver.id} drives in epoch {driver.epoch}")


def make(
    scope: Scope, driver: Driver, id: str, started: SessionStarted, history: log.History = NO_HISTORY
) -> Steps[tuple[log.LogRow, ...]]:
    """Make a child, with what it begins with, unless it is there; the driver is held.

    :raises SessionExists: an open session of somebody else has its name
    """
    entries = [started, *history.entries]
    made = yield (
        INSERT,
        {
            "id": id,
            "tenant": scope.tenant,
            "owner": scope.principal,
            "agent": started.agent,
            "agent_version": started.agent_version,
            "definition_digest": started.definition_digest,
            "instance": started.instance,
            "name": started.name,
            "driver": driver.id,
            "root": driver.root,
            "head": len(entries),
            "turns": history.turns,
            "usage": NOTHING_SPENT,
        },
    )
    if made:
        return (yield from log.insert(id, entries, len(entries), None, 0))
    if not (yield "select 1 from executions where id = :id and tenant = :tenant", {"id": id, "tenant": scope.tenant}):
        raise SessionExists(
            f"agent {started.agent!r} has an open session {started.name!r} for instance {started.instance!r}"
            " elsewhere; end that one, or take another name"
        )
    return ()


def remove(scope: Scope, driver: Driver, id: str) -> Steps[None]:
    """Remove a child, and all that it drove and left behind; nothing where it is not there.

    :raises Fenced: the driver does not own itself any more
    """
    yield from hold(scope, driver)
    members: list[Row] = yield MEMBERS, {"root": driver.root, "tenant": scope.tenant}
    drivers: dict[str, str] = dict(members)
    if drivers.get(id) != driver.id:
        return
    gone = {id}
    while more := {one for one, of in drivers.items() if of in gone} - gone:
        gone |= more
    for one in sorted(gone):
        yield "delete from executions where id = :id and tenant = :tenant", {"id": one, "tenant": scope.tenant}
        yield from executions.delete_left(one)


def _has(id: str, said: UserSaid | CompactRequested) -> Steps[bool]:
    """Whether the message is in the log already."""
    return bool((yield SAID, {"id": id, "message": f'%"id":"{said.id}"%'}))


def chain(scope: Scope, id: str) -> Steps[list[Execution]]:
    """An execution and those that drive it, up to the root."""
    found: list[Execution] = []
    while True:
        row = yield from executions.get(scope, id)
        if row is None:
            return found
        found.append(row)
        if row.driver is None:
            return found
        id = row.driver


def children(scope: Scope, root: str, driver: str) -> Steps[list[Execution]]:
    """The sessions below `root` that `driver` drives itself, oldest first."""
    rows = yield (
        f"select {COLUMNS} from executions where root = :root and driver = :driver and tenant = :tenant"
        " order by created, id",
        {"root": root, "driver": driver, "tenant": scope.tenant},
    )
    return [Execution(*row) for row in rows]


def awaited(scope: Scope, root: str, id: str) -> Steps[Awaited]:
    """What a session that `root` drives waits for."""
    of_root = {"root": root, "tenant": scope.tenant}
    members: list[Row] = yield MEMBERS, of_root
    drivers: dict[str, str] = dict(members)
    asked: list[Row] = yield "select id, execution_id from interrupts where root = :root and state = 'open'", of_root
    targets: list[Row] = yield TARGETS, of_root

    def below(one: str | None) -> bool:
        while one is not None and one != id:
            one = drivers.get(one)
        return one is not None

    return Awaited(
        frozenset(question for question, asker in asked if id in drivers and below(asker)),
        tuple(target for waiter, target in targets if id in drivers and below(waiter)),
    )


def tell(scope: Scope, ids: list[str], entry: Entry) -> Steps[dict[str, tuple[log.LogRow, ...]]]:
    """Put an entry into the logs of executions that are not ended; what was written, by id."""
    told: dict[str, tuple[log.LogRow, ...]] = {}
    for id in ids:
        moved = yield MOVE, {"id": id, "tenant": scope.tenant, "n": 1}
        if moved:
            head, epoch, run = moved[0]
            told[id] = yield from log.insert(id, [entry], head, run, epoch)
    return told


def stop_all(root: str) -> Steps[None]:
    """Stop what children of a root have begun; they can be driven again. The caller owns the root."""
    rows: list[Row] = yield DESCENDANTS, {"root": root}
    for id, run, _ in rows:
        if run is not None:
            stopped = yield STOP, {"id": id}
            yield from log.insert(id, [Cancelled()], stopped[0][0], run, stopped[0][1])
            yield log.CLOSE_INTERRUPTS, {"id": id}


def end_all(root: str, outcome: str, reason: str) -> Steps[dict[str, tuple[log.LogRow, ...]]]:
    """End every child of a root, in the transaction that ends the root; what was written, by id."""
    rows: list[Row] = yield DESCENDANTS, {"root": root}
    told: dict[str, tuple[log.LogRow, ...]] = {}
    for id, run, turns in rows:
        entries: list[Entry] = [SessionEndedEntry(reason=reason, turns=turns)]
        if run is not None:
            entries.insert(0, Cancelled())
        ended = yield END, {"id": id, "n": len(entries), "outcome": outcome if run is None else "cancelled"}
        told[id] = yield from log.insert(id, entries, ended[0][0], run, ended[0][1])
        yield log.CLOSE_INTERRUPTS, {"id": id}
    return told
