"""The long-term memories that the agents of a process use: which database, opened once, closed at the end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from flux.agents.define.definition import AgentDefinition, define
from flux.agents.define.memory import BY_NAME, FIELD, HIDDEN, POSTGRES, LongTermMemory, with_subagents
from flux.agents.memory.store import DatabaseMemories, MemoryStore, ProcessMemories
from flux.engine.workflows.services import Lookup
from flux.errors import (
    DatabaseLocked,
    DatabaseTooNew,
    DatabaseUnavailable,
    DefinitionInvalid,
    MissingPackage,
    Unavailable,
)
from flux.redaction import Known, passwords_of
from flux.settings import Settings
from flux.store import agents
from flux.store.database import Database, Scope
from flux.store.opening import found_schema, open_database, require_postgres
from flux.store.schema import MEMORIES

#: Connections to each Postgres of memories, and where their pool says that one was lost.
CONNECTIONS = 4
POOL_LOGGER = "psycopg.pool"


class MemoryStores:
    """The memories of a process; `database` is Flux's own, `secrets` finds secrets by their names."""

    def __init__(self, database: Database, secrets: Lookup, settings: Settings, known: Known | None = None) -> None:
        self._known = known or Known()
        self._database = database
        self._secrets = secrets
        self._settings = settings
        self._folder = settings.home / "memories"
        self._own = DatabaseMemories(database)
        self._passing = ProcessMemories(time.time)
        self._opened: dict[str, DatabaseMemories] = {}
        self._closing = AsyncExitStack()
        self._opening: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    @property
    def own(self) -> MemoryStore:
        """The memories in Flux's own database."""
        return self._own

    async def of(self, scope: Scope, chosen: LongTermMemory) -> MemoryStore:
        """The memories that an agent of this tenant uses.

        :raises SecretNotFound, SecretUnreadable: its connection is in a secret that cannot be read
        :raises Unavailable: its database cannot be used now; nothing of the connection is said
        """
        if chosen.provider == "in_memory":
            return self._passing
        connection = chosen.connection
        if connection is None:
            return self._own
        if connection.startswith(BY_NAME):
            chosen = await self._from_secret(scope, chosen, connection.removeprefix(BY_NAME))
        url = self._url(chosen)
        if url == self._database.url:
            return self._own
        self._known.add(*passwords_of(url))
        async with self._opening[url]:
            if url not in self._opened:
                self._opened[url] = await self._open(url, _hiding(url, chosen.connection or ""))
            return self._opened[url]

    async def prepared(self, scope: Scope, definition: AgentDefinition) -> AgentDefinition:
        """A definition as it is to be stored: with the connection that was hidden from its writer.

        :raises DefinitionInvalid: its memory cannot be used here
        """
        fields = definition.model_dump(exclude_unset=True)
        if any(_is_hidden(one) for one in with_subagents(fields)):
            found = await self._database.read(agents.get(scope, definition.name))
            _fill(fields, AgentDefinition.from_json(found.definition).model_dump() if found else {})
            definition = define(fields)
        for one in with_subagents(fields):
            if one.get(FIELD) is not None:
                self.check(LongTermMemory.model_validate(one[FIELD]))
        return definition

    def check(self, chosen: LongTermMemory) -> None:
        """Everything that can be known before the memory is first used.

        :raises DefinitionInvalid: it cannot be used here
        """
        if chosen.provider == "postgresql":
            try:
                require_postgres()
            except MissingPackage as error:
                raise DefinitionInvalid(f"{FIELD}: {error}") from error
        if chosen.connection is None:
            self._check_own(chosen)
        elif not chosen.connection.startswith(BY_NAME):
            self._url(chosen)

    async def close(self) -> None:
        """Close every database that was opened."""
        self._opened.clear()
        await self._closing.aclose()

    def _check_own(self, chosen: LongTermMemory) -> None:
        mine = "sqlite" if self._database.url.startswith("sqlite:") else "postgresql"
        if chosen.provider not in (None, "in_memory", mine):
            raise DefinitionInvalid(
                f"{FIELD}: the provider {chosen.provider} needs a connection here, as Flux's own database is of "
                f"another kind; without provider and connection the memories are kept in that"
            )

    async def _from_secret(self, scope: Scope, chosen: LongTermMemory, name: str) -> LongTermMemory:
        value = (await self._secrets(scope, [name]))[name]
        try:
            if value.startswith(BY_NAME):
                raise ValueError
            return LongTermMemory(provider=chosen.provider, connection=value.strip())
        except ValueError:
            raise Unavailable(
                f"{FIELD}: the secret {name!r} is no connection of the provider {chosen.provider}"
            ) from None

    def _url(self, chosen: LongTermMemory) -> str:
        """The URL of its database; a relative file must not lead out of its folder.

        :raises DefinitionInvalid: it does
        """
        connection = chosen.connection or ""
        if connection.startswith(POSTGRES):
            return connection
        path = Path(connection.removeprefix("sqlite:///")).expanduser()
        whole = (self._folder / path).resolve()
        if not path.is_absolute() and not whole.is_relative_to(self._folder.resolve()):
            raise DefinitionInvalid(f"{FIELD}: connection: this file is not in {self._folder}")
        if whole.exists() and not whole.is_file():
            raise DefinitionInvalid(f"{FIELD}: connection: this is a directory or device; name a file")
        return f"sqlite:///{whole}"

    async def _open(self, url: str, hide: Callable[[str], str]) -> DatabaseMemories:
        postgres = url.startswith(POSTGRES)
        try:
            if postgres:
                await found_schema(url)  # fails at once, where a pool would go on trying
            database = await open_database(
                url, synchronous=self._settings.synchronous, schema=MEMORIES, connections=CONNECTIONS
            )
        except (DatabaseUnavailable, DatabaseLocked, DatabaseTooNew) as error:
            raise Unavailable(hide(f"{FIELD}: {error}")) from None
        if postgres:
            quiet = _Hiding(hide)
            logging.getLogger(POOL_LOGGER).addFilter(quiet)
            self._closing.callback(logging.getLogger(POOL_LOGGER).removeFilter, quiet)
        self._closing.push_async_callback(database.close)
        return DatabaseMemories(database, hide)


class _Hiding(logging.Filter):
    """Takes out of what is logged what nobody may read."""

    def __init__(self, hide: Callable[[str], str]) -> None:
        super().__init__()
        self._hide = hide

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record, and let it pass."""
        record.msg, record.args = self._hide(record.getMessage()), ()
        return True


def _is_hidden(fields: dict[str, Any]) -> bool:
    chosen = fields.get(FIELD)
    return chosen is not None and chosen.get("connection") == HIDDEN


def _fill(fields: dict[str, Any], before: dict[str, Any]) -> None:
    """Put the stored connections in the place of hidden ones.

    :raises DefinitionInvalid: there is none
    """
    if _is_hidden(fields):
        stored = (before.get(FIELD) or {}).get("connection")
        if stored is None:
            raise DefinitionInvalid(f"{FIELD}.connection: {HIDDEN} stands for a hidden one, but none is stored")
        fields[FIELD]["connection"] = stored
    known = {one["name"]: one for one in before.get("subagents", ())}
    for one in fields.get("subagents", ()):
        _fill(one, known.get(one["name"], {}))


def _hiding(url: str, connection: str) -> Callable[[str], str]:
    """A function that takes every part of a connection out of a text."""
    parts = {url, connection}
    if url.startswith(POSTGRES):
        split = urlsplit(url)
        place = split.netloc.rpartition("@")
        parts |= {split.netloc, place[2], split.query, *map(unquote, place[0].split(":"))}
        parts |= {split.hostname or "", split.path.strip("/"), unquote(split.path.strip("/"))}
        parts |= {url.replace(place[0], place[0].partition(":")[0], 1)}  # as it is shown without its password
    else:
        path = url.removeprefix("sqlite:///")
        parts |= {path, Path(path).name}
    known = sorted((part for part in parts if len(part) > 2), key=len, reverse=True)

    def hide(text: str) -> str:
        for part in known:
            text = text.replace(part, HIDDEN)
        return text

    return hide
