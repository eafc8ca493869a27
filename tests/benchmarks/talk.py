"""Ways to a session that are cheap beside what is measured, and sessions with a past."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from flux.agents.history.transcript import Transcript
from flux.agents.process import Process, open_process
from flux.client import FluxClient, SessionHandle
from flux.client.transport import InProcessTransport
from flux.events import (
    AssistantSaid,
    ChatResponse,
    Compacted,
    ContextFrozen,
    Entry,
    RunStarted,
    SessionStarted,
    Stored,
    Token,
    UserSaid,
)
from flux.messages import TextPart, Usage
from flux.server.app import create_app
from flux.settings import load_settings
from flux.store import log
from flux.store.database import LOCAL, Steps
from tests.benchmarks.frame import TEXT, TOKENS, Spent, own_cpu, spent

AGENT = "bench"
ECHO = "scripted/echo"
TOKEN = b"event: token\n"
#: Of a past.
ENTRIES_PER_TURN = 4
#: Turns after which a measured session is left for a fresh one, so that history stays short.
TURNS_PER_SESSION = 10


class Turn(NamedTuple):
    """Seconds from sending a message to its acceptance, the first token and the end; tokens seen."""

    accepted: float
    first: float
    done: float
    tokens: int


Say = Callable[[], Awaitable[Turn]]
#: Turns, and what all of them took together.
Found = tuple[list[Turn], Spent]


class Line:
    """A connection that sends messages and reads the answers as raw bytes: a load that costs next to nothing."""

    path = "/sessions/{}/messages"
    #: What stands in the frame of each token, and nowhere else.
    token = TOKEN

    def __init__(self, url: str, session: str) -> None:
        place = urlsplit(url)
        self._host, self._port = place.hostname or "", place.port or 0
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        path = self.path.format(session)
        body = json.dumps({"message": TEXT}).encode()
        self._request = (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n"
            f"Authorization: Bearer bench\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode() + body
        self.answer = b""

    async def say(self) -> Turn:
        """One turn; connects first if it must."""
        reader, writer = await self._connected()
        began = time.perf_counter()
        accepted = first = 0.0
        data = b""
        writer.write(self._request)
        while not data.endswith(b"\r\n0\r\n\r\n"):
            piece = await reader.read(1 << 16)
            if not piece:
                raise ConnectionError(f"the server hung up after {data[:200]!r}")
            data += piece
            accepted = accepted or time.perf_counter() - began
            if not first and self.token in data:
                first = time.perf_counter() - began
        self.answer = data
        return Turn(accepted, first, time.perf_counter() - began, data.count(self.token))

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A server closes a connection that has long been quiet."""
        if self._reader is None or self._writer is None or self._reader.at_eof():
            self.close()
            self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        return self._reader, self._writer

    def close(self) -> None:
        """Hang up."""
        if self._writer is not None:
            self._writer.close()


async def say(session: SessionHandle) -> Turn:
    """One turn through the client."""
    began = time.perf_counter()
    await session.post(TEXT)
    accepted = time.perf_counter() - began
    first, tokens = 0.0, 0
    async with aclosing(session.events()) as events:
        async for event in events:
            if isinstance(event.event, Token):
                first = first or time.perf_counter() - began
                tokens += 1
            elif isinstance(event.event, ChatResponse):
                break
    return Turn(accepted, first, time.perf_counter() - began, tokens)


async def one_by_one(lines: Sequence[Say], turns: int, warm_up: int, cpu: Callable[[], float] = own_cpu) -> Found:
    """Turns in sequence, on one line after the other; the warm-up uses the first."""
    for _ in range(warm_up):
        await lines[0]()

    async def all_turns() -> list[Turn]:
        return [await lines[1 + n // TURNS_PER_SESSION]() for n in range(turns)]

    return await spent(all_turns(), cpu)


async def at_once(lines: Sequence[Say], rounds: int, cpu: Callable[[], float] = own_cpu) -> Found:
    """So many turns on every line, all lines together, after one each to warm up."""
    await asyncio.gather(*(line() for line in lines))

    async def several(line: Say) -> list[Turn]:
        return [await line() for _ in range(rounds)]

    found, took = await spent(asyncio.gather(*map(several, lines)), cpu)
    return [turn for turns in found for turn in turns], took


def lines_needed(turns: int) -> int:
    """How many lines `one_by_one` uses."""
    return 2 + turns // TURNS_PER_SESSION


@asynccontextmanager
async def embedded(home: Path, *, worker: bool = True) -> AsyncIterator[tuple[FluxClient, Process]]:
    """Flux in this process, with the agent of the benchmarks."""
    settings = load_settings({}, cwd=home, home=str(home))
    async with (
        open_process(settings, environment=os.environ, workspace=home, worker=worker) as process,
        FluxClient("http://localhost", transport=InProcessTransport(create_app(process))) as client,
    ):
        yield client, process


async def make_agent(client: FluxClient, model: str = ECHO) -> None:
    """Store the agent of the benchmarks."""
    await client.put(f"/agents/{AGENT}", {"model": model}, create=True)


async def sessions(client: FluxClient, count: int) -> list[SessionHandle]:
    """New sessions."""
    return [await client.start_session(AGENT) for _ in range(count)]


@contextmanager
def lines(url: str, ids: Sequence[str]) -> Iterator[list[Line]]:
    """A line to each session, hung up at the end."""
    opened = [Line(url, id) for id in ids]
    try:
        yield opened
    finally:
        for line in opened:
            line.close()


async def with_past(home: Path, count: int, turns: int, model: str = ECHO, *, shown: int | None = None) -> list[str]:
    """Sessions in the database of `home` that have had so many turns; their ids.

    With `shown`, all but so many turns have been summarised.
    """
    async with embedded(home, worker=False) as (client, process):
        await make_agent(client, model)
        started = await asyncio.gather(*(process.sessions.start(LOCAL, AGENT) for _ in range(count)))
        ids = [session.id for session in started]
        await asyncio.gather(*(process.database.write(_past(id, turns, model, shown)) for id in ids))
    return ids


def _past(id: str, turns: int, model: str, shown: int | None) -> Steps[None]:
    entries: list[Entry] = [ContextFrozen(system="", tools=(), digest="")]
    for turn in range(turns):
        entries += _turn(turn, model)
    if shown is not None:
        entries.append(_compacted(entries, turns - shown))
    rows = yield (
        "update executions set head = head + :n, turns = :turns where id = :id returning head",
        {"id": id, "n": len(entries), "turns": turns},
    )
    yield from log.insert(id, entries, rows[0][0], None, 0)


def _compacted(entries: Sequence[Entry], turns: int) -> Compacted:
    """The compaction of so many of the turns in a log that begins with two other entries."""
    begun = SessionStarted(agent=AGENT, instance="i", name="default", definition_digest="")
    gone = [begun, *entries[: 2 + turns * ENTRIES_PER_TURN]]  # and the next message, which still waits there
    base = Transcript().extend(Stored(seq, 0, 0.0, entry) for seq, entry in enumerate(gone, 1)).base()
    return Compacted(upto=len(gone), summary=TEXT, base=base)


def _turn(n: int, model: str) -> list[Entry]:
    parts = (TextPart(TEXT),)
    return [
        UserSaid(id=f"u{n}", mode="queue", parts=parts),
        RunStarted(run=f"r{n}", inputs=(f"u{n}",)),
        AssistantSaid(message_id=f"m{n}", parts=parts, usage=Usage(10, TOKENS), model=model),
        ChatResponse(content=TEXT, turn=n + 1),
    ]
