"""How many executions there are, and removing those that ended long ago."""

from __future__ import annotations

from flux.store import executions, files
from flux.store.database import Steps

EXPIRED = """
select id from executions e where state = 'ended' and driver is null and updated < :now - :seconds
  and not exists (select 1 from executions p where p.id = e.parent and p.state <> 'ended')
order by updated limit :limit"""


def delete_expired(seconds: float, limit: int) -> Steps[int]:
    """Remove up to `limit` executions that ended so long ago, of all tenants, with all they left behind.

    What a parent still at work has started stays; what was driven goes with its root. Returns how many went.
    """
    rows = yield EXPIRED, {"seconds": seconds, "limit": limit}
    for (root,) in rows:
        yield "delete from executions where id = :id", {"id": root}
        yield from executions.delete_rest(root)
    if rows:
        yield from files.forget_instances()
    return len(rows)


def counted() -> Steps[dict[tuple[str, ...], int]]:
    """How many executions there are, of all tenants, by kind and state."""
    rows = yield "select kind, state, count(*) from executions group by kind, state", {}
    return {(row[0], row[1]): row[2] for row in rows}
