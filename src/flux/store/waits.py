"""Executions that wait for others to end."""

from __future__ import annotations

from msgspec import Struct

from flux.events import ChildDone
from flux.store import driven, executions, log
from flux.store.database import Scope, Steps


class Woken(Struct, frozen=True):
    """A waiter that was told, or the root of one that is driven: the pool it is scheduled in, and new rows by log."""

    id: str
    pool: str
    rows: dict[str, tuple[log.LogRow, ...]]


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
    entry = ChildDone(child=target, outcome=outcome)
    for (id,) in sorted(rows):
        # Who is driven does not wake by itself: its root does, and everybody on the way goes on by its own log.
        chain = yield from driven.chain(Scope(tenant, ""), id)
        if not chain:
            continue
        root = chain[-1].id
        moved = yield executions.WAKE, {"id": root, "tenant": tenant, "run_id": None}
        if moved:
            head, epoch, _, run, pool = moved[0]
            written = {root: (yield from log.insert(root, [entry], head, run, epoch))}
            written |= yield from driven.tell(Scope(tenant, ""), [row.id for row in reversed(chain[:-1])], entry)
            woken.append(Woken(root, pool, written))
    return tuple(woken)


def open_target(scope: Scope, id: str) -> Steps[bool]:
    """Whether an execution is there and has not ended; to be written: one that is just ending is waited for."""
    rows = yield (
        "update executions set updated = updated where id = :id and tenant = :tenant and state <> 'ended' returning id",
        {"id": id, "tenant": scope.tenant},
    )
    return bool(rows)
