"""What people may do with long-term memories: list, look at, and forget them, behind every surface."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from flux import redaction
from flux.agents.define.definition import AgentDefinition
from flux.agents.memory.providers import MemoryStores
from flux.agents.memory.store import MemoryStore, check_key
from flux.agents.service.sessions import Agents
from flux.errors import InvalidInput, MemoryNotFound
from flux.store.database import Scope
from flux.store.memories import Memory


class Memories:
    """Memories of an agent, or those in Flux's own database; `area` is what users call the scope."""

    def __init__(self, stores: MemoryStores, agents: Agents) -> None:
        self._stores = stores
        self._agents = agents

    async def page(
        self, scope: Scope, *, agent: str | None, area: str | None, after: tuple[str, str] = ("", ""), limit: int = 50
    ) -> list[Memory]:
        """Memories by area and key, behind those of `after`.

        :raises AgentNotFound: there is no such agent
        :raises InvalidInput: it has no memory
        :raises Unavailable: its memory cannot be reached
        """
        store, area = await self._where(scope, agent, area)
        return list(map(_shown, await store.page(scope, area, after, limit)))

    async def get(self, scope: Scope, key: str, *, agent: str | None, area: str | None) -> Memory:
        """A memory. Without agent and area the one that has this key.

        :raises MemoryNotFound, AgentNotFound: there is none
        :raises InvalidInput: several have it, or the agent has no memory
        """
        store, area = await self._where(scope, agent, area)
        return _shown(await _found(store, scope, key, area))

    async def forget(self, scope: Scope, key: str, *, agent: str | None, area: str | None) -> Memory:
        """Forget a memory, and return what it was. Without agent and area the one that has this key.

        :raises MemoryNotFound, AgentNotFound: there is none
        :raises InvalidInput: several have it, or the agent has no memory
        """
        store, area = await self._where(scope, agent, area)
        found = await _found(store, scope, key, area)
        if not await store.forget(scope, found.area, key):
            raise _none(key, area)
        return _shown(found)

    async def _where(self, scope: Scope, agent: str | None, area: str | None) -> tuple[MemoryStore, str | None]:
        if agent is None:
            return self._stores.own, area
        stored = await self._agents.get(scope, agent)
        chosen = AgentDefinition.from_json(stored.definition).long_term_memory
        if chosen is None:
            raise InvalidInput(f"the agent {agent!r} has no long_term_memory")
        return await self._stores.of(scope, chosen), area or chosen.scope or agent


def _shown(memory: Memory) -> Memory:
    """A memory as people see it: it may have been noted down before this process knew of a secret in it."""
    if not redaction.holds(memory.value.encode()):
        return memory
    return replace(memory, value=msgspec.json.encode(redaction.value(msgspec.json.decode(memory.value))).decode())


async def _found(store: MemoryStore, scope: Scope, key: str, area: str | None) -> Memory:
    check_key(key)
    if area is not None:
        memory = await store.get(scope, area, key)
        found = [memory] if memory else []
    else:
        found = await store.find(scope, key)
    if not found:
        raise _none(key, area)
    if len(found) > 1:
        scopes = ", ".join(repr(memory.area) for memory in found)
        raise InvalidInput(f"several scopes have a memory {key!r}: {scopes}; say which scope, or which agent")
    return found[0]


def _none(key: str, area: str | None) -> MemoryNotFound:
    where = f" in the scope {area!r}" if area is not None else ""
    return MemoryNotFound(f"there is no memory {key!r}{where}; `flux memory list` shows those that exist")
