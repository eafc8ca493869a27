"""Reading the events of a session as they are on the wire."""

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from flux.client import FluxClient
from flux.client.sse import ServerEvent, parse
from flux.deltas import DELTA_TYPES

ACCEPT = {"Accept": "text/event-stream"}


async def frames(client: FluxClient, session: str, after: str = "0") -> AsyncGenerator[ServerEvent, None]:
    """The frames behind a cursor, for as long as they are read."""
    chunks = client.stream(f"/sessions/{session}/events", {**ACCEPT, "Last-Event-ID": after})
    async with aclosing(chunks), aclosing(parse(chunks)) as events:
        async for event in events:
            yield event


async def read(stream: AsyncGenerator[ServerEvent, None], last: Callable[[ServerEvent], bool]) -> list[ServerEvent]:
    """Frames up to and with the one that is `last`."""
    found: list[ServerEvent] = []
    async for event in stream:
        found.append(event)
        if last(event):
            return found
    raise AssertionError(f"the stream ended after {[event.type for event in found]}")


async def history(client: FluxClient, session: str, ends: int = 1) -> list[ServerEvent]:
    """All frames of a session up to its n-th answer."""
    async with aclosing(frames(client, session)) as stream:
        return await read(stream, nth("chat_response", ends))


def nth(kind: str, n: int) -> Callable[[ServerEvent], bool]:
    """Whether a frame is the n-th of its kind to be asked about."""
    seen = 0

    def last(event: ServerEvent) -> bool:
        nonlocal seen
        seen += event.type == kind
        return event.type == kind and seen == n

    return last


def is_delta(event: ServerEvent) -> bool:
    """Whether a frame is a piece of an entry to come."""
    return event.type in DELTA_TYPES


def body(event: ServerEvent) -> dict[str, Any]:
    """What a frame says."""
    value: dict[str, Any] = json.loads(event.data)
    return value
