"""Secrets by name, sealed: who reads the database reads none of them."""

from __future__ import annotations

from flux.store.database import Scope, Steps


def get(scope: Scope, name: str) -> Steps[str | None]:
    """A sealed secret, None when it is not set."""
    rows = yield (
        "select sealed from secrets where tenant = :tenant and name = :name",
        {"tenant": scope.tenant, "name": name},
    )
    return rows[0][0] if rows else None


def put(scope: Scope, name: str, sealed: str) -> Steps[None]:
    """Set a secret."""
    yield (
        "insert into secrets (tenant, name, sealed, updated) values (:tenant, :name, :sealed, :now)"
        " on conflict (tenant, name) do update set sealed = excluded.sealed, updated = excluded.updated",
        {"tenant": scope.tenant, "name": name, "sealed": sealed},
    )


def remove(scope: Scope, name: str) -> Steps[bool]:
    """Forget a secret; False when it was not set."""
    rows = yield (
        "delete from secrets where tenant = :tenant and name = :name returning name",
        {"tenant": scope.tenant, "name": name},
    )
    return bool(rows)


def names(scope: Scope, after: str = "", limit: int = 50) -> Steps[list[str]]:
    """Names that people set, in order, behind `after`."""
    rows = yield (
        "select name from secrets where tenant = :tenant and name > :after and name not like '~%'"
        " order by name limit :limit",
        {"tenant": scope.tenant, "after": after, "limit": limit},
    )
    return [row[0] for row in rows]


def keys() -> Steps[set[str]]:
    """The ids of the keys that secrets are sealed with, whoever they belong to."""
    rows = yield "select distinct substr(sealed, 3, 8) from secrets", {}
    return {row[0] for row in rows}


def every() -> Steps[list[tuple[str, str, str]]]:
    """Tenant, name and sealed form of every secret."""
    rows = yield "select tenant, name, sealed from secrets order by tenant, name", {}
    return [(row[0], row[1], row[2]) for row in rows]
