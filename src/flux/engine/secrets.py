"""Secrets: set by people, given to the tasks that ask for them by name, kept sealed."""

from __future__ import annotations

import asyncio
import importlib
import os
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from flux.engine.configs import check_name
from flux.errors import SecretNotFound
from flux.store import secrets
from flux.store.database import Database, Scope, Steps

if TYPE_CHECKING:
    from flux.engine.sealing import Sealer

#: Shorter ones are not looked for in texts: too much would match.
MIN_REDACTED = 6
REDACTED = "***"


class Secrets:
    """The secrets of every tenant. The key is `key`, else that in the file secret.key of `home`."""

    def __init__(self, database: Database, home: Path, key: str | None = None) -> None:
        self._database = database
        self._file = home / "secret.key"
        self._key = key
        self._made: Sealer | None = None
        self._known: set[str] = set()

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
        sealed = await self._database.read(_all(scope, wanted))
        found: dict[str, str] = {}
        for name, text in sealed.items():
            if text is None:
                raise SecretNotFound(f"there is no secret {name!r}; `flux secrets set {name}` sets it")
            found[name] = (await self._sealer(name, create=False)).open(scope, name, text)
        self._known.update(value for value in found.values() if len(value) >= MIN_REDACTED)
        return found

    async def remove(self, scope: Scope, name: str) -> None:
        """Forget a secret.

        :raises SecretNotFound: it is not set
        """
        if not await self._database.write(secrets.remove(scope, name)):
            raise SecretNotFound(f"there is no secret {name!r}; `flux secrets list` shows those that are set")

    async def names(self, scope: Scope, after: str = "", limit: int = 50) -> list[str]:
        """Names of secrets in order, behind `after`."""
        return await self._database.read(secrets.names(scope, after, limit))

    def redact(self, text: str) -> str:
        """A text without the secrets that this process has given out: for logs, traces and errors."""
        for value in sorted(self._known, key=len, reverse=True):
            text = text.replace(value, REDACTED)
        return text

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
