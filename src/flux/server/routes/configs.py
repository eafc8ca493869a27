"""/configs: configuration values of workflows."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from flux.engine.configuration.configs import AGENT
from flux.server.context import chosen, process_of, scope_of
from flux.server.definitions import without_code
from flux.server.rbac import check, choosy, may
from flux.server.rules import REGISTER
from flux.server.wire import Limit, PutConfig, decode_cursor, names_page

router = APIRouter(prefix="/configs", tags=["configs"])


@router.get("")
async def list_configs(request: Request, limit: Limit = 50, cursor: str | None = None) -> dict[str, Any]:
    """Names of the values that are set."""
    after, configs = decode_cursor(cursor, str), process_of(request).configs
    readable = choosy(request, "config:{name}:read", lambda name: {"name": name})
    scope = scope_of(request)

    async def behind(last: str | None, count: int) -> list[str]:
        return await configs.names(scope, last or (after[0] if after else ""), count)

    return names_page(await chosen(behind, readable, limit + 1), limit)


@router.get("/{name}")
async def get_config(request: Request, name: str) -> dict[str, Any]:
    """A value."""
    of_agent = name.startswith(AGENT)
    views = ["agent:{agent}:read"] if of_agent else []
    check(request, *views, knows="config:{name}:read", agent=name.removeprefix(AGENT))
    value = await process_of(request).configs.get(scope_of(request), name)
    return {"name": name, "value": value if not of_agent or may(request, REGISTER) else without_code(value)}


@router.put("/{name}")
async def put_config(request: Request, name: str, body: PutConfig) -> dict[str, Any]:
    """Set a value: any JSON."""
    await process_of(request).configs.set(scope_of(request), name, body.value)
    return {"name": name, "value": body.value}


@router.delete("/{name}", status_code=204)
async def delete_config(request: Request, name: str) -> None:
    """Forget a value."""
    await process_of(request).configs.remove(scope_of(request), name)
