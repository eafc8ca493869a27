"""What a route needs to know about its request: the process, and who asks."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping

from fastapi import Request
from fastapi.responses import Response

from flux.agents.process import Process
from flux.server.sse import EventStream
from flux.store.database import LOCAL, Scope
from flux.store.feed import Frame, entry_frame
from flux.store.log import LogRow


def process_of(request: Request) -> Process:
    """The process this server runs in."""
    process: Process = request.app.state.process
    return process


def scope_of(request: Request) -> Scope:
    """On whose behalf the request acts. With auth off there is one local operator."""
    return LOCAL


def stream(
    request: Request, batches: AsyncGenerator[list[Frame], None], told: Mapping[str, str] | None = None
) -> EventStream:
    """Frames as server-sent events; `told` are more headers."""
    return EventStream(batches, request.app.state.closing, request.app.state.heartbeat, told)


def events_page(rows: list[LogRow], limit: int) -> Response:
    """A page of a log: `rows` has one more than `limit` where there is more."""
    items = b",".join(entry_frame(row).data for row in rows[:limit])
    more = b'"%d"' % rows[limit - 1].seq if len(rows) > limit else b"null"
    return Response(b'{"items":[%b],"next_cursor":%b}' % (items, more), media_type="application/json")


def wants_events(request: Request) -> bool:
    """Whether the caller asks for server-sent events."""
    return "text/event-stream" in request.headers.get("accept", "")
