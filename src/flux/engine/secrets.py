"""Secrets: set by people, given to the tasks that ask for them by name, kept sealed."""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import json
import os
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flux.engine.configs import check_name
from flux.errors import SecretNotFound, SecretUnreadable
from flux.redaction import Known
from flux.store import secrets
from flux.store.database import Database, Scope, Steps

if TYPE_CHECKING:
    from flux.engine.sealing import Sealer

#: Before the names of what is kept for a person; no secret that a person sets can have such a name.
KEPT = "~"
NOWHERE = "~sealed"
#: What is secret of a login.
TOKENS = frozenset(
    {"access_token", "refresh_token", "id_token", "client_secret", "registration_access_token", "verifier"}
)


class Secrets:
    """The secrets of every tenant. The key is `key`, else that in the file secret.key of `home`."""

    def __init__(self, database: Database, home: Path, key: str | None = None, known: Known | None = None) -> None:
        self._database = database
        self._file = home / "secret.key"
        self._key = key
        self._made: Sealer | None = None
        self.known = known or Known()

    async def set(self, scope: Scope, name: str, value: str) -> None:
        """Set a secret; the first one makes the key.

        :raises InvalidInput: the name cannot be used
        :raises Unavailable: FLUX_SECRET_KEY is no key
        """
        check_name("secret", name)
        sealer = await self._sealer(name, create=True)
        await self._database.write(secrets.put(scope, name, sealer.seal(scope, name, value)))

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
        if any(name.startswith(KEPT) for name in wanted):
            raise SecretNotFound(f"names that begin with {KEPT} are no names of secrets")
        return await self._opened(scope, wanted)

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
        if name.startswith(KEPT) or not await self._database.write(secrets.remove(scope, name)):
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
        sealer = await self._sealer(NOWHERE, create=True)
        try:
            return sealer.open(Scope(NOWHERE, NOWHERE), NOWHERE, sealed)
        except (SecretUnreadable, ValueError):
            return None

    async def _sealer(self, name: str, *, create: bool) -> Sealer:
        if self._made is None:
            self._made = await asyncio.to_thread(self._load, name, create)
        return self._made

    def _load(self, name: str, create: bool) -> Sealer:
        sealing = importlib.import_module("flux.engine.sealing")  # costs what most processes never use
        if self._key:
            sealer: Sealer = sealing.Sealer(self._key, "FLUX_SECRET_KEY")
            return sealer
        if create and not self._file.exists():
            _create(self._file, sealing.new_key())
        try:
            sealer = sealing.Sealer(self._file.read_text(), str(self._file))
        except FileNotFoundError as error:
            raise sealing.unreadable(name, f"with a key that is not here: there is no {self._file}") from error
        return sealer


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


def _create(path: Path, key: str) -> None:
    """Write a key that is whole before it has its name; where another process is faster, its key stays."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    half = path.with_name(f".{uuid.uuid4().hex}")
    try:
        with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"{key}\n")
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(half, path)
    finally:
        half.unlink(missing_ok=True)
