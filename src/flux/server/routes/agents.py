"""/agents: stored definitions."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request
from pydantic import AfterValidator

from flux.agents.definition import AgentDefinition, define
from flux.agents.sessions import Agents
from flux.errors import DefinitionInvalid
from flux.server.context import process_of, scope_of
from flux.server.wire import MAX_PAGE, agent_row, decode_cursor, encode_cursor, page, shallow
from flux.store.agents import AgentVersion

router = APIRouter(prefix="/agents", tags=["agents"])

Definition = Annotated[
    dict[str, Any],
    AfterValidator(shallow),
    Body(description="An agent definition; `flux schema agent` prints its schema."),
]


@router.post("", status_code=201)
async def create_agent(request: Request, definition: Definition) -> dict[str, Any]:
    """Store a new agent."""
    agents = process_of(request).agents
    return _told(agents, await agents.put(scope_of(request), define(definition), create=True, update=False))


@router.get("")
async def list_agents(
    request: Request, limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50, cursor: str | None = None
) -> dict[str, Any]:
    """Agents by name."""
    after = decode_cursor(cursor, str)
    found = await process_of(request).agents.page(scope_of(request), after[0] if after else "", limit + 1)
    more = encode_cursor(found[limit - 1].name) if len(found) > limit else None
    return page([agent_row(agent) for agent in found[:limit]], more)


@router.get("/{name}")
async def get_agent(request: Request, name: str) -> dict[str, Any]:
    """The current version of an agent."""
    process, scope = process_of(request), scope_of(request)
    found = await process.agents.get(scope, name)
    notes = process.mcp.troubles(AgentDefinition.from_json(found.definition).mcp_servers, *scope)
    return _told(process.agents, found) | ({"notes": notes} if notes else {})


@router.get("/{name}/versions")
async def list_versions(request: Request, name: str) -> dict[str, Any]:
    """Every version of an agent, newest first."""
    found = await process_of(request).agents.versions(scope_of(request), name)
    return page([agent_row(agent) for agent in found], None)


@router.put("/{name}")
async def put_agent(request: Request, name: str, definition: Definition, create: bool = False) -> dict[str, Any]:
    """Change an agent: the definition becomes its newest version. `create` also makes a new one."""
    wanted = define({"name": name} | definition)
    if wanted.name != name:
        raise DefinitionInvalid(f"name: the definition says {wanted.name!r}, the address {name!r}")
    agents = process_of(request).agents
    return _told(agents, await agents.put(scope_of(request), wanted, create=create, update=True))


@router.delete("/{name}", status_code=204)
async def delete_agent(request: Request, name: str) -> None:
    """Remove an agent; its sessions go on with the version they began with."""
    await process_of(request).agents.delete(scope_of(request), name)


def _told(agents: Agents, found: AgentVersion) -> dict[str, Any]:
    """An agent, with what keeps it from running here now."""
    return agent_row(found) | {"problems": agents.problems(found)}
