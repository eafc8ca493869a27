"""The least that a stream costs: a server that answers each POST with the same bytes, one write per piece.

A GET is held open; `POST /all` writes the first piece to every held connection.
`python -m tests.benchmarks.replay FILE` reads the pieces from FILE, a JSON list of texts.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EMPTY = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"
LAST = b"0\r\n\r\n"


class Replay(asyncio.Protocol):
    """One connection."""

    def __init__(self, pieces: Sequence[bytes], held: set[asyncio.WriteTransport]) -> None:
        self._pieces = pieces
        self._held = held
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._held.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        """Answer each complete request."""
        self._buffer += data
        head, end, body = self._buffer.partition(b"\r\n\r\n")
        if end and len(body) >= _length(head):
            self._buffer = body[_length(head) :]
            self._answer(head)

    def _answer(self, head: bytes) -> None:
        if head.startswith(b"GET"):
            self._held.add(self._transport)
            self._transport.write(HEAD)
        elif head.startswith(b"POST /all "):
            for transport in self._held:
                transport.write(chunk(self._pieces[0]))
            self._transport.write(EMPTY)
        else:
            self._transport.write(HEAD)
            for piece in self._pieces:
                self._transport.write(chunk(piece))
            self._transport.write(LAST)


def chunk(piece: bytes) -> bytes:
    """A piece as a chunk of HTTP/1.1."""
    return b"%x\r\n%b\r\n" % (len(piece), piece)


def save(file: Path, pieces: Sequence[bytes]) -> Path:
    """Write the pieces where a server will read them."""
    file.write_text(json.dumps([piece.decode() for piece in pieces]))
    return file


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line[15:])
    return 0


async def main(file: str) -> None:
    """Serve until terminated."""
    pieces = [piece.encode() for piece in json.loads(Path(file).read_text())]
    held: set[asyncio.WriteTransport] = set()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Replay(pieces, held), "127.0.0.1", 0, backlog=2000)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
