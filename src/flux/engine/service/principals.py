"""What may be done with principals, roles and API keys: the service behind the routes and the commands."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Sequence
from typing import TypeVar

from msgspec import Struct

from flux.engine.service.identity import Identities, digest_of
from flux.errors import Conflict, Forbidden, InvalidInput, NotFound, RoleNotFound
from flux.permissions import BUILT_IN, check_pattern
from flux.store import audit, principals
from flux.store.database import LOCAL, Database, Scope, Steps
from flux.store.principals import ApiKey, Principal, PrincipalKind, PrincipalState, Role

T = TypeVar("T")

SUBJECT = re.compile(r"[\w][\w.@|:+=~-]{0,254}")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
KEY_PREFIX = "flux_"
KEY_BYTES = 32
MOST_PATTERNS = 500
#: The principal of `flux server admin-key`.
FIRST_ADMIN = "admin"


class Known(Struct, frozen=True):
    """A principal with its roles."""

    principal: Principal
    roles: list[str]


class NewKey(Struct, frozen=True):
    """A key as it is told once."""

    key: ApiKey
    secret: str


class Principals:
    """Principals of a tenant. Nobody gives away what they may not do themselves."""

    def __init__(self, database: Database, identities: Identities) -> None:
        self._database = database
        self._identities = identities

    async def create(
        self, scope: Scope, subject: str, kind: PrincipalKind, roles: Sequence[str] = (), name: str | None = None
    ) -> Known:
        """A new principal.

        :raises InvalidInput, Conflict, RoleNotFound: it cannot be
        :raises Forbidden: a role may do what the caller may not
        """
        check_subject(subject)
        for role in roles:
            await self._may_give(scope, role)
        program = _create(scope, subject, kind, roles, name)
        return await self._changed(audit.noted(scope, program, "principal.create", subject, {"roles": list(roles)}))

    async def get(self, scope: Scope, subject: str) -> Known:
        """A principal.

        :raises PrincipalNotFound: there is none
        """
        return await self._database.read(_known(scope, subject))

    async def page(self, scope: Scope, kind: str | None, after: str, limit: int) -> list[Known]:
        """Principals by subject."""
        return await self._database.read(_page(scope, kind, after, limit))

    async def set_state(self, scope: Scope, subject: str, state: PrincipalState) -> Known:
        """Enable or disable a principal.

        :raises PrincipalNotFound: there is none
        :raises Forbidden: it may do what the caller may not
        """
        await self._may_touch(scope, subject)
        program = principals.set_state(scope, subject, state)
        await self._changed(audit.noted(scope, program, "principal.update", subject, {"state": state}))
        return await self.get(scope, subject)

    async def delete(self, scope: Scope, subject: str) -> None:
        """Remove a principal and its keys; what it made stays.

        :raises PrincipalNotFound: there is none
        :raises Forbidden: it may do what the caller may not
        """
        await self._may_touch(scope, subject)
        await self._changed(audit.noted(scope, principals.delete(scope, subject), "principal.delete", subject))

    async def grant(self, scope: Scope, subject: str, role: str) -> Known:
        """Give a role.

        :raises PrincipalNotFound, RoleNotFound: there is none
        :raises Forbidden: the role may do what the caller may not
        """
        await self._may_give(scope, role)
        program = principals.grant(scope, subject, role)
        await self._changed(audit.noted(scope, program, "principal.grant", subject, {"role": role}))
        return await self.get(scope, subject)

    async def revoke(self, scope: Scope, subject: str, role: str) -> Known:
        """Take a role away.

        :raises PrincipalNotFound, RoleNotFound: there is none
        :raises Forbidden: the principal may do what the caller may not
        """
        await self._may_touch(scope, subject)
        program = principals.revoke(scope, subject, role)
        if not await self._changed(audit.noted_if(scope, program, "principal.revoke", subject, {"role": role})):
            raise RoleNotFound(f"{subject} does not have the role {role[:80]!r}")
        return await self.get(scope, subject)

    async def create_key(self, scope: Scope, subject: str, name: str, seconds: float | None) -> NewKey:
        """A new API key, which is told this once.

        :raises InvalidInput, PrincipalNotFound, Conflict: it cannot be
        :raises Forbidden: the principal may do what the caller may not
        """
        _check_name("key", name)
        await self._may_touch(scope, subject)
        secret = KEY_PREFIX + secrets.token_urlsafe(KEY_BYTES)
        program = principals.create_key(scope, subject, name, digest_of(secret), seconds)
        key = await self._changed(audit.noted(scope, program, "key.create", subject, {"key": name}))
        return NewKey(key, secret)

    async def keys(self, scope: Scope, subject: str) -> list[ApiKey]:
        """The keys of a principal.

        :raises PrincipalNotFound: there is none
        """
        await self.get(scope, subject)
        return await self._database.read(principals.list_keys(scope, subject))

    async def revoke_key(self, scope: Scope, subject: str, name: str) -> None:
        """Make a key useless at once.

        :raises PrincipalNotFound, NotFound: there is none
        :raises Forbidden: the principal may do what the caller may not
        """
        await self._may_touch(scope, subject)
        program = principals.revoke_key(scope, subject, name)
        if not await self._changed(audit.noted_if(scope, program, "key.revoke", subject, {"key": name})):
            raise NotFound(f"{subject} has no key {name[:80]!r}; `flux principals list-keys` shows those it has")

    async def admin_key(self, name: str, tenant: str = LOCAL.tenant) -> NewKey:
        """A key of a tenant's first admin, who is made when missing. Whoever has the database may ask for it.

        :raises InvalidInput: there can be no such tenant
        :raises Conflict: there is a key of this name
        """
        _check_name("key", name)
        _check_name("tenant", tenant)
        secret, scope = KEY_PREFIX + secrets.token_urlsafe(KEY_BYTES), Scope(tenant, LOCAL.principal)
        program = audit.noted(
            scope, _admin_key(scope, name, digest_of(secret)), "key.create", FIRST_ADMIN, {"key": name}
        )
        return NewKey(await self._changed(program), secret)

    async def roles(self, scope: Scope) -> list[Role]:
        """Every role: the built-in ones first."""
        return [*map(_built_in, BUILT_IN), *await self._database.read(principals.list_roles(scope))]

    async def role(self, scope: Scope, name: str) -> Role:
        """A role.

        :raises RoleNotFound: there is none
        """
        if name in BUILT_IN:
            return _built_in(name)
        found = await self._database.read(principals.get_role(scope, name))
        if found is None:
            raise _no_role(name)
        return found

    async def create_role(self, scope: Scope, name: str, permissions: Iterable[str]) -> Role:
        """A new role.

        :raises InvalidInput, Conflict: it cannot be
        :raises Forbidden: it may do what the caller may not
        """
        _check_name("role", name)
        patterns = await self._checked(scope, permissions)
        made = None if name in BUILT_IN else await self._changed(_role(scope, name, patterns, create=True))
        if made is None:
            raise Conflict(f"there is a role {name!r} already; `flux roles update` changes it")
        return made

    async def update_role(self, scope: Scope, name: str, permissions: Iterable[str]) -> Role:
        """Change what a role may do, for everybody who has it.

        :raises InvalidInput, RoleNotFound: it cannot be
        :raises Conflict: it is built in
        :raises Forbidden: it may do, before or then, what the caller may not
        """
        _check_own(name)
        await self._may_give(scope, name)
        patterns = await self._checked(scope, permissions)
        made = await self._changed(_role(scope, name, patterns, create=False))
        if made is None:
            raise _no_role(name)
        return made

    async def delete_role(self, scope: Scope, name: str) -> None:
        """Remove a role, also from those who have it.

        :raises RoleNotFound: there is none
        :raises Conflict: it is built in
        :raises Forbidden: it may do what the caller may not
        """
        _check_own(name)
        await self._may_give(scope, name)
        program = principals.delete_role(scope, name)
        if not await self._changed(audit.noted_if(scope, program, "role.delete", name)):
            raise _no_role(name)

    async def _checked(self, scope: Scope, permissions: Iterable[str]) -> tuple[str, ...]:
        patterns = tuple(dict.fromkeys(map(check_pattern, permissions)))
        if not 0 < len(patterns) <= MOST_PATTERNS:
            raise InvalidInput(f"permissions: a role has 1 to {MOST_PATTERNS} of them")
        await self._may_have(scope, patterns, "a role")
        return patterns

    async def _may_give(self, scope: Scope, role: str) -> None:
        await self._may_have(scope, (await self.role(scope, role)).permissions, f"the role {role}")

    async def _may_touch(self, scope: Scope, subject: str) -> None:
        """Whoever makes keys of a principal, or takes its roles, has it in hand."""
        for role in (await self.get(scope, subject)).roles:
            await self._may_give(scope, role)

    async def _may_have(self, scope: Scope, patterns: Iterable[str], what: str) -> None:
        mine = await self._identities.permissions(scope)
        beyond = [one for one in patterns if not mine.allow(one)]
        if beyond:
            raise Forbidden(f"{what} may do what you may not: {', '.join(beyond[:5])}", missing=beyond)

    async def _changed(self, program: Steps[T]) -> T:
        done = await self._database.write(program)
        self._identities.changed()
        return done


def check_subject(subject: str) -> None:
    """:raises InvalidInput: it names no principal."""
    if not SUBJECT.fullmatch(subject) or subject == LOCAL.principal:
        raise InvalidInput(
            f"subject {subject[:80]!r}: a letter or digit, then letters, digits and . @ | : + = ~ _ -, 255 in all; "
            f"{LOCAL.principal!r} is the operator on this machine"
        )


def _check_name(what: str, name: str) -> None:
    if not NAME.fullmatch(name):
        raise InvalidInput(
            f"{what} {name[:80]!r}: a letter or digit, then letters, digits, '.', '_' and '-'; 64 characters at most"
        )


def _check_own(name: str) -> None:
    if name in BUILT_IN:
        raise Conflict(f"the role {name} is built in and stays as it is; `flux roles clone {name} NAME` makes another")


def _built_in(name: str) -> Role:
    return Role(name, BUILT_IN[name], 0.0, 0.0)


def _no_role(name: str) -> RoleNotFound:
    return RoleNotFound(f"there is no role {name[:80]!r}; `flux roles list` shows those that exist")


def _known(scope: Scope, subject: str) -> Steps[Known]:
    found = yield from principals.get(scope, subject)
    if found is None:
        raise principals.not_found(subject)
    return Known(found, (yield from principals.roles_of(scope, subject)))


def _page(scope: Scope, kind: str | None, after: str, limit: int) -> Steps[list[Known]]:
    known = []
    for one in (yield from principals.page(scope, kind, after, limit)):
        known.append(Known(one, (yield from principals.roles_of(scope, one.subject))))
    return known


def _create(
    scope: Scope, subject: str, kind: PrincipalKind, roles: Sequence[str], name: str | None = None
) -> Steps[Known]:
    yield from principals.create(scope, subject, kind, name)
    for role in roles:
        yield from principals.grant(scope, subject, role)
    return (yield from _known(scope, subject))


def _role(scope: Scope, name: str, patterns: tuple[str, ...], *, create: bool) -> Steps[Role | None]:
    program = principals.put_role(scope, name, patterns, create=create)
    about = {"permissions": list(patterns)}
    return audit.noted_if(scope, program, "role.create" if create else "role.update", name, about)


def _admin_key(scope: Scope, name: str, digest: str) -> Steps[ApiKey]:
    found = yield from principals.get(scope, FIRST_ADMIN)
    if found is None:
        yield from _create(scope, FIRST_ADMIN, "service_account", ["admin"])
    yield from principals.grant(scope, FIRST_ADMIN, "admin")
    yield from principals.set_state(scope, FIRST_ADMIN, "active")
    return (yield from principals.create_key(scope, FIRST_ADMIN, name, digest, None))
