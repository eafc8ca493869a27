"""/audit: who decided, changed, started or read what."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request

from flux.server.context import process_of, scope_of
from flux.server.wire import Limit, Text, decode_cursor, encode_cursor, page
from flux.store import audit
from flux.store.audit import Act

router = APIRouter(prefix="/audit", tags=["audit"])

Filter = Annotated[Text | None, Query()]


@router.get("")
async def list_acts(
    request: Request,
    action: Filter = None,
    principal: Filter = None,
    subject: Filter = None,
    since: float | None = None,
    limit: Limit = 50,
    cursor: str | None = None,
) -> dict[str, Any]:
    """Acts, newest first. `action` is one, or a noun for all of its verbs; `since` in seconds since the epoch."""
    after = decode_cursor(cursor, float, str)
    program = audit.page(
        scope_of(request),
        action=action,
        principal=principal,
        subject=subject,
        since=since,
        before=(after[0], after[1]) if after else None,
        limit=limit + 1,
    )
    found = await process_of(request).database.read(program)
    more = encode_cursor(found[limit - 1].at, found[limit - 1].id) if len(found) > limit else None
    return page([_row(act) for act in found[:limit]], more)


def _row(act: Act) -> dict[str, Any]:
    """An act as JSON; `at` in seconds since the epoch."""
    return msgspec.structs.asdict(act) | {"details": msgspec.json.decode(act.details)}
