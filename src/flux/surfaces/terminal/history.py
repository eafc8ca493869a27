"""What a session said last, for somebody who comes back to it."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from flux.client import FluxClient
from flux.events import (
    RUN_ENDS,
    AssistantSaid,
    Entry,
    RunStarted,
    SessionEndedEntry,
    UnknownEntry,
    UserSaid,
    decode,
)
from flux.messages import text_of

PAGE = 200


class Past(Struct, frozen=True):
    """The last finished exchange; `start` is the seq it ended at, `messages` were still to be consumed then.

    `open`: something has begun, or is to begin, behind it. (The session's state tells this a moment too late.)
    """

    start: int = 0
    asked: str = ""
    answered: str = ""
    messages: tuple[UserSaid, ...] = ()
    open: bool = False


async def past(client: FluxClient, session: str, head: int) -> Past:
    """Read back from the head until the last finished exchange is known."""
    entries: list[tuple[int, Entry | UnknownEntry]] = []
    after = head
    while after > 0:
        upto, after = after, max(0, after - PAGE)
        page = await client.get(f"/sessions/{session}/events", after=after, limit=upto - after)
        entries = [*_decoded(page["items"]), *entries]
        if _told(entries).asked:
            break
    return _told(entries)


def _decoded(items: list[dict[str, Any]]) -> list[tuple[int, Entry | UnknownEntry]]:
    return [(item["seq"], decode(msgspec.json.encode(item))) for item in items]


def _told(entries: list[tuple[int, Entry | UnknownEntry]]) -> Past:
    found = Past()
    waiting: dict[str, UserSaid] = {}
    running, asked, answered = False, "", ""
    for seq, entry in entries:
        if isinstance(entry, UserSaid):
            waiting[entry.id] = entry
        elif isinstance(entry, AssistantSaid):
            answered = text_of(entry.parts) or answered
        for id in getattr(entry, "inputs", ()):
            said = waiting.pop(id, None)
            asked = text_of(said.parts) if said else asked
        if isinstance(entry, RUN_ENDS):
            found = Past(seq, asked, answered, tuple(waiting.values()))
            running, asked, answered = False, "", ""
        elif isinstance(entry, RunStarted):
            running = True
        elif isinstance(entry, SessionEndedEntry):
            return found
    return msgspec.structs.replace(found, open=running or bool(waiting))
