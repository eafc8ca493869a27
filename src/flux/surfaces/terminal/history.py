"""What a session said last, for somebody who comes back to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from flux.client import FluxClient
from flux.events import (
    RUN_ENDS,
    ChatResponse,
    CompactDone,
    CompactRequested,
    Entry,
    Forked,
    RunStarted,
    SessionEndedEntry,
    UnknownEntry,
    UserSaid,
    decode,
)
from flux.messages import text_of

PAGE = 200

Row = tuple[int, Entry | UnknownEntry]


class Past(Struct, frozen=True):
    """The last finished exchange: its entries, and the messages it consumed in front of what consumed them.

    `start` is the seq it ended at, `messages` were still to be consumed then, `earlier` ones came before it.
    `open`: something has begun, or is to begin, behind it. (The session's state tells this a moment too late.)
    """

    start: int = 0
    asked: str = ""
    entries: tuple[Entry | UnknownEntry, ...] = ()
    messages: tuple[UserSaid, ...] = ()
    earlier: int = 0
    open: bool = False


async def past(client: FluxClient, session: str, head: int, turns: int = 0) -> Past:
    """Read back from the head until the last finished exchange is known; `turns` are the session's answers."""
    rows: list[Row] = []
    found, after = Past(), head
    while after > 0 and not found.asked:
        upto, after = after, max(0, after - PAGE)
        page = await client.get(f"/sessions/{session}/events", after=after, limit=upto - after)
        rows = [*_decoded(page["items"]), *rows]
        # The messages that a run consumed may stand before the end of the one in front of it.
        found = _told(rows) if after == 0 or _run_ends(rows) > 1 else found
    if after == 0:
        return found
    answered = sum(isinstance(entry, ChatResponse) for entry in found.entries)
    return msgspec.structs.replace(found, earlier=max(found.earlier, turns - answered))


def _decoded(items: list[dict[str, Any]]) -> list[Row]:
    return [(item["seq"], decode(msgspec.json.encode(item))) for item in items]


def _run_ends(rows: Sequence[Row]) -> int:
    return sum(isinstance(entry, RUN_ENDS) and not isinstance(entry, CompactDone) for _, entry in rows)


def _told(rows: Sequence[Row]) -> Past:
    found, told = Past(), list[Entry | UnknownEntry]()
    waiting: dict[str, UserSaid] = {}
    for seq, entry in rows:
        if isinstance(entry, UserSaid):
            waiting[entry.id] = entry
            continue
        if isinstance(entry, SessionEndedEntry):
            return msgspec.structs.replace(found, entries=(*found.entries, entry))
        if isinstance(entry, Forked):
            waiting.clear()  # they are not answered here
        told += [waiting.pop(id) for id in getattr(entry, "inputs", ()) if id in waiting]
        told.append(entry)
        if not isinstance(entry, RUN_ENDS):
            continue
        if any(isinstance(one, CompactRequested) for one in told):  # no exchange, but seen behind the last one
            found = msgspec.structs.replace(found, start=seq, entries=(*found.entries, *told))
        else:
            earlier = found.earlier + sum(isinstance(before, UserSaid) for before in found.entries)
            found = Past(seq, _asked(told), tuple(told), tuple(waiting.values()), earlier)
        told.clear()
    running = any(isinstance(entry, RunStarted | CompactRequested) for entry in told)
    return msgspec.structs.replace(found, open=running or bool(waiting))


def _asked(entries: Sequence[Entry | UnknownEntry]) -> str:
    said = [text_of(entry.parts) for entry in entries if isinstance(entry, UserSaid)]
    return said[-1] if said else ""
