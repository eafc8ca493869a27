"""Which long-term memory an agent has: a field of its definition, and the same in code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from flux.engine.configuration.configs import NAME as SECRET_NAME
from flux.errors import DefinitionInvalid

Provider = Literal["sqlite", "postgresql", "in_memory"]

#: The field of a definition.
FIELD = "long_term_memory"
BY_NAME = "secret:"
POSTGRES = ("postgresql://", "postgres://")
#: Stands for a connection that is not shown. Who writes it back means the one that is stored.
HIDDEN = "***"
#: The tools of an agent with a long-term memory.
TOOL_NAMES = ("recall_memory", "store_memory", "forget_memory", "list_memory_keys")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class LongTermMemory(BaseModel):
    """An agent's long-term memory.

    `connection` is a file (a relative one lies in `memories` of FLUX_HOME), a postgresql:// URL, or
    `secret:NAME`; without it the memories are kept in Flux's own database. Agents that have the same
    connection and `scope` share their memories; the default scope is the agent's name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    provider: Provider | None = None
    connection: str | None = Field(default=None, min_length=1, max_length=4096)
    scope: str | None = Field(default=None, min_length=1, max_length=256)

    @field_validator("scope", "connection")
    @classmethod
    def _plain(cls, value: str | None) -> str | None:
        if value is not None and (_CONTROL.search(value) or value != value.strip()):
            raise ValueError("must be plain text on one line without spaces around it")
        return value

    @model_validator(mode="after")
    def _fitting(self) -> LongTermMemory:
        connection = self.connection
        if connection is None or connection == HIDDEN:
            return self
        if self.provider not in ("sqlite", "postgresql"):
            raise ValueError("connection: only the providers sqlite and postgresql take one")
        if connection.startswith(BY_NAME):
            name = connection.removeprefix(BY_NAME)
            if not SECRET_NAME.fullmatch(name):
                raise ValueError("connection: secret:NAME needs the name of a secret; `flux secrets set NAME` sets one")
        elif (self.provider == "postgresql") != connection.startswith(POSTGRES):
            wanted = "a postgresql:// URL" if self.provider == "postgresql" else "the name of a file"
            raise ValueError(f"connection: the provider {self.provider} takes {wanted} or secret:NAME")
        elif self.provider == "sqlite" and ".." in PurePath(connection).parts:
            raise ValueError("connection: '..' must not be in the name of the file")
        return self


class Place(NamedTuple):
    """A provider and its connection."""

    provider: Provider
    connection: str | None = None


def sqlite(path: str | None = None) -> Place:
    """Memories in a SQLite file; a relative one lies in `memories` of FLUX_HOME."""
    return Place("sqlite", path)


def postgresql(url: str | None = None) -> Place:
    """Memories in a Postgres database: a URL, or "secret:NAME"."""
    return Place("postgresql", url)


def in_memory() -> Place:
    """Memories that last as long as the process."""
    return Place("in_memory")


def long_term_memory(provider: Place | None = None, scope: str | None = None) -> LongTermMemory:
    """Long-term memory for `agent()`; without a provider in Flux's own database.

    :raises DefinitionInvalid: the connection or the scope cannot be used
    """
    if provider is not None and not isinstance(provider, Place):
        raise DefinitionInvalid(f"{FIELD}: provider must be sqlite(...), postgresql(...) or in_memory()")
    given: dict[str, Any] = {"scope": scope} | (provider._asdict() if provider else {})
    try:
        return LongTermMemory(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        said = "; ".join(fault["msg"].removeprefix("Value error, ") for fault in error.errors(include_input=False))
        raise DefinitionInvalid(f"{FIELD}: {said}") from error


def with_subagents(definition: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A definition and all that are in it, as mappings."""
    yield definition
    for one in definition.get("subagents") or ():
        yield from with_subagents(one)


def shown(definition: dict[str, Any]) -> dict[str, Any]:
    """A stored definition as people may see it: URLs of memories stay hidden. The same mapping, changed."""
    for one in with_subagents(definition):
        chosen = one.get(FIELD)
        if chosen and str(chosen.get("connection") or "").startswith(POSTGRES):
            chosen["connection"] = HIDDEN
    return definition
