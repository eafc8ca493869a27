"""Executions that a worker cannot run: it leaves them to others, as long as there are any."""

from __future__ import annotations

from msgspec import Struct

from flux.store.database import Steps
from flux.store.ownership import FENCE_CHILDREN

AVOIDED = "coalesce(replace(avoid, '|' || cast(:worker as text) || '|', '') <> avoid, false)"

#: The first refusal of a worker counts as a failure.
REFUSE = f"""
update executions set state = 'scheduled', worker = null, epoch = epoch + 1, due = :now, updated = :now,
  last_error = :error, failures = failures + case when {AVOIDED} then 0 else 1 end,
  avoid = case when {AVOIDED} then avoid else coalesce(avoid, '') || '|' || cast(:worker as text) || '|' end
where id = :id and epoch = :epoch and state = 'running'
returning id"""

OTHERS = """
select w.labels, w.resources from workers w, executions e
where e.id = :id and w.id <> :worker and w.state = 'active' and w.seen > :now - :dead_after
  and (e.avoid is null or replace(e.avoid, '|' || w.id || '|', '') = e.avoid)"""


class Other(Struct, frozen=True):
    """What another worker offers; `labels` and `resources` are JSON."""

    labels: str
    resources: str


def others(id: str, worker: str, dead_after: float) -> Steps[list[Other]]:
    """The workers that live, and have not refused this execution."""
    rows = yield OTHERS, {"id": id, "worker": worker, "dead_after": dead_after}
    return [Other(*row) for row in rows]


def refuse(id: str, epoch: int, worker: str, error: str) -> Steps[bool]:
    """Give up a running execution that `worker` cannot run. False: it was not ours."""
    rows = yield REFUSE, {"id": id, "epoch": epoch, "worker": worker, "error": error}
    if rows:
        yield FENCE_CHILDREN, {"id": id}
    return bool(rows)
