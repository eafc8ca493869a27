"""Executions that wait for others to end."""

from __future__ import annotations

from msgspec import Struct

from flux.events import ChildDone
from flux.store import executions, log
from flux.store.database import Scope, Steps


class Woken(Struct, frozen=True):
    """A waiter that was told: its new rows, and the pool it is scheduled in."""

    id: str
    pool: str
    rows: tuple[log.LogRow, ...]


def wait_for(scope: Scope, id: str, target: str) -> Steps[None]:
    """Let `id` be told when `target` ends; look at the target once this is committed."""
    yield (
        "insert into waits (execution_id, target) select id, :target from executions"
        " where id = :id and tenant = :tenant on conflict do nothing",
        {"id": id, "target": target, "tenant": scope.tenant},
    )


def release(tenant: str, target: str, outcome: str) -> Steps[tuple[Woken, ...]]:
    """Tell everybody who waits for an execution that it has ended, in the transaction that ends it."""
    rows = yield "delete from waits where target = :target returning execution_id", {"target": target}
    woken: list[Woken] = []
    for (id,) in sorted(rows):
        moved = yield executions.WAKE, {"id": id, "tenant": tenant, "run_id": None}
        if moved:
            head, epoch, _, run, pool = moved[0]
            written = yield from log.insert(id, [ChildDone(child=target, outcome=outcome)], head, run, epoch)
            woken.append(Woken(id, pool, written))
    return tuple(woken)


def open_target(scope: Scope, id: str) -> Steps[bool]:
    """Whether an execution is there and has not ended."""
    rows = yield (
        "select 1 from executions where id = :id and tenant = :tenant and state <> 'ended'",
        {"id": id, "tenant": scope.tenant},
    )
    return bool(rows)
