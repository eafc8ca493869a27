"""Which processes are alive: heartbeat rows."""

from __future__ import annotations

from flux.store.database import Steps


def beat(worker: str, labels: str = "{}") -> Steps[None]:
    """Say that a worker is alive now."""
    yield (
        "insert into workers (id, seen, labels) values (:id, :now, :labels)"
        " on conflict (id) do update set seen = excluded.seen, labels = excluded.labels",
        {"id": worker, "labels": labels},
    )


OWNS_NOTHING = "not exists (select 1 from executions where state = 'running' and worker = workers.id)"


def silent(worker: str, seconds: float) -> Steps[bool]:
    """Whether a worker has not been seen for that long, or never."""
    rows = yield (
        "select 1 from workers where id = :id and seen > :now - :seconds",
        {"id": worker, "seconds": seconds},
    )
    return not rows


def alive(seconds: float) -> Steps[int]:
    """How many workers have been seen in that time."""
    rows = yield "select count(*) from workers where seen > :now - :seconds", {"seconds": seconds}
    return int(rows[0][0])


def forget(worker: str) -> Steps[None]:
    """Remove a worker that has left."""
    yield "delete from workers where id = :id", {"id": worker}


def idle(seconds: float) -> Steps[list[str]]:
    """The workers that own nothing and have not been seen for that long."""
    rows = yield f"select id from workers where seen <= :now - :seconds and {OWNS_NOTHING}", {"seconds": seconds}
    return [row[0] for row in rows]


def forget_idle(seconds: float) -> Steps[None]:
    """Remove those workers; one that lives comes back with its next claim."""
    yield f"delete from workers where seen <= :now - :seconds and {OWNS_NOTHING}", {"seconds": seconds}
