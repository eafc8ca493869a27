"""Idempotency keys: what was admitted under which key."""

from __future__ import annotations

from msgspec import Struct

from flux.errors import IdempotencyMismatch
from flux.store.database import Scope, Steps


class Admission(Struct, frozen=True):
    """What a key admitted."""

    execution_id: str
    seq: int


def claim(scope: Scope, key: str, body_digest: str) -> Steps[Admission | None]:
    """Take a key, or return what it admitted before. Another request that is taking it is waited for.

    :raises IdempotencyMismatch: it was used with another body
    """
    rows = yield (
        "insert into admissions (tenant, principal, key, body_digest, execution_id, seq, at)"
        " values (:tenant, :principal, :key, :digest, '', 0, :now)"
        " on conflict do nothing returning key",
        {"tenant": scope.tenant, "principal": scope.principal, "key": key, "digest": body_digest},
    )
    if rows:
        return None
    before = yield from find(scope, key, body_digest)
    # None: its session was deleted meanwhile.
    return before or (yield from claim(scope, key, body_digest))


def find(scope: Scope, key: str, body_digest: str) -> Steps[Admission | None]:
    """What a key admitted; None when it was not used.

    :raises IdempotencyMismatch: it was used with another body
    """
    rows = yield (
        "select execution_id, seq, body_digest from admissions"
        " where tenant = :tenant and principal = :principal and key = :key",
        {"tenant": scope.tenant, "principal": scope.principal, "key": key},
    )
    if not rows:
        return None
    execution_id, seq, digest = rows[0]
    if digest != body_digest:
        raise IdempotencyMismatch()
    return Admission(execution_id, seq)


def record(scope: Scope, key: str, execution_id: str, seq: int) -> Steps[None]:
    """Remember what a claimed key admitted."""
    yield (
        "update admissions set execution_id = :execution_id, seq = :seq"
        " where tenant = :tenant and principal = :principal and key = :key",
        {
            "tenant": scope.tenant,
            "principal": scope.principal,
            "key": key,
            "execution_id": execution_id,
            "seq": seq,
        },
    )
