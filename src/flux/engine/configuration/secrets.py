"""Secrets: set by people, given to the tasks that ask for them by name, kept sealed."""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import json
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from flux.engine.configuration.configs import check_name
from flux.engine.configuration.key_source import KeySource
from flux.errors import FluxError, SecretNotFound, SecretUnreadable
from flux.redaction import Known
from flux.store import audit, secrets
from flux.store.database import Database, Scope, Steps

if TYPE_CHECKING:
    from flux.engine.configuration.sealing import Sealer

#: Before the names of what is kept for a person; no secret that a person sets can have such a name.
KEPT = "~"
NOWHERE = "~sealed"
#: Seconds for which one note says that a secret was used.
NOTE_SECONDS = 3_600.0
#: What is secret of a login.
TOKENS = frozenset(
    {"access_token", "refresh_token", "id_token", "client_secret", "registration_access_token", "verifier"}
)


class Rotated(Struct, frozen=True):
    """What a rotation did: the id of the key now in use, how much is sealed with it, and what was forgotten."""

    key: str
    resealed: int
    forgotten: tuple[str, ...] = ()


class Secrets:
    """The secrets of every tenant, sealed with the keys of one source."""

    def __init__(self, database: Database, source: KeySource, known: Known | None = None) -> None:
        self._database = database
        self._source = source
        self._made: Sealer | None = None
        self._of: Any = None
        self._noted: dict[tuple[str, str, str], float] = {}
        self.known = known or Known()

    async def set(self, scope: Scope, name: str, value: str) -> None:
        """Set a secret; the first one makes the key.

        :raises InvalidInput: the name cannot be used
        :raises Unavailable: the key cannot be used
        :raises SecretUnreadable: it is not the one that other secrets were encrypted with
        """
        check_name("secret", name)
        sealer = await self._sealer(name, create=True)
        program = secrets.put(scope, name, sealer.seal(scope, name, value))
        await self._database.write(audit.noted(scope, program, "secret.set", name))

    async def shown(self, scope: Scope, name: str) -> str:
        """A secret, for a person to see: each time is noted.

        :raises SecretNotFound: it is not set
        :raises SecretUnreadable: it was encrypted with another key
        """
        found = await self._found(scope, [name])
        await self._database.write(audit.record(scope, "secret.read", name))
        return found[name]

    async def get(self, scope: Scope, name: str) -> str:
        """A secret.

        :raises SecretNotFound: it is not set
        :raises SecretUnreadable: it was encrypted with another key
        """
        return (await self.requested(scope, [name]))[name]

    async def requested(self, scope: Scope, names: Iterable[str]) -> dict[str, str]:
        """The secrets of these names.

        :raises SecretNotFound: one is not set
        :raises SecretUnreadable: one was encrypted with another key
        """
        wanted = list(names)
        if not wanted:
            return {}
        found = await self._found(scope, wanted)
        await self._note_use(scope, wanted)
        return found

    async def _found(self, scope: Scope, wanted: list[str]) -> dict[str, str]:
        if any(name.startswith(KEPT) for name in wanted):
            raise SecretNotFound(f"names that begin with {KEPT} are no names of secrets")
        return await self._opened(scope, wanted)

    async def _note_use(self, scope: Scope, names: list[str]) -> None:
        """Note what runs were given in somebody's name: once an hour, as a connection asks with every request."""
        now = time.monotonic()
        for name in names:
            place = (scope.tenant, scope.principal, name)
            if now - self._noted.get(place, -NOTE_SECONDS) < NOTE_SECONDS:
                continue
            self._noted[place] = now
            await self._database.write(audit.record(scope, "secret.use", name))

    async def _opened(self, scope: Scope, wanted: list[str]) -> dict[str, str]:
        sealed = await self._database.read(_all(scope, wanted))
        found: dict[str, str] = {}
        for name, text in sealed.items():
            if text is None:
                raise SecretNotFound(f"there is no secret {name!r}; `flux secrets set {name}` sets it")
            found[name] = (await self._sealer(name, create=False)).open(scope, name, text)
        for name, value in found.items():
            self.known.add(*(_tokens(value) if name.startswith(KEPT) else (value,)))
        return found

    async def remove(self, scope: Scope, name: str) -> None:
        """Forget a secret.

        :raises SecretNotFound: it is not set
        """
        if name.startswith(KEPT) or not await self._database.write(
            audit.noted_if(scope, secrets.remove(scope, name), "secret.remove", name)
        ):
            raise SecretNotFound(f"there is no secret {name!r}; `flux secrets list` shows those that are set")

    async def names(self, scope: Scope, after: str = "", limit: int = 50) -> list[str]:
        """Names of secrets in order, behind `after`."""
        return await self._database.read(secrets.names(scope, after, limit))

    async def keep(self, scope: Scope, name: str, value: str) -> None:
        """Keep something of ours for a person, such as a token: nobody else reads it, and no list shows it."""
        own = _own(scope, name)
        sealer = await self._sealer(own, create=True)
        await self._database.write(secrets.put(scope, own, sealer.seal(scope, own, value)))

    async def kept(self, scope: Scope, name: str) -> str | None:
        """What was kept for a person, None when nothing was.

        :raises SecretUnreadable: it was encrypted with another key
        """
        try:
            return (await self._opened(scope, [_own(scope, name)])).popitem()[1]
        except SecretNotFound:
            return None

    async def unkeep(self, scope: Scope, name: str) -> bool:
        """Keep it no longer; False when it was not kept."""
        return await self._database.write(secrets.remove(scope, _own(scope, name)))

    async def seal(self, text: str) -> str:
        """A text that only `unseal` reads, in any process that has the key."""
        return (await self._sealer(NOWHERE, create=True)).seal(Scope(NOWHERE, NOWHERE), NOWHERE, text)

    async def unseal(self, sealed: str) -> str | None:
        """What was sealed; None when this was not sealed with our key."""
        try:
            return (await self._sealer(NOWHERE, create=True)).open(Scope(NOWHERE, NOWHERE), NOWHERE, sealed)
        except (SecretUnreadable, ValueError):
            return None

    async def rotate(self, scope: Scope, *, forget_unreadable: bool = False) -> Rotated:
        """Seal everything anew, with a fresh key where Flux keeps the key itself, else with the first of those given.

        Whoever has read the keys before reads them again. The key before stays in the file for those who have not yet.

        :raises SecretUnreadable: one cannot be opened, and is not to be forgotten; nothing was changed
        :raises InvalidInput: the source holds no new key
        """
        used: set[str] = await self._database.read(secrets.keys())
        if self._source.state() is None and used and not forget_unreadable:
            raise unreadable_here("", self._source.origin)
        before = await asyncio.to_thread(self._source.add_key)
        try:
            sealer = await self._load()
            done = await self._database.write(_resealed(scope, sealer, forget_unreadable))
        except FluxError:
            await asyncio.to_thread(self._source.put_back, before)
            raise
        self._made, self._of = sealer, self._source.state()
        return done

    async def _sealer(self, name: str, *, create: bool) -> Sealer:
        """What seals and opens. It is made again when its source has changed.

        :raises SecretUnreadable: there is no key here for what is sealed already, so that nothing must be sealed
        """
        if self._made is None or self._source.state() != self._of:
            used = await self._database.read(secrets.keys())
            state = self._source.state()
            if state is None and (used or not create):
                raise unreadable_here(name, self._source.origin)
            made = await self._load()
            if create and used and not any(made.knows(id) for id in used):
                raise unreadable_here(name, self._source.origin)
            self._made, self._of = made, self._source.state()
        return self._made

    async def _load(self) -> Sealer:
        def load() -> Sealer:
            sealing = importlib.import_module(
                "flux.engine.configuration.sealing"
            )  # costs what most processes never use
            sealer: Sealer = sealing.Sealer(self._source.keys(), self._source.origin)
            return sealer

        return await asyncio.to_thread(load)


def unreadable_here(name: str, origin: str) -> SecretUnreadable:
    """The error of secrets whose key is not the one that is here."""
    about = f"the secret {name!r} cannot be used: " if name and not name.startswith(KEPT) else ""
    return SecretUnreadable(
        f"{about}what is kept was encrypted with another key than that of {origin}, and nothing was changed; "
        "bring its file or FLUX_SECRET_KEY back, or forget what nobody can read: "
        "`flux secrets rotate-key --forget-unreadable`"
    )


def _resealed(by: Scope, sealer: Sealer, forget: bool) -> Steps[Rotated]:
    count, forgotten = 0, list[str]()
    for tenant, name, sealed in (yield from secrets.every()):
        scope = Scope(tenant, by.principal)
        try:
            value = sealer.open(scope, name, sealed)
        except SecretUnreadable:
            if not forget:
                raise
            yield from secrets.remove(scope, name)
            forgotten += [] if name.startswith(KEPT) else [name]
        else:
            yield from secrets.put(scope, name, sealer.seal(scope, name, value))
            count += 1
    yield from audit.record(by, "secret.rotate", sealer.id, {"resealed": count, "forgotten": forgotten})
    return Rotated(sealer.id, count, tuple(forgotten))


def _tokens(kept: str) -> Iterable[str]:
    """What is secret of something kept, which is JSON with addresses and names in it too."""
    try:
        found = json.loads(kept)
    except ValueError:
        return [kept]
    return _leaves(found)


def _leaves(found: Any) -> Iterable[str]:
    for name, value in found.items() if isinstance(found, dict) else ():
        if name in TOKENS and isinstance(value, str):
            yield value
        yield from _leaves(value)


def _own(scope: Scope, name: str) -> str:
    return f"{KEPT}{hashlib.sha256(scope.principal.encode()).hexdigest()[:16]}.{name}"


def _all(scope: Scope, names: list[str]) -> Steps[dict[str, str | None]]:
    found = {}
    for name in names:
        found[name] = yield from secrets.get(scope, name)
    return found
