"""Which processes are alive, and who they are: heartbeat rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec
from msgspec import Struct

from flux.errors import WorkerExists
from flux.store.database import Steps

#: `gone` is also who has been silent for too long, whatever its row says.
State = Literal["active", "draining", "gone"]


class Presence(Struct, frozen=True):
    """Who a worker is: a process, by the id under which it owns executions. `labels` and `resources` are JSON."""

    id: str
    name: str = ""
    host: str = ""
    pid: int = 0
    version: str = ""
    labels: str = "{}"
    resources: str = "{}"
    concurrency: int = 0


class WorkerRow(Presence, frozen=True):
    """A worker as its row shows it. `running`: how many executions it owns; times in seconds since the epoch.

    `silent`: seconds since it was seen, by the database's clock.
    """

    state: State = "active"
    started: float = 0.0
    seen: float = 0.0
    running: int = 0
    silent: float = 0.0


#: Seconds within which a worker need not be seen again.
JUST_NOW = 0.25

BEAT = "update workers set seen = :now, state = case when state = 'gone' then 'active' else state end where id = :id"

INSERT = """
insert into workers (id, name, host, pid, version, labels, resources, concurrency, state, started, seen)
values (:id, :name, :host, :pid, :version, :labels, :resources, :concurrency, 'active', :now, :now)
on conflict do nothing returning name"""

FIND = """
select w.id, w.name, w.host, w.pid, w.version, w.labels, w.resources, w.concurrency, w.state, w.started, w.seen,
  (select count(*) from executions e where e.state = 'running' and e.worker = w.id and e.driver is null), :now - w.seen
from workers w"""

OWNS_NOTHING = "not exists (select 1 from executions where state = 'running' and worker = workers.id)"


def renew(worker: str) -> Steps[bool]:
    """Say that a worker is alive still. False: it has no row."""
    rows = yield f"{BEAT} returning id", {"id": worker}
    return bool(rows)


def beat(who: Presence) -> Steps[None]:
    """Say that a worker is alive now, be it the first time.

    Without a name of its own, or when another one has taken it meanwhile, it is called by its id too.
    """
    if (yield from renew(who.id)):
        return
    first = who.name or who.id
    for name in (first, f"{first}-{who.id}"):
        if (yield INSERT, {**msgspec.structs.asdict(who), "name": name}):
            return


def stay(who: Presence) -> Steps[None]:
    """`beat`, unless the worker was seen just now: many claims at once need not wait for each other at its row."""
    seen = yield (
        "select 1 from workers where id = :id and state <> 'gone' and seen > :now - cast(:just as double precision)",
        {"id": who.id, "just": JUST_NOW},
    )
    if not seen:
        yield from beat(who)


def join(who: Presence, dead_after: float, is_dead: Callable[[str], bool]) -> Steps[None]:
    """Be there under a name of one's own; a former worker of that name must be gone.

    It is when it was not heard of for `dead_after` seconds, or when `is_dead` says so of its id.

    :raises WorkerExists: a living worker has this name
    """
    rows = yield f"{FIND} where w.name = :name and w.id <> :id", {"name": who.name, "id": who.id}
    for row in rows:
        former = WorkerRow(*row)
        if former.state != "gone" and former.silent < dead_after and not is_dead(former.id):
            raise _exists(former.name, f"process {former.pid} on {former.host}, seen {former.silent:.0f} s ago")
        yield from forget(former.id)
    if not (yield INSERT, msgspec.structs.asdict(who)):
        raise _exists(who.name, "started just now")


def _exists(name: str, which: str) -> WorkerExists:
    return WorkerExists(f"a worker named {name!r} is alive ({which}); choose another name, or stop that one first")


def page(after: str, limit: int) -> Steps[list[WorkerRow]]:
    """Workers by name, those that are gone among them."""
    rows = yield f"{FIND} where w.name > :after order by w.name limit :limit", {"after": after, "limit": limit}
    return [WorkerRow(*row) for row in rows]


def get(name: str) -> Steps[WorkerRow | None]:
    """The worker of a name."""
    rows = yield f"{FIND} where w.name = :name", {"name": name}
    return WorkerRow(*rows[0]) if rows else None


def drain(id: str) -> Steps[None]:
    """Ask a worker to stop; it sees that when it looks what there is to do."""
    yield "update workers set state = 'draining' where id = :id and state = 'active'", {"id": id}


def silent(worker: str, seconds: float) -> Steps[bool]:
    """Whether a worker has not been seen for that long, or never."""
    rows = yield (
        "select 1 from workers where id = :id and seen > :now - :seconds",
        {"id": worker, "seconds": seconds},
    )
    return not rows


def alive(seconds: float) -> Steps[int]:
    """How many workers have been seen in that time, and are not gone."""
    rows = yield "select count(*) from workers where seen > :now - :seconds and state <> 'gone'", {"seconds": seconds}
    return int(rows[0][0])


def forget(worker: str) -> Steps[None]:
    """Remove a worker that has left."""
    yield "delete from workers where id = :id", {"id": worker}


def mark_gone(worker: str) -> Steps[None]:
    """Note that a worker is dead; its row stays for a while, so that people see it."""
    yield "update workers set state = 'gone' where id = :id", {"id": worker}


def idle(seconds: float) -> Steps[list[str]]:
    """The workers that own nothing and have not been seen for that long."""
    rows = yield f"select id from workers where seen <= :now - :seconds and {OWNS_NOTHING}", {"seconds": seconds}
    return [row[0] for row in rows]
