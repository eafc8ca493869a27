"""An HTTP server that plays one provider: scripted replies, recorded requests, and a watch on disconnects."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Reply:
    """What to answer. `end` is "done", "hang" (say nothing more) or "cut" (close in the middle)."""

    pieces: Sequence[bytes] = ()
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    end: str = "done"


def error(status: int, body: Any, **headers: str) -> Reply:
    """An error reply with a JSON body."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply([json.dumps(body).encode()], status, {"content-type": "application/json", **named})


@dataclass
class Recorded:
    """One request as it came in."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


class Server:
    """Answers each request with the next of `replies`; the last one stays."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.requests: list[Recorded] = []
        self.connections = 0
        self.asked = asyncio.Event()
        self.disconnected = asyncio.Event()
        self.url = ""
        self._tasks: set[asyncio.Task[None]] = set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until the client leaves it."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            while await self._exchange(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            self.disconnected.set()
        finally:
            self._tasks.discard(task)
            writer.close()

    async def stop(self) -> None:
        """End the connections that are still open."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        self.requests.append(await _read(reader))
        self.asked.set()
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        headers = {"content-type": "text/event-stream", "transfer-encoding": "chunked", **reply.headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(f"HTTP/1.1 {reply.status} Status\r\n{head}\r\n".encode())
        for piece in reply.pieces:
            writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        if reply.end == "done":
            writer.write(b"0\r\n\r\n")
        await writer.drain()
        if reply.end == "hang" and not await reader.read():
            self.disconnected.set()
        return reply.end == "done"


async def _read(reader: asyncio.StreamReader) -> Recorded:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    request, *lines = head.strip().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Recorded(request.split()[1], headers, json.loads(body) if body else {})


@asynccontextmanager
async def serving() -> AsyncIterator[Server]:
    """A server on a free loopback port."""
    server = Server()
    listener = await asyncio.start_server(server.accept, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listener.close()
        await server.stop()
