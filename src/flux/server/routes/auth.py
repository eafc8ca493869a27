"""/auth: who the caller is here."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from flux.server.auth import caller_of
from flux.server.context import process_of

router = APIRouter(prefix="/auth", tags=["auth"])


@router.get("/me")
async def me(request: Request) -> dict[str, Any]:
    """The caller, with roles and permissions; `auth` false: nobody is asked who they are."""
    caller = caller_of(request)
    return {
        "subject": caller.scope.principal,
        "tenant": caller.scope.tenant,
        "kind": caller.kind,
        "roles": list(caller.roles),
        "permissions": sorted(caller.permissions.patterns),
        "expires_at": caller.expires_at,
        "auth": process_of(request).identities.enabled,
    }
