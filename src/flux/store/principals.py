"""Who may call: principals, their roles, and their API keys, of which only a hash is kept."""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct

from flux.errors import Conflict, PrincipalNotFound
from flux.store.database import Scope, Steps

PrincipalKind = Literal["user", "service_account"]
PrincipalState = Literal["active", "disabled"]


class Principal(Struct, frozen=True):
    """A person, or an account of a program. Times in seconds since the epoch."""

    subject: str
    kind: PrincipalKind
    name: str | None
    state: PrincipalState
    created: float
    updated: float


class Role(Struct, frozen=True):
    """A role of a tenant's own: a name for permissions."""

    name: str
    permissions: tuple[str, ...]
    created: float
    updated: float


class ApiKey(Struct, frozen=True):
    """What is known of a key; `expires_at` None: never."""

    name: str
    by: str
    expires_at: float | None
    created: float


class KeyHolder(Struct, frozen=True):
    """Whose key it is."""

    scope: Scope
    kind: PrincipalKind
    state: PrincipalState
    expires_at: float | None


COLUMNS = ", ".join(Principal.__struct_fields__)
KEY_COLUMNS = ", ".join(ApiKey.__struct_fields__)


def create(scope: Scope, subject: str, kind: PrincipalKind, name: str | None = None) -> Steps[Principal]:
    """A new principal without roles.

    :raises Conflict: the subject is taken
    """
    rows = yield (
        f"insert into principals (tenant, {COLUMNS}) values (:tenant, :subject, :kind, cast(:name as text), 'active',"
        f" :now, :now) on conflict do nothing returning {COLUMNS}",
        {"tenant": scope.tenant, "subject": subject, "kind": kind, "name": name},
    )
    if not rows:
        raise Conflict(f"there is a principal {subject!r} already")
    return Principal(*rows[0])


def get(scope: Scope, subject: str) -> Steps[Principal | None]:
    """A principal."""
    rows = yield (
        f"select {COLUMNS} from principals where tenant = :tenant and subject = :subject",
        {"tenant": scope.tenant, "subject": subject},
    )
    return Principal(*rows[0]) if rows else None


def page(scope: Scope, kind: str | None = None, after: str = "", limit: int = 50) -> Steps[list[Principal]]:
    """Principals by subject, behind `after`."""
    rows = yield (
        f"select {COLUMNS} from principals where tenant = :tenant and subject > :after"
        " and (cast(:kind as text) is null or kind = :kind) order by subject limit :limit",
        {"tenant": scope.tenant, "after": after, "kind": kind, "limit": limit},
    )
    return [Principal(*row) for row in rows]


def set_state(scope: Scope, subject: str, state: PrincipalState) -> Steps[Principal]:
    """Let a principal in, or not.

    :raises PrincipalNotFound: there is none
    """
    rows = yield (
        "update principals set state = :state, updated = :now where tenant = :tenant and subject = :subject"
        f" returning {COLUMNS}",
        {"tenant": scope.tenant, "subject": subject, "state": state},
    )
    if not rows:
        raise not_found(subject)
    return Principal(*rows[0])


def delete(scope: Scope, subject: str) -> Steps[None]:
    """Remove a principal with its keys and grants; what it has started and made stays.

    :raises PrincipalNotFound: there is none
    """
    who = {"tenant": scope.tenant, "subject": subject}
    rows = yield "delete from principals where tenant = :tenant and subject = :subject returning subject", who
    if not rows:
        raise not_found(subject)
    for table in ("principal_roles", "api_keys"):
        yield f"delete from {table} where tenant = :tenant and subject = :subject", who


def grant(scope: Scope, subject: str, role: str) -> Steps[None]:
    """Give a principal a role; again changes nothing.

    :raises PrincipalNotFound: there is none
    """
    yield from _lock(scope, subject)
    yield (
        "insert into principal_roles (tenant, subject, role, by, at) values (:tenant, :subject, :role, :by, :now)"
        " on conflict do nothing",
        {"tenant": scope.tenant, "subject": subject, "role": role, "by": scope.principal},
    )


def revoke(scope: Scope, subject: str, role: str) -> Steps[bool]:
    """Take a role from a principal; False: it did not have it."""
    rows = yield (
        "delete from principal_roles where tenant = :tenant and subject = :subject and role = :role returning role",
        {"tenant": scope.tenant, "subject": subject, "role": role},
    )
    return bool(rows)


def roles_of(scope: Scope, subject: str) -> Steps[list[str]]:
    """The names of a principal's roles."""
    rows = yield (
        "select role from principal_roles where tenant = :tenant and subject = :subject order by role",
        {"tenant": scope.tenant, "subject": subject},
    )
    return [row[0] for row in rows]


def held(scope: Scope, subject: str) -> Steps[dict[str, tuple[str, ...] | None]]:
    """A principal's roles with what the tenant's own ones permit; None: built in, or gone."""
    rows = yield (
        "select h.role, r.permissions from principal_roles h"
        " left join roles r on r.tenant = h.tenant and r.name = h.role"
        " where h.tenant = :tenant and h.subject = :subject",
        {"tenant": scope.tenant, "subject": subject},
    )
    return {role: None if text is None else _permissions(text) for role, text in rows}


def put_role(scope: Scope, name: str, permissions: tuple[str, ...], *, create: bool) -> Steps[Role | None]:
    """Store a role; None: with `create` the name is taken, without there is none."""
    parameters = {
        "tenant": scope.tenant,
        "name": name,
        "permissions": msgspec.json.encode(permissions).decode(),
    }
    if create:
        statement = (
            "insert into roles (tenant, name, permissions, created, updated)"
            " values (:tenant, :name, :permissions, :now, :now) on conflict do nothing"
        )
    else:
        statement = (
            "update roles set permissions = :permissions, updated = :now where tenant = :tenant and name = :name"
        )
    rows = yield f"{statement} returning name, permissions, created, updated", parameters
    return _role(*rows[0]) if rows else None


def get_role(scope: Scope, name: str) -> Steps[Role | None]:
    """A role of the tenant's own."""
    rows = yield (
        "select name, permissions, created, updated from roles where tenant = :tenant and name = :name",
        {"tenant": scope.tenant, "name": name},
    )
    return _role(*rows[0]) if rows else None


def list_roles(scope: Scope) -> Steps[list[Role]]:
    """The tenant's own roles by name."""
    rows = yield (
        "select name, permissions, created, updated from roles where tenant = :tenant order by name",
        {"tenant": scope.tenant},
    )
    return [_role(*row) for row in rows]


def delete_role(scope: Scope, name: str) -> Steps[bool]:
    """Remove a role, also from those who have it; False: there is none."""
    which = {"tenant": scope.tenant, "name": name}
    rows = yield "delete from roles where tenant = :tenant and name = :name returning name", which
    yield "delete from principal_roles where tenant = :tenant and role = :name", which
    return bool(rows)


def create_key(scope: Scope, subject: str, name: str, digest: str, seconds: float | None) -> Steps[ApiKey]:
    """Keep the hash of a new key, which lasts for so many seconds; None: for good.

    :raises PrincipalNotFound: there is no such principal
    :raises Conflict: it has a key of this name
    """
    yield from _lock(scope, subject)
    rows = yield (
        f"insert into api_keys (digest, tenant, subject, {KEY_COLUMNS}) values (:digest, :tenant, :subject, :name,"
        f" :by, :now + cast(:seconds as double precision), :now) on conflict do nothing returning {KEY_COLUMNS}",
        {
            "tenant": scope.tenant,
            "subject": subject,
            "name": name,
            "digest": digest,
            "by": scope.principal,
            "seconds": seconds,
        },
    )
    if not rows:
        raise Conflict(f"{subject} has a key {name!r} already; give another --name, or revoke that one")
    return ApiKey(*rows[0])


def list_keys(scope: Scope, subject: str) -> Steps[list[ApiKey]]:
    """The keys of a principal by name."""
    rows = yield (
        f"select {KEY_COLUMNS} from api_keys where tenant = :tenant and subject = :subject order by name",
        {"tenant": scope.tenant, "subject": subject},
    )
    return [ApiKey(*row) for row in rows]


def revoke_key(scope: Scope, subject: str, name: str) -> Steps[bool]:
    """Forget a key; False: there is none."""
    rows = yield (
        "delete from api_keys where tenant = :tenant and subject = :subject and name = :name returning name",
        {"tenant": scope.tenant, "subject": subject, "name": name},
    )
    return bool(rows)


def holder(digest: str) -> Steps[KeyHolder | None]:
    """Who has the key of this hash; one that has expired is nobody's."""
    rows = yield (
        "select p.tenant, p.subject, p.kind, p.state, k.expires_at from api_keys k"
        " join principals p on p.tenant = k.tenant and p.subject = k.subject"
        " where k.digest = :digest and (k.expires_at is null or k.expires_at > :now)",
        {"digest": digest},
    )
    if not rows:
        return None
    tenant, subject, kind, state, expires_at = rows[0]
    return KeyHolder(Scope(tenant, subject), kind, state, expires_at)


def not_found(subject: str) -> PrincipalNotFound:
    """The error for a principal that is not there."""
    return PrincipalNotFound(f"there is no principal {subject[:80]!r}; `flux principals list` shows those that exist")


def _lock(scope: Scope, subject: str) -> Steps[None]:
    """Hold a principal that is being given something: it cannot be deleted meanwhile."""
    rows = yield (
        "update principals set updated = updated where tenant = :tenant and subject = :subject returning subject",
        {"tenant": scope.tenant, "subject": subject},
    )
    if not rows:
        raise not_found(subject)


def _role(name: str, permissions: str, created: float, updated: float) -> Role:
    return Role(name, _permissions(permissions), created, updated)


_permissions = msgspec.json.Decoder(tuple[str, ...]).decode
