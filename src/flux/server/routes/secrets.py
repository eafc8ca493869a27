"""/secrets: secrets of workflows. Only a GET of one tells its value."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from flux.server.context import process_of, scope_of
from flux.server.wire import Limit, PutSecret, RotateKey, decode_cursor, names_page

router = APIRouter(prefix="/secrets", tags=["secrets"])


@router.get("")
async def list_secrets(request: Request, limit: Limit = 50, cursor: str | None = None) -> dict[str, Any]:
    """Names of the secrets that are set."""
    after = decode_cursor(cursor, str)
    found = await process_of(request).secrets.names(scope_of(request), after[0] if after else "", limit + 1)
    return names_page(found, limit)


@router.post("/rotate-key")
async def rotate_key(request: Request, body: RotateKey) -> dict[str, Any]:
    """Encrypt every secret anew: with a fresh key, or with the first of those that the server was given."""
    done = await process_of(request).secrets.rotate(scope_of(request), forget_unreadable=body.forget_unreadable)
    return {"key": done.key, "resealed": done.resealed, "forgotten": done.forgotten}


@router.get("/{name}")
async def get_secret(request: Request, name: str) -> dict[str, Any]:
    """A secret with its value."""
    return {"name": name, "value": await process_of(request).secrets.shown(scope_of(request), name)}


@router.put("/{name}")
async def put_secret(request: Request, name: str, body: PutSecret) -> dict[str, Any]:
    """Set a secret."""
    await process_of(request).secrets.set(scope_of(request), name, body.value)
    return {"name": name}


@router.delete("/{name}", status_code=204)
async def delete_secret(request: Request, name: str) -> None:
    """Forget a secret."""
    await process_of(request).secrets.remove(scope_of(request), name)
