"""Sessions that code runs in its own process: taken by who calls, claimed by no worker, settled when it is gone."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from flux.errors import SessionBusy, SessionEnded, SessionNotFound
from flux.events import Entry
from flux.store import executions, log, workers
from flux.store.database import Scope, Steps
from flux.store.executions import CALLER, COLUMNS, Execution
from flux.store.ownership import FENCE_CHILDREN
from flux.store.workers import Presence

FIND = f"""
select {COLUMNS} from executions
where tenant = :tenant and owner = :owner and agent = :agent and instance = :instance and name = :name
  and state <> 'ended' and driver is null"""

ENTER = f"""
update executions set state = 'running', worker = :worker, epoch = epoch + 1, pool = '{CALLER}', head = head + :n,
  run_id = cast(:run_id as text), title = coalesce(title, cast(:title as text)), waiting_for = null, due = null,
  updated = :now
where id = :id and tenant = :tenant and state = 'idle' and driver is null
returning {COLUMNS}"""

LOST = f"""
select id from executions
where state = 'running' and worker = :worker and pool = '{CALLER}' and kind = 'session' and driver is null"""

TAKE_OVER = f"""
update executions set worker = :worker, epoch = epoch + 1, updated = :now
where id = :id and worker = :dead and state = 'running' and pool = '{CALLER}' and driver is null
returning {COLUMNS}"""


class Entered(Struct, frozen=True):
    """A session that is taken by who calls, and the entries that were written for it."""

    execution: Execution
    rows: tuple[log.LogRow, ...]


def find(scope: Scope, agent: str, instance: str, name: str) -> Steps[Execution | None]:
    """The open session of an agent, an instance and a name; None when there is none of this owner."""
    rows = yield (
        FIND,
        {"tenant": scope.tenant, "owner": scope.principal, "agent": agent, "instance": instance, "name": name},
    )
    return Execution(*rows[0]) if rows else None


def move(id: str, pool: str) -> Steps[None]:
    """Let the workers of a pool run an idle session from now on, which other workers or code have run before."""
    yield "update executions set pool = :pool where id = :id and state = 'idle'", {"id": id, "pool": pool}


def enter(
    scope: Scope, id: str, who: Presence, entries: Sequence[Entry], run_id: str | None, title: str | None
) -> Steps[Entered]:
    """Take an idle session and write the first entries of what is done in it. `run_id` None: no run begins.

    :raises SessionNotFound, SessionEnded, SessionBusy: it cannot be taken
    """
    taken = yield (
        ENTER,
        {
            "id": id,
            "tenant": scope.tenant,
            "worker": who.id,
            "n": len(entries),
            "run_id": run_id,
            "title": title,
        },
    )
    if not taken:
        row = yield from executions.get(scope, id)
        raise _refusal(row)
    execution = Execution(*taken[0])
    yield from workers.stay(who)
    rows = (yield from log.insert(id, entries, execution.head, run_id, execution.epoch)) if entries else ()
    return Entered(execution, rows)


def _refusal(row: Execution | None) -> SessionNotFound | SessionEnded | SessionBusy:
    if row is None:
        return SessionNotFound("there is no such session any more; it was deleted")
    if row.state == "ended":
        return SessionEnded()
    if row.state == "waiting":
        return SessionBusy("the session waits for an answer: give it with respond(), or cancel()")
    return SessionBusy("the session is working; wait for it, or use another session")


RESTORE = """
update executions set head = head + :n, turns = :turns, updated = :now
where id = :id and tenant = :tenant and state = 'idle' and head = 1
returning head, epoch"""


def restore(scope: Scope, id: str, history: log.History) -> Steps[tuple[log.LogRow, ...]]:
    """Fill a session that has just been made, in the same transaction, with a conversation of elsewhere."""
    entries = history.entries
    moved = yield RESTORE, {"id": id, "tenant": scope.tenant, "n": len(entries), "turns": history.turns}
    return (yield from log.insert(id, entries, moved[0][0], None, moved[0][1])) if moved and entries else ()


def lost(worker: str) -> Steps[list[str]]:
    """The sessions that a worker which is gone was running for itself."""
    rows = yield LOST, {"worker": worker}
    return [row[0] for row in rows]


def take_over(id: str, dead: str, who: Presence) -> Steps[Execution | None]:
    """Take one of them; None when somebody else has."""
    rows = yield TAKE_OVER, {"id": id, "dead": dead, "worker": who.id}
    if not rows:
        return None
    yield FENCE_CHILDREN, {"id": id}
    yield from workers.stay(who)
    return Execution(*rows[0])
