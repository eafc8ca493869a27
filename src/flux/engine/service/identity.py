"""Who a principal is and what it may do, as every process knows it: from the database, and a moment old at most."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from msgspec import Struct

from flux.engine.dispatching.upkeep import survive
from flux.errors import Conflict, Forbidden
from flux.permissions import BUILT_IN, EVERYTHING, NOTHING, Permissions, quoted
from flux.store import principals
from flux.store.database import LOCAL, OWN, Database, Scope, Steps

T = TypeVar("T")

#: Talking to an agent, besides the permission for that one.
TALK = "workflow:agents:agent_chat:run"
#: A key that is revoked, or a role that is taken away, by another process may be used for so long. Seconds.
FRESH_SECONDS = 1.0
#: Seconds between two looks at whether a caller who reads a stream may still do so.
LOOK_SECONDS = 2.0
MOST_KNOWN = 10_000


class Caller(Struct, frozen=True):
    """Somebody who may call. `expires_at` in seconds since the epoch; None: the credential does not expire."""

    scope: Scope
    kind: str
    roles: tuple[str, ...]
    permissions: Permissions
    expires_at: float | None = None


#: Who has the database's file, or calls a server without auth.
OPERATOR = Caller(LOCAL, "user", ("admin",), EVERYTHING)


class Identities:
    """Finds callers. With `enabled` False everybody may do everything: there is one operator."""

    def __init__(self, database: Database, *, enabled: bool, default_roles: tuple[str, ...] = ()) -> None:
        self.enabled = enabled
        self._database = database
        self._default_roles = default_roles
        self._known: dict[str | tuple[str, ...], tuple[float, Caller | None]] = {}
        self._changed = asyncio.Event()
        self._looking: set[asyncio.Future[Any]] = set()

    async def by_key(self, key: str) -> Caller | None:
        """Who calls with an API key; None: nobody who may."""
        digest = digest_of(key)
        if (known := self._fresh(digest)) is not None:
            return known[1]
        return await self._cached(digest, lambda: self._database.read(_of_key(digest)), keep_none=False)

    async def of(self, scope: Scope) -> Caller | None:
        """A principal that is named by a token, or for whom something runs; None: it may not do anything."""
        if scope.principal == LOCAL.principal:
            return OPERATOR
        return await self._cached(
            (scope.tenant, scope.principal), lambda: self._database.read(_of_scope(scope)), keep_none=True
        )

    async def by_name(self, scope: Scope) -> Caller | None:
        """Who is named by an identity provider; None: nobody who may call.

        Somebody who is new here becomes a principal if new people have roles, else may do nothing.
        """
        who = scope._replace(reach=OWN)
        found = await self._cached(
            ("", who.tenant, who.principal), lambda: self._database.read(_of_name(who)), keep_none=True
        )
        if found is None or found.kind != "unknown" or not self._default_roles:
            return found
        await self._database.write(_welcome(who, self._default_roles))
        self.changed()
        return await self._database.read(_of_name(who))

    async def permissions(self, scope: Scope) -> Permissions:
        """What a principal may do now."""
        if not self.enabled:
            return EVERYTHING
        found = await self.of(scope)
        return found.permissions if found else NOTHING

    def glance(self, scope: Scope) -> Permissions | None:
        """What a principal may do as far as it is known here; it is looked at again meanwhile. None: not known."""
        if not self.enabled or scope.principal == LOCAL.principal:
            return EVERYTHING
        known = self._known.get((scope.tenant, scope.principal))
        if (known is None or known[0] < time.monotonic()) and not self._looking:
            self._looking.add(task := asyncio.ensure_future(survive("a principal is not looked at", self.of(scope))))
            task.add_done_callback(self._looking.discard)
        if known is None:
            return None
        return known[1].permissions if known[1] else NOTHING

    async def require(self, scope: Scope, *needed: str) -> None:
        """Refuse what a principal may not do.

        :raises Forbidden: a permission is missing
        """
        check_allowed(await self.permissions(scope), needed)

    def changed(self) -> None:
        """Forget what is known: somebody has changed it here."""
        self._known.clear()
        self._changed.set()
        self._changed = asyncio.Event()

    async def lost(self, caller: Caller, again: Callable[[], Awaitable[Caller | None]]) -> None:
        """Return when a caller who stays on the line may no longer do what it could when it called."""
        while True:
            left = LOOK_SECONDS if caller.expires_at is None else caller.expires_at - time.time()
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, min(left, LOOK_SECONDS))):
                    await self._changed.wait()
            if _expired(caller) or await again() != caller:
                return

    def _fresh(self, key: str | tuple[str, ...]) -> tuple[float, Caller | None] | None:
        known = self._known.get(key)
        return known if known is not None and time.monotonic() < known[0] and not _expired(known[1]) else None

    async def _cached(
        self, key: str | tuple[str, ...], find: Callable[[], Awaitable[Caller | None]], *, keep_none: bool
    ) -> Caller | None:
        if (known := self._fresh(key)) is not None:
            return known[1]
        until = time.monotonic() + FRESH_SECONDS
        found = await find()
        if found is not None or keep_none:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            self._known[key] = (until, found)
        return found


def digest_of(key: str) -> str:
    """What is kept of an API key. It is random and long, so a plain hash cannot be turned back."""
    return hashlib.sha256(key.encode()).hexdigest()


def check_allowed(permissions: Permissions, needed: Iterable[str]) -> None:
    """Refuse when one is missing.

    :raises Forbidden: it names what is missing
    """
    missing = [one for one in needed if not permissions.allow(one)]
    if missing:
        raise Forbidden(f"this needs the permission {' and '.join(missing)}", missing=missing)


def to_start(*, workflow: str | None = None, agent: str | None = None) -> list[str]:
    """What it takes to start a workflow ("namespace/name"), or a session of an agent."""
    if agent is not None:
        return [TALK, f"agent:{quoted(agent)}:start"]
    return [f"workflow:{':'.join(map(quoted, (workflow or '').split('/', 1)))}:run"]


def _expired(caller: Caller | None) -> bool:
    return caller is not None and caller.expires_at is not None and caller.expires_at <= time.time()


def _of_key(digest: str) -> Steps[Caller | None]:
    found = yield from principals.holder(digest)
    if found is None or found.state != "active":
        return None
    held = yield from principals.held(found.scope, found.scope.principal)
    return Caller(found.scope, found.kind, tuple(sorted(held)), _permissions(held), found.expires_at)


def _of_scope(scope: Scope) -> Steps[Caller | None]:
    found = yield from principals.get(scope, scope.principal)
    if found is None or found.state != "active":
        return None
    held = yield from principals.held(scope, scope.principal)
    return Caller(scope._replace(reach=OWN), found.kind, tuple(sorted(held)), _permissions(held))


def _of_name(scope: Scope) -> Steps[Caller | None]:
    if (yield from principals.get(scope, scope.principal)) is None:
        return Caller(scope, "unknown", (), NOTHING)
    found = yield from _of_scope(scope)
    # An account of a program calls with keys: a provider at which people choose their names must not give it away.
    return found if found is not None and found.kind == "user" else None


def _welcome(scope: Scope, roles: tuple[str, ...]) -> Steps[None]:
    try:
        yield from principals.create(scope, scope.principal, "user")
    except Conflict:  # meanwhile
        return
    for role in roles:
        yield from principals.grant(scope, scope.principal, role)


def _permissions(held: Mapping[str, tuple[str, ...] | None]) -> Permissions:
    return Permissions(one for role, own in held.items() for one in BUILT_IN.get(role, own or ()))
