"""Plain configuration values by name."""

from __future__ import annotations

from flux.store.database import Scope, Steps


def get(scope: Scope, name: str) -> Steps[str | None]:
    """A value, None when it is not set."""
    rows = yield (
        "select value from configs where tenant = :tenant and name = :name",
        {"tenant": scope.tenant, "name": name},
    )
    return rows[0][0] if rows else None


def put(scope: Scope, name: str, value: str) -> Steps[None]:
    """Set a value."""
    yield (
        "insert into configs (tenant, name, value, updated) values (:tenant, :name, :value, :now)"
        " on conflict (tenant, name) do update set value = excluded.value, updated = excluded.updated",
        {"tenant": scope.tenant, "name": name, "value": value},
    )


def remove(scope: Scope, name: str) -> Steps[bool]:
    """Forget a value; False when it was not set."""
    rows = yield (
        "delete from configs where tenant = :tenant and name = :name returning name",
        {"tenant": scope.tenant, "name": name},
    )
    return bool(rows)


def names(scope: Scope, after: str = "", limit: int = 50) -> Steps[list[str]]:
    """Names that are set, in order, behind `after`."""
    rows = yield (
        "select name from configs where tenant = :tenant and name > :after order by name limit :limit",
        {"tenant": scope.tenant, "after": after, "limit": limit},
    )
    return [row[0] for row in rows]
