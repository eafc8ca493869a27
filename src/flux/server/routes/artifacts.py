"""/sessions/{id}/artifacts: what a session keeps beside its log."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import Response

from flux.server.context import process_of, scope_of
from flux.server.wire import Limit, decode_cursor, encode_cursor, page
from flux.store.artifacts import Artifact

router = APIRouter(tags=["sessions"])

UNKNOWN = "application/octet-stream"
#: Types that are passed on as they are: nothing in a browser runs them.
HARMLESS = frozenset(
    {
        "application/json", "application/pdf", "audio/mpeg", "audio/ogg", "audio/wav", "image/gif", "image/jpeg",
        "image/png", "image/webp", "text/csv", "text/plain", "video/mp4",
    }
)  # fmt: skip
BYTES: dict[int | str, dict[str, Any]] = {
    200: {"content": {name: {} for name in (UNKNOWN, *sorted(HARMLESS))}, "description": "The bytes"}
}
#: Whoever opens it all the same gets no script and no page.
SAFE = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'; sandbox"}


@router.get("/sessions/{id}/artifacts")
async def list_artifacts(request: Request, id: str, limit: Limit = 50, cursor: str | None = None) -> dict[str, Any]:
    """The artifacts of a session, oldest first."""
    after = decode_cursor(cursor, float, str)
    place = (after[0], after[1]) if after else None
    found = await process_of(request).artifacts.page(scope_of(request), id, place, limit + 1)
    more = encode_cursor(found[limit - 1].created, found[limit - 1].id) if len(found) > limit else None
    return page([_row(artifact) for artifact in found[:limit]], more)


@router.get("/sessions/{id}/artifacts/{aid}", response_class=Response, responses=BYTES)
async def get_artifact(request: Request, id: str, aid: str) -> Response:
    """The bytes of an artifact, as a file to save."""
    found, data = await process_of(request).artifacts.get(scope_of(request), id, aid)
    media_type = found.media_type if found.media_type in HARMLESS else UNKNOWN
    disposition = f"attachment; filename*=UTF-8''{quote(found.name, safe='')}"
    return Response(data, media_type=media_type, headers={"Content-Disposition": disposition, **SAFE})


def _row(found: Artifact) -> dict[str, Any]:
    """An artifact as the list shows it; `size` in bytes."""
    return {
        "id": found.id,
        "session": found.execution_id,
        "name": found.name,
        "media_type": found.media_type,
        "size": found.size,
        "digest": found.digest,
        "created_at": found.created,
    }
