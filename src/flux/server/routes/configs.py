"""/configs: configuration values of workflows."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from flux.server.context import process_of, scope_of
from flux.server.wire import MAX_PAGE, PutConfig, decode_cursor, names_page

router = APIRouter(prefix="/configs", tags=["configs"])


@router.get("")
async def list_configs(
    request: Request, limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50, cursor: str | None = None
) -> dict[str, Any]:
    """Names of the values that are set."""
    after = decode_cursor(cursor, str)
    found = await process_of(request).configs.names(scope_of(request), after[0] if after else "", limit + 1)
    return names_page(found, limit)


@router.get("/{name}")
async def get_config(request: Request, name: str) -> dict[str, Any]:
    """A value."""
    return {"name": name, "value": await process_of(request).configs.get(scope_of(request), name)}


@router.put("/{name}")
async def put_config(request: Request, name: str, body: PutConfig) -> dict[str, Any]:
    """Set a value: any JSON."""
    await process_of(request).configs.set(scope_of(request), name, body.value)
    return {"name": name, "value": body.value}


@router.delete("/{name}", status_code=204)
async def delete_config(request: Request, name: str) -> None:
    """Forget a value."""
    await process_of(request).configs.remove(scope_of(request), name)
