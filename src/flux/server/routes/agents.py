"""/agents: stored definitions."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Request
from pydantic import AfterValidator

from flux.agents.define.definition import AgentDefinition, define
from flux.agents.parts.rights import permission_for, withheld
from flux.agents.process import Process
from flux.engine.dispatching.pools import pool_of_agent
from flux.errors import DefinitionInvalid
from flux.server.auth import caller_of
from flux.server.context import chosen, process_of, scope_of
from flux.server.definitions import needs_of, without_code
from flux.server.rbac import check, choosy, may
from flux.server.rules import REGISTER
from flux.server.wire import Limit, agent_row, decode_cursor, encode_cursor, page, shallow, version_of
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
    agents, wanted = process_of(request).agents, define(definition)
    check(request, *_needs(request, wanted))
    return _told(request, await agents.put(scope_of(request), wanted, create=True, update=False))


@router.get("")
async def list_agents(request: Request, limit: Limit = 50, cursor: str | None = None) -> dict[str, Any]:
    """Agents by name."""
    after, agents = decode_cursor(cursor, str), process_of(request).agents
    readable = choosy(request, "agent:{name}:read", lambda one: {"name": one.name})
    scope = scope_of(request)

    async def behind(last: AgentVersion | None, count: int) -> list[AgentVersion]:
        return await agents.page(scope, last.name if last else after[0] if after else "", count)

    found = await chosen(behind, readable, limit + 1)
    more = encode_cursor(found[limit - 1].name) if len(found) > limit else None
    return page([_row(request, agent) for agent in found[:limit]], more)


@router.get("/{name}")
async def get_agent(request: Request, name: str) -> dict[str, Any]:
    """The current version of an agent."""
    process, scope = process_of(request), scope_of(request)
    found = await process.agents.get(scope, name)
    notes = process.mcp.troubles(AgentDefinition.from_json(found.definition).mcp_servers, scope.tenant, scope.principal)
    told = _told(request, found) | ({"notes": notes} if notes else {})
    permissions = caller_of(request).permissions
    kept_back = withheld(await process.agents.offered(found), permissions)
    return told | ({"withheld": {name: permission_for(name) for name in kept_back}} if kept_back else {})


@router.get("/{name}/versions")
async def list_versions(request: Request, name: str, limit: Limit = 50, cursor: str | None = None) -> dict[str, Any]:
    """The versions of an agent, newest first."""
    found = await process_of(request).agents.versions(scope_of(request), name, version_of(cursor), limit + 1)
    more = encode_cursor(found[limit - 1].version) if len(found) > limit else None
    return page([_row(request, agent) for agent in found[:limit]], more)


@router.put("/{name}")
async def put_agent(request: Request, name: str, definition: Definition, create: bool = False) -> dict[str, Any]:
    """Change an agent: the definition becomes its newest version. `create` also makes a new one."""
    wanted = define({"name": name} | definition)
    if wanted.name != name:
        raise DefinitionInvalid(f"name: the definition says {wanted.name!r}, the address {name!r}")
    updates, creates = may(request, "agent:{name}:update"), create and may(request, "agent:*:create")
    needed = () if updates or creates else ("agent:{name}:update",)
    check(request, *needed, *_needs(request, wanted), knows=None if creates else "agent:{name}:read")
    agents = process_of(request).agents
    return _told(request, await agents.put(scope_of(request), wanted, create=creates, update=updates))


@router.delete("/{name}", status_code=204)
async def delete_agent(request: Request, name: str) -> None:
    """Remove an agent; its sessions go on with the version they began with."""
    await process_of(request).agents.delete(scope_of(request), name)


def _told(request: Request, found: AgentVersion) -> dict[str, Any]:
    """An agent, with what keeps it from running here now."""
    process = process_of(request)
    return _row(request, found) | {"problems": [*process.agents.problems(found), *_elsewhere(process, found)]}


def _elsewhere(process: Process, found: AgentVersion) -> list[str]:
    """That nobody here takes its sessions; between processes that is no problem, for another worker may."""
    pool = pool_of_agent(found.definition)
    if process.offer.takes(pool, None) or not process.settings.database.startswith("sqlite:"):
        return []
    return [f"its sessions run on workers with the labels {pool}, which this process does not have"]


def _row(request: Request, found: AgentVersion) -> dict[str, Any]:
    """An agent; the code it ships is for those who could register it."""
    row = agent_row(found)
    return row if may(request, REGISTER) else row | {"definition": without_code(row["definition"])}


def _needs(request: Request, wanted: AgentDefinition) -> list[str]:
    """What the caller needs for what a definition brings along."""
    return needs_of(wanted, secrets=may(request, "admin:secrets:read"))
