"""/roles: names for permissions."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import Field

from flux.engine.service.principals import MOST_PATTERNS
from flux.permissions import BUILT_IN
from flux.server.context import process_of, scope_of
from flux.server.wire import Body, Text, page
from flux.store.principals import Role

router = APIRouter(prefix="/roles", tags=["principals"])


class PutRole(Body):
    """PUT /roles/{name}."""

    permissions: list[Text] = Field(min_length=1, max_length=MOST_PATTERNS)


class CreateRole(PutRole):
    """POST /roles."""

    name: Text


@router.post("", status_code=201)
async def create_role(request: Request, body: CreateRole) -> dict[str, Any]:
    """A new role."""
    return _row(await process_of(request).principals.create_role(scope_of(request), body.name, body.permissions))


@router.get("")
async def list_roles(request: Request) -> dict[str, Any]:
    """Every role: the built-in ones first."""
    return page([_row(role) for role in await process_of(request).principals.roles(scope_of(request))], None)


@router.get("/{name}")
async def get_role(request: Request, name: str) -> dict[str, Any]:
    """A role."""
    return _row(await process_of(request).principals.role(scope_of(request), name))


@router.put("/{name}")
async def put_role(request: Request, name: str, body: PutRole) -> dict[str, Any]:
    """Change what a role may do, for everybody who has it."""
    return _row(await process_of(request).principals.update_role(scope_of(request), name, body.permissions))


@router.delete("/{name}", status_code=204)
async def delete_role(request: Request, name: str) -> None:
    """Remove a role, also from those who have it."""
    await process_of(request).principals.delete_role(scope_of(request), name)


def _row(role: Role) -> dict[str, Any]:
    return {"name": role.name, "permissions": list(role.permissions), "built_in": role.name in BUILT_IN}
