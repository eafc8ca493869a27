"""Results of tasks by what they were called with."""

from __future__ import annotations

from typing import Any

import msgspec

from flux.store.database import Scope, Steps


def get(scope: Scope, key: str) -> Steps[Any]:
    """A kept value; None when there is none."""
    rows = yield (
        "select value from task_cache where tenant = :tenant and key = :key",
        {"tenant": scope.tenant, "key": key},
    )
    return msgspec.json.decode(rows[0][0]) if rows else None


def put(scope: Scope, key: str, value: Any) -> Steps[None]:
    """Keep a value, which is JSON; the first one stays."""
    yield (
        "insert into task_cache (tenant, key, value, created) values (:tenant, :key, :value, :now)"
        " on conflict do nothing",
        {"tenant": scope.tenant, "key": key, "value": msgspec.json.encode(value).decode()},
    )
