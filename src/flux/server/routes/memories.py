"""/memories: what agents noted down for later sessions."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request

from flux.permissions import quoted
from flux.server.context import chosen, process_of, scope_of
from flux.server.rbac import check, choosy
from flux.server.wire import Limit, Text, decode_cursor, encode_cursor, page
from flux.store.memories import Memory

#: Characters of a value in a list.
PREVIEW = 200

router = APIRouter(prefix="/memories", tags=["memories"])

Agent = Annotated[Text | None, Query(max_length=256, description="whose memory; without it Flux's own database")]
Scope = Annotated[Text | None, Query(max_length=256, description="the scope; with an agent that agent's by default")]


@router.get("")
async def list_memories(
    request: Request,
    agent: Agent = None,
    scope: Scope = None,
    limit: Limit = 50,
    cursor: str | None = None,
) -> dict[str, Any]:
    """Memories by scope and key; values are cut."""
    after = decode_cursor(cursor, str, str) or ["", ""]
    memories = process_of(request).memories
    _check_agent(request, agent)
    readable = choosy(request, "memory:{area}:read", lambda one: {"area": one.area})
    who = scope_of(request)

    async def behind(last: Memory | None, count: int) -> list[Memory]:
        place = (last.area, last.key) if last else (after[0], after[1])
        return await memories.page(who, agent=agent, area=scope, after=place, limit=count)

    found = await chosen(behind, readable, limit + 1)
    more = encode_cursor(found[limit - 1].area, found[limit - 1].key) if len(found) > limit else None
    return page([_row(memory) | {"preview": memory.value[:PREVIEW]} for memory in found[:limit]], more)


@router.get("/{key:path}")
async def get_memory(request: Request, key: Text, agent: Agent = None, scope: Scope = None) -> dict[str, Any]:
    """A memory. Without agent and scope the one that has this key."""
    _check(request, "read", agent, scope)
    found = await process_of(request).memories.get(scope_of(request), key, agent=agent, area=scope)
    return _row(found) | {"value": msgspec.json.decode(found.value)}


@router.delete("/{key:path}")
async def delete_memory(request: Request, key: Text, agent: Agent = None, scope: Scope = None) -> dict[str, Any]:
    """Forget a memory. Without agent and scope the one that has this key."""
    _check(request, "manage", agent, scope)
    return _row(await process_of(request).memories.forget(scope_of(request), key, agent=agent, area=scope))


def _check(request: Request, action: str, agent: str | None, area: str | None) -> None:
    """Who may not see every scope says which one is meant."""
    _check_agent(request, agent)
    place = "*" if area is None else quoted(area)
    check(request, f"memory:{place}:{action}", knows=f"memory:{place}:read")


def _check_agent(request: Request, agent: str | None) -> None:
    if agent is not None:
        check(request, knows="agent:{name}:read", name=agent)


def _row(memory: Memory) -> dict[str, Any]:
    """A memory as JSON; times in seconds since the epoch."""
    return {
        "scope": memory.area,
        "key": memory.key,
        "created_at": memory.created,
        "updated_at": memory.updated,
    }
