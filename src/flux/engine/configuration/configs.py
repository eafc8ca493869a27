"""Configuration values: JSON by name, given to the tasks that ask for them.

`agent:NAME` is a view of an agent's definition: it is read like any other value, and never set.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from flux.errors import ConfigNotFound, InvalidInput
from flux.store import agents, audit, configs
from flux.store.database import Database, Scope, Steps

AGENT = "agent:"
NAME = re.compile(r"\w[\w.:@-]{0,255}")


def check_name(what: str, name: str) -> None:
    """Refuse a name that no address or command line can hold.

    :raises InvalidInput: it is such a name
    """
    if not NAME.fullmatch(name):
        raise InvalidInput(
            f"{what}: {name[:80]!r} is no name; use letters, digits, and _ . : @ - behind the first, 256 in all"
        )


class Configs:
    """The configuration values of every tenant."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def set(self, scope: Scope, name: str, value: Any) -> None:
        """Set a value: plain JSON.

        :raises InvalidInput: the name cannot be used
        """
        check_name("config", name)
        _check_own(name, "update")
        program = configs.put(scope, name, msgspec.json.encode(value).decode())
        await self._database.write(audit.noted(scope, program, "config.set", name))

    async def get(self, scope: Scope, name: str) -> Any:
        """A value.

        :raises ConfigNotFound: it is not set
        """
        return (await self.requested(scope, [name]))[name]

    async def requested(self, scope: Scope, names: Iterable[str]) -> dict[str, Any]:
        """The values of these names.

        :raises ConfigNotFound: one is not set
        """
        wanted = list(names)
        return await self._database.read(_all(scope, wanted)) if wanted else {}

    async def remove(self, scope: Scope, name: str) -> None:
        """Forget a value.

        :raises ConfigNotFound: it is not set
        :raises InvalidInput: it is the view of an agent
        """
        _check_own(name, "delete")
        if not await self._database.write(audit.noted_if(scope, configs.remove(scope, name), "config.remove", name)):
            raise no_config(name)

    async def names(self, scope: Scope, after: str = "", limit: int = 50) -> list[str]:
        """Names of values that are set, in order, behind `after`."""
        return await self._database.read(configs.names(scope, after, limit))


def _check_own(name: str, instead: str) -> None:
    if name.startswith(AGENT):
        agent = name.removeprefix(AGENT)
        raise InvalidInput(f"config {name} is a view of an agent; `flux agent {instead} {agent}` changes that")


def _all(scope: Scope, names: list[str]) -> Steps[dict[str, Any]]:
    found = {}
    for name in names:
        if name.startswith(AGENT):
            found[name] = yield from _definition(scope, name)
            continue
        text = yield from configs.get(scope, name)
        if text is None:
            raise no_config(name)
        found[name] = msgspec.json.decode(text)
    return found


def _definition(scope: Scope, name: str) -> Steps[Any]:
    """An agent's definition without the connection of its memory, which may hold a password."""
    found = yield from agents.get(scope, name.removeprefix(AGENT))
    if found is None:
        raise no_config(name)
    definition = msgspec.json.decode(found.definition)
    memory = definition.get("long_term_memory")
    if isinstance(memory, dict) and not str(memory.get("connection", "")).startswith("secret:"):
        memory.pop("connection", None)
    return definition


def no_config(name: str) -> ConfigNotFound:
    """The error for a value that is not set."""
    if name.startswith(AGENT):
        return ConfigNotFound(f"there is no config {name!r}; `flux agent list` shows the agents that exist")
    return ConfigNotFound(f"there is no config {name!r}; `flux config set {name} VALUE` sets it")
