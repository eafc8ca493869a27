"""Idempotency keys: what was admitted under which key."""

from __future__ import annotations

from msgspec import Struct

from flux.errors import IdempotencyMismatch
from flux.store.database import Scope, Steps


class Admission(Struct, frozen=True):
    """What a key admitted."""

    execution_id: str
    seq: int


def find(scope: Scope, key: str, body_digest: str) -> Steps[Admission | None]:
    """What this key admitted before.

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


def record(scope: Scope, key: str, body_digest: str, execution_id: str, seq: int) -> Steps[bool]:
    """Remember a key; False when another request was faster."""
    rows = yield (
        "insert into admissions (tenant, principal, key, body_digest, execution_id, seq, at)"
        " values (:tenant, :principal, :key, :digest, :execution_id, :seq, :now)"
        " on conflict do nothing returning seq",
        {
            "tenant": scope.tenant,
            "principal": scope.principal,
            "key": key,
            "digest": body_digest,
            "execution_id": execution_id,
            "seq": seq,
        },
    )
    return bool(rows)
