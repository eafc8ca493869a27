"""What a route needs to know about its request: the process, and who asks."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import TypeVar

from fastapi import Request
from fastapi.responses import Response
from starlette.requests import HTTPConnection

from flux.agents.process import Process
from flux.errors import InvalidInput
from flux.server.limits import ServerLimits
from flux.server.rbac import acting, count
from flux.server.sse import EventStream
from flux.server.wire import MAX_PAGE
from flux.store.database import Scope
from flux.store.feed import Frame, entry_frame
from flux.store.log import LogRow

T = TypeVar("T")


def process_of(request: Request) -> Process:
    """The process this server runs in."""
    process: Process = request.app.state.process
    return process


async def whole_segments(request: HTTPConnection) -> None:
    """Refuse an id with a slash in it: decoded, it would have reached another route.

    :raises InvalidInput: there is one
    """
    raw = request.scope.get("raw_path") or b""
    if raw.startswith(b"/agents/") and b"%2f" in raw.lower():
        raise InvalidInput("an id in the address cannot hold a slash (%2F)")


def scope_of(request: Request) -> Scope:
    """On whose behalf the request acts. With auth off there is one local operator.

    :raises TooManyRequests: the caller sends too many
    """
    scope = acting(request)
    count(request, scope)
    return scope


def limits_of(request: Request) -> ServerLimits:
    """What this server lets a principal do at once."""
    limits: ServerLimits = request.app.state.limits
    return limits


def stream(
    request: Request, batches: AsyncGenerator[list[Frame], None], told: Mapping[str, str] | None = None
) -> EventStream:
    """Frames as server-sent events; `told` are more headers.

    :raises TooManyRequests: there are too many readers
    """
    limits, scope = limits_of(request), scope_of(request)
    limits.check_reader(scope)
    reading = limits.reading(scope)
    return EventStream(batches, request.app.state.closing, request.app.state.heartbeat, reading, told)


async def chosen(
    behind: Callable[[T | None, int], Awaitable[list[T]]], readable: Callable[[T], bool] | None, count: int
) -> list[T]:
    """The next `count` things of a list that the caller may read; `behind` gives those behind the last one."""
    if readable is None:
        return await behind(None, count)
    found: list[T] = []
    last: T | None = None
    while len(found) < count:
        more = await behind(last, MAX_PAGE)
        found += filter(readable, more)
        if len(more) < MAX_PAGE:
            break
        last = more[-1]
    return found[:count]


def events_page(rows: list[LogRow], limit: int) -> Response:
    """A page of a log: `rows` has one more than `limit` where there is more."""
    items = b",".join(entry_frame(row).data for row in rows[:limit])
    more = b'"%d"' % rows[limit - 1].seq if len(rows) > limit else b"null"
    return Response(b'{"items":[%b],"next_cursor":%b}' % (items, more), media_type="application/json")


def wants_events(request: Request) -> bool:
    """Whether the caller asks for server-sent events."""
    return "text/event-stream" in request.headers.get("accept", "")
