"""/webhooks: where to tell of sessions, and what was told."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import APIRouter, Request
from pydantic import Field

from flux.server.context import process_of, scope_of
from flux.server.wire import Body, Limit, Text, decode_cursor, encode_cursor, page
from flux.store.webhooks import Delivery, DeliveryState, Webhook

router = APIRouter(prefix="/webhooks", tags=["webhooks"])


class CreateWebhook(Body):
    """POST /webhooks."""

    name: Text
    url: Text = Field(min_length=1, max_length=2048)
    events: list[Text] = Field(default=[], max_length=20, description="none: all")
    agent: Text | None = Field(default=None, min_length=1, max_length=256, description="none: every agent")


@router.post("", status_code=201)
async def create_webhook(request: Request, body: CreateWebhook) -> dict[str, Any]:
    """Store a new webhook; `secret` is shown this once."""
    service = process_of(request).webhooks
    made, secret = await service.create(scope_of(request), body.name, body.url, body.events, body.agent)
    return webhook_row(made) | {"secret": secret}


@router.get("")
async def list_webhooks(request: Request, limit: Limit = 50, cursor: str | None = None) -> dict[str, Any]:
    """Webhooks by name."""
    after = decode_cursor(cursor, str)
    found = await process_of(request).webhooks.page(scope_of(request), after[0] if after else "", limit + 1)
    more = encode_cursor(found[limit - 1].name) if len(found) > limit else None
    return page([webhook_row(webhook) for webhook in found[:limit]], more)


@router.get("/{name}")
async def get_webhook(request: Request, name: str) -> dict[str, Any]:
    """A webhook."""
    return webhook_row(await process_of(request).webhooks.get(scope_of(request), name))


@router.delete("/{name}", status_code=204)
async def delete_webhook(request: Request, name: str) -> None:
    """Remove a webhook; what it was still to be told is not."""
    await process_of(request).webhooks.delete(scope_of(request), name)


@router.get("/{name}/deliveries")
async def list_deliveries(
    request: Request, name: str, state: DeliveryState | None = None, limit: Limit = 50, cursor: str | None = None
) -> dict[str, Any]:
    """What a webhook was told and is to be told, newest first."""
    after = decode_cursor(cursor, float, str)
    place = (after[0], after[1]) if after else None
    service = process_of(request).webhooks
    found = await service.deliveries(scope_of(request), name, state=state, after=place, limit=limit + 1)
    more = encode_cursor(found[limit - 1].created, found[limit - 1].id) if len(found) > limit else None
    return page([delivery_row(delivery) for delivery in found[:limit]], more)


@router.post("/{name}/deliveries/{id}/redeliver", status_code=202)
async def redeliver(request: Request, name: str, id: str) -> dict[str, Any]:
    """Tell something again, with the same id."""
    return delivery_row(await process_of(request).webhooks.redeliver(scope_of(request), name, id))


def webhook_row(found: Webhook) -> dict[str, Any]:
    """A webhook as lists and GET show it; times in seconds since the epoch."""
    return {
        "id": found.id,
        "name": found.name,
        "url": found.url,
        "events": found.events.split(),
        "agent": found.agent,
        "owner": found.owner,
        "created_at": found.created,
    }


def delivery_row(found: Delivery) -> dict[str, Any]:
    """A delivery as lists show it; `status` and `error` are of the last attempt."""
    return {
        "id": found.id,
        "type": found.type,
        "session": found.execution_id,
        "state": found.state,
        "attempts": found.attempts,
        "next_at": found.due if found.state == "pending" else None,
        "status": found.status,
        "error": found.error,
        "body": msgspec.json.decode(found.body),
        "created_at": found.created,
        "updated_at": found.updated,
    }
