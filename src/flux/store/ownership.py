"""Who owns executions: claims, hand-backs, what may be claimed now, and what the dead have left."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct

from flux.store.database import Row, Steps
from flux.store.executions import CALLER, COLUMNS, Execution
from flux.store.workers import JUST_NOW

#: Who could not load the source of an execution leaves it to others, for so many seconds.
AVOID_SECONDS = 30.0
#: The workers to be avoided are one text too, `|a||b|`.
WANTED = (
    "(avoid is null or replace(avoid, '|' || cast(:worker as text) || '|', '') = avoid"
    f" or due <= :now - {AVOID_SECONDS})"
)

CLAIM = f"""
update executions set state = 'running', worker = :worker, epoch = epoch + 1, waiting_for = null, updated = :now
where id = :id and state = 'scheduled' and due <= :now and driver is null and {WANTED}"""

#: The pools of a worker are one text, `|a|b|`; nobody sweeps the pool of a caller.
SERVED = f"pool <> '{CALLER}' and replace(:pools, '|' || pool || '|', '') <> :pools"
#: A claim that needs no look at the row before it is made, and no heartbeat beside it.
PLAIN = f"""
  and requests is null and {SERVED}
  and exists (
    select 1 from workers
    where id = :worker and state <> 'gone' and seen > :now - cast(:just as double precision))"""
#: What a worker cannot do is one text too: requests between line ends, which JSON does not hold.
FITS = "(requests is null or replace(:refused, '\n' || requests || '\n', '') = :refused)"

TIMER = f"""
update executions set state = 'scheduled', waiting_for = null, updated = :now
where state = 'waiting' and due <= :at and driver is null and {SERVED}"""

#: What code ran in its own process is not run by others, but settled: see store/callers.py.
OTHERS = f"not (pool = '{CALLER}' and kind = 'session')"

REAP = f"""
update executions set state = 'scheduled', worker = null, epoch = epoch + 1, failures = failures + 1,
  due = :now + :backoff, updated = :now
where state = 'running' and worker = :worker and driver is null and failures = :failures and {OTHERS}
returning id"""

HANDBACK = """
update executions set state = 'scheduled', worker = null, epoch = epoch + 1, failures = failures + :failed,
  due = :now + :backoff, updated = :now, last_error = coalesce(cast(:error as text), last_error)
where id = :id and epoch = :epoch and state = 'running'
returning id"""

FENCE_CHILDREN = "update executions set epoch = epoch + 1 where root = :id and driver is not null"


def claim(id: str, worker: str) -> Steps[Execution | None]:
    """Take a scheduled execution for `worker`; None when it is not to be had."""
    rows = yield f"{CLAIM} returning {COLUMNS}", {"id": id, "worker": worker}
    return Execution(*rows[0]) if rows else None


def claim_plain(id: str, worker: str, pools: Sequence[str]) -> Steps[Execution | None]:
    """Take a scheduled execution of these pools that asks for nothing, if `worker` was seen just now; one statement."""
    wanted = {"id": id, "worker": worker, "pools": joined(pools), "just": JUST_NOW}
    rows = yield f"{CLAIM}{PLAIN} returning {COLUMNS}", wanted
    return Execution(*rows[0]) if rows else None


def is_scheduled(id: str) -> Steps[bool]:
    """Whether an execution waits for a worker now."""
    rows = yield "select 1 from executions where id = :id and state = 'scheduled' and due <= :now", {"id": id}
    return bool(rows)


def sweep(
    pools: Sequence[str], limit: int, fits: Callable[[str], bool] = bool, worker: str = "", patience: float = 0.0
) -> Steps[tuple[list[str], float | None]]:
    """Wake timers; the ids that `worker` may claim now, oldest first, and seconds until the next timer.

    `fits` says of the requests of an execution whether they can be met here; others are left out. So are those
    to which a hint was given less than `patience` seconds ago.
    """
    rows: list[Row] = yield "select :now", {}
    at = rows[0][0]
    served = {"pools": joined(pools), "at": at}
    yield TIMER, served
    refused = yield from _refused(fits)
    served |= {"refused": refused, "worker": worker, "patience": patience}
    rows = yield CLAIMABLE, {**served, "limit": limit}
    ids = [row[0] for row in rows]
    rows = yield NEXT_SCHEDULED, served
    scheduled = rows[0][0]
    rows = yield NEXT_WAITING, served
    next_at = min((due for due in (scheduled, rows[0][0]) if due is not None), default=None)
    return ids, None if next_at is None else next_at - at


def _refused(fits: Callable[[str], bool]) -> Steps[str]:
    """What executions that are scheduled ask for and cannot get here."""
    rows = yield "select distinct requests from executions where state = 'scheduled' and requests is not null", {}
    refused = [row[0] for row in rows if not fits(row[0])]
    return "".join(f"\n{requests}\n" for requests in refused)


def joined(pools: Sequence[str]) -> str:
    """Pools as the statements take them."""
    return "".join(f"|{pool}|" for pool in pools)


#: Whoever schedules an execution for now gives a hint; who was woken by a timer, or taken from the dead, has none.
UNHINTED = "(due <> updated or failures > 0 or due <= :at - cast(:patience as double precision))"

CLAIMABLE = f"""
select id from executions where state = 'scheduled' and due <= :at and {SERVED} and {FITS} and {WANTED} and {UNHINTED}
order by due limit :limit"""

#: Behind those that are not due yet come those whose hint is awaited.
NEXT_SCHEDULED = f"""
select min(case when due > :at then due else :at + cast(:patience as double precision) end)
from executions where state = 'scheduled' and (due > :at or not {UNHINTED}) and {SERVED} and {FITS}"""

NEXT_WAITING = f"select min(due) from executions where state = 'waiting' and due > :at and {SERVED}"


class Owned(Struct, frozen=True):
    """A running execution of one worker."""

    id: str
    pool: str
    epoch: int
    failures: int


class Look(Struct, frozen=True):
    """What there is to do: whether something may be claimed, who owns runs, and what `worker` itself owns.

    `owners` has the other workers, each with whether it has been silent for too long. `draining`: somebody asked
    this worker to stop.
    """

    work: bool
    owners: dict[str, bool]
    own: list[Owned]
    draining: bool = False


OWNERS = """
select e.worker, coalesce(max(w.seen), 0) <= :now - :dead_after from executions e left join workers w on w.id = e.worker
where e.state = 'running' and e.driver is null group by e.worker"""

WORK = f"""
select exists (select 1 from executions where state = 'scheduled' and due <= :now and {SERVED} and {WANTED})
  or exists (
    select 1 from executions
    where state = 'waiting' and due is not null and due <= :now and driver is null and {SERVED}),
  (select state from workers where id = cast(:worker as text))"""

OWNED = (
    "select id, pool, epoch, failures from executions where state = 'running' and worker = :worker and driver is null"
)


def look(pools: Sequence[str], worker: str, dead_after: float) -> Steps[Look]:
    """See what there is to do for `worker`; who was not heard of for `dead_after` seconds is silent."""
    rows = yield WORK, {"pools": joined(pools), "worker": worker}
    work, draining = bool(rows[0][0]), rows[0][1] == "draining"
    rows = yield OWNERS, {"dead_after": dead_after}
    owners: dict[str, bool] = {row[0]: bool(row[1]) for row in rows}
    own: list[Row] = []
    if owners.pop(worker, None) is not None:
        own = yield OWNED, {"worker": worker}
    return Look(work, owners, [Owned(*row) for row in own], draining)


def reap(worker: str, backoffs: tuple[float, ...]) -> Steps[list[str]]:
    """Hand back what a dead worker was running; `backoffs[n]` in seconds after n earlier failures."""
    # Two that take over from the same worker do it one after the other: they could lock its rows in different orders.
    yield "update workers set state = state where id = :worker", {"worker": worker}
    rows = yield (
        "select distinct failures from executions where state = 'running' and worker = :worker and driver is null"
        f" and {OTHERS} order by failures",
        {"worker": worker},
    )
    reaped: list[str] = []
    for (failures,) in rows:
        backoff = backoffs[min(failures, len(backoffs) - 1)]
        ids = yield REAP, {"worker": worker, "failures": failures, "backoff": backoff}
        reaped += [row[0] for row in ids]
    for id in reaped:
        yield FENCE_CHILDREN, {"id": id}
    return reaped


def hand_back(id: str, epoch: int, *, failed: bool, backoff: float, error: str | None = None) -> Steps[bool]:
    """Give up a running execution; it is scheduled again after `backoff` seconds. False: it was not ours."""
    rows = yield HANDBACK, {"id": id, "epoch": epoch, "failed": int(failed), "backoff": backoff, "error": error}
    if rows:
        yield FENCE_CHILDREN, {"id": id}
    return bool(rows)
