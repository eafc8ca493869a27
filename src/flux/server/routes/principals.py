"""/principals: who may call, their roles, and their API keys."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import Field

from flux.engine.service.principals import Known
from flux.server.context import process_of, scope_of
from flux.server.wire import Body, Limit, Text, decode_cursor, encode_cursor, page
from flux.store.principals import ApiKey, PrincipalState

router = APIRouter(prefix="/principals", tags=["principals"])

Kind = Literal["user", "service_account"]
LONGEST_SECONDS = 100 * 366 * 86_400


class CreatePrincipal(Body):
    """POST /principals."""

    subject: Text
    kind: Kind = "user"
    roles: list[Text] = Field(default=[], max_length=100)
    name: Text | None = Field(default=None, max_length=256)


class CreateKey(Body):
    """POST /principals/{subject}/keys. `expires_in` in seconds; without it the key is good until it is revoked."""

    name: Text = "default"
    expires_in: float | None = Field(default=None, gt=0, le=LONGEST_SECONDS)


@router.post("", status_code=201)
async def create_principal(request: Request, body: CreatePrincipal) -> dict[str, Any]:
    """A new principal."""
    service, scope = process_of(request).principals, scope_of(request)
    return _row(await service.create(scope, body.subject, body.kind, body.roles, body.name))


@router.get("")
async def list_principals(
    request: Request,
    kind: Kind | None = None,
    limit: Limit = 50,
    cursor: str | None = None,
) -> dict[str, Any]:
    """Principals by subject."""
    after = decode_cursor(cursor, str)
    service = process_of(request).principals
    found = await service.page(scope_of(request), kind, after[0] if after else "", limit + 1)
    more = encode_cursor(found[limit - 1].principal.subject) if len(found) > limit else None
    return page([_row(known) for known in found[:limit]], more)


@router.get("/{subject}")
async def get_principal(request: Request, subject: str) -> dict[str, Any]:
    """A principal with its roles."""
    return _row(await process_of(request).principals.get(scope_of(request), subject))


@router.delete("/{subject}", status_code=204)
async def delete_principal(request: Request, subject: str) -> None:
    """Remove a principal with its keys; what it made stays."""
    await process_of(request).principals.delete(scope_of(request), subject)


@router.post("/{subject}/enable")
async def enable_principal(request: Request, subject: str) -> dict[str, Any]:
    """Let a principal in again."""
    return await _set_state(request, subject, "active")


@router.post("/{subject}/disable")
async def disable_principal(request: Request, subject: str) -> dict[str, Any]:
    """Let a principal in no more, whatever it brings."""
    return await _set_state(request, subject, "disabled")


@router.put("/{subject}/roles/{role}")
async def grant_role(request: Request, subject: str, role: str) -> dict[str, Any]:
    """Give a principal a role."""
    return _row(await process_of(request).principals.grant(scope_of(request), subject, role))


@router.delete("/{subject}/roles/{role}")
async def revoke_role(request: Request, subject: str, role: str) -> dict[str, Any]:
    """Take a role from a principal."""
    return _row(await process_of(request).principals.revoke(scope_of(request), subject, role))


@router.post("/{subject}/keys", status_code=201)
async def create_key(request: Request, subject: str, body: CreateKey) -> dict[str, Any]:
    """A new API key; only this answer has it."""
    service = process_of(request).principals
    made = await service.create_key(scope_of(request), subject, body.name, body.expires_in)
    return _key_row(made.key) | {"subject": subject, "key": made.secret}


@router.get("/{subject}/keys")
async def list_keys(request: Request, subject: str) -> dict[str, Any]:
    """The keys of a principal, without the keys themselves."""
    found = await process_of(request).principals.keys(scope_of(request), subject)
    return page([_key_row(key) for key in found], None)


@router.delete("/{subject}/keys/{name}", status_code=204)
async def revoke_key(request: Request, subject: str, name: str) -> None:
    """Make a key useless at once."""
    await process_of(request).principals.revoke_key(scope_of(request), subject, name)


async def _set_state(request: Request, subject: str, state: PrincipalState) -> dict[str, Any]:
    return _row(await process_of(request).principals.set_state(scope_of(request), subject, state))


def _row(known: Known) -> dict[str, Any]:
    """A principal as lists and GET show it; times in seconds since the epoch."""
    found = known.principal
    return {
        "subject": found.subject,
        "kind": found.kind,
        "name": found.name,
        "state": found.state,
        "roles": known.roles,
        "created_at": found.created,
        "updated_at": found.updated,
    }


def _key_row(key: ApiKey) -> dict[str, Any]:
    return {"name": key.name, "created_by": key.by, "created_at": key.created, "expires_at": key.expires_at}
