"""A session with a long log: opening it, and its next turn, in a process that has not seen it and again."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from flux.agents.history.transcript import Transcript
from flux.messages import AssistantMessage, Message, TextDelta, TextPart, UserMessage
from flux.models.base import ModelRequest
from flux.models.bundled import scripted
from flux.store import log
from flux.store.database import LOCAL, Database
from tests.benchmarks.children import Child, flux_server
from tests.benchmarks.frame import TEXT, Row, Size, median, ms
from tests.benchmarks.talk import ENTRIES_PER_TURN, Line, Turn, embedded, with_past
from tests.benchmarks.turn import DIRECT

#: Turns that a summarised session still shows.
SHOWN = 10
PAGE = 100
SELECT = "select seq, type, run_id, epoch, at, body from events where execution_id = ? and seq > 0 order by seq limit ?"
RAW = "a bare select of as many rows"


async def measure(size: Size, home: Path) -> list[Row]:
    """Each session is opened once as a page and once as a stream, and then talked to twice."""
    turns = size.entries // ENTRIES_PER_TURN
    ids = await with_past(home, size.long_sessions + 1, turns)
    summarised = await with_past(home, size.long_sessions, turns, shown=min(SHOWN, turns // 2))
    pages: list[float] = []
    streams: list[float] = []
    cold: list[Turn] = []
    warm: list[Turn] = []
    async with flux_server(home) as server:
        await _visit(server, ids[0], size)
        for id in ids[1:]:
            page, stream, first, second = await _visit(server, id, size)
            pages.append(page)
            streams.append(stream)
            cold.append(first)
            warm.append(second)
        short = [await _first(server, id) for id in summarised]
    async with embedded(home, worker=False) as (_, process):
        reading = await _reading(process.database, summarised[0])
        reading_all = await _reading(process.database, ids[0])
    direct = await _directly(turns, len(ids))
    direct_short = await _directly(min(SHOWN, turns // 2), len(ids))
    name = f"{size.entries:,} entries"
    firsts = [("cold", cold), ("warm", warm)]
    return [
        _opened(f"{name}: first page", pages, _select(home, ids[1], PAGE), None),
        _opened(f"{name}: all, as a stream", streams, _select(home, ids[1], size.entries), 20.0),
        *(
            Row(
                name=f"{name}: sent -> first token, {state}", figure=ms(median([turn.first for turn in found])),
                unit="ms", limit=ms(direct), limit_is=DIRECT, target=15.0,
            )
            for state, found in firsts
        ),
        Row(
            name=f"{name}, summarised: sent -> first token, cold", figure=ms(median(short)),
            unit="ms", limit=ms(direct_short), limit_is=DIRECT, target=15.0,
        ),
        Row(
            name=f"{name}, summarised: a run reads its log", figure=ms(reading),
            unit="ms", limit=ms(reading_all), limit_is="one without a summary", target=1.0,
        ),
    ]  # fmt: skip


def _opened(name: str, seconds: list[float], least: float, target: float | None) -> Row:
    return Row(name=name, figure=ms(median(seconds)), unit="ms", limit=ms(least), limit_is=RAW, target=target)


async def _visit(server: Child, id: str, size: Size) -> tuple[float, float, Turn, Turn]:
    last = b'"seq":%d,' % size.entries
    path = f"/sessions/{id}/events"
    page = await _read(server, f"{path}?limit={PAGE}", "application/json", lambda data: b'"next_cursor"' in data)
    stream = await _read(server, path, "text/event-stream", lambda data: last in data[-4096:])
    line = Line(server.url, id)
    first, second = await line.say(), await line.say()
    line.close()
    return page, stream, first, second


async def _first(server: Child, id: str) -> float:
    """Seconds from a message to the first token."""
    line = Line(server.url, id)
    try:
        return (await line.say()).first
    finally:
        line.close()


async def _reading(database: Database, id: str) -> float:
    """Seconds until a run knows where a session stands that this process has not seen."""
    found = []
    for _ in range(10):
        began = time.perf_counter()
        Transcript().extend(await database.read(log.resume(LOCAL, id)))
        found.append(time.perf_counter() - began)
    return median(found)


async def _read(server: Child, path: str, accept: str, complete: Callable[[bytearray], bool]) -> float:
    """Seconds until the answer is complete."""
    place = urlsplit(server.url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    began = time.perf_counter()
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n".encode())
    data = bytearray()
    while not complete(data):
        piece = await reader.read(1 << 18)
        if not piece:
            raise ConnectionError(f"the server hung up after {bytes(data[:200])!r}")
        data += piece
    took = time.perf_counter() - began
    writer.close()
    return took


def _select(home: Path, id: str, rows: int) -> float:
    connection = sqlite3.connect(home / "flux.db")
    found = []
    for _ in range(10):
        began = time.perf_counter()
        connection.execute(SELECT, (id, rows)).fetchall()
        found.append(time.perf_counter() - began)
    connection.close()
    return median(found)


async def _directly(turns: int, times: int) -> float:
    """Seconds to the first token of the model itself, with the same messages."""
    parts = (TextPart(TEXT),)
    past: list[Message] = [m for _ in range(turns) for m in (UserMessage(parts), AssistantMessage(parts))]
    request = ModelRequest(system="", messages=(*past, UserMessage(parts)))
    found = []
    for _ in range(times):
        began = time.perf_counter()
        async for event in scripted("echo").stream(request):
            if isinstance(event, TextDelta):
                found.append(time.perf_counter() - began)
                break
    return median(found)
