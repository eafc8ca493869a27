"""Readers of api mode and of the page over real connections: slow ones, many, and such as vanish."""

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx
import httpx_sse
import pytest

from flux.client import FluxClient
from flux.models.base import Model
from flux.models.scripted import Reply
from flux.surfaces.api.app import create_api
from flux.surfaces.web.app import create_page
from tests.integration.server.models import LONG, Held, says
from tests.integration.server.serving import Exchanges, Served, listening, serving

MANY = 2000
PIECE = "x" * 1000
READERS = 50


@pytest.fixture(scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A server on a socket, as it is behind api mode and the page."""
    async with serving(tmp_path_factory.mktemp("home"), in_process=False) as running:
        yield running


class Front(NamedTuple):
    """Api mode or the page of an agent, on a socket."""

    mode: str
    url: str
    agent: str
    exchanges: Exchanges
    served: Served

    def request(self, session: str) -> bytes:
        """What a reader sends."""
        if self.mode == "web":
            return _request("GET", f"/api/sessions/{session}/events", self.url, "")
        return _request("POST", f"/chat?session={session}", self.url, json.dumps({"message": "Hello"}))

    async def begin(self, session: str) -> None:
        """Say what readers wait for; in api mode they have said it themselves."""
        if self.mode == "web":
            await self.served.client.session(session).post("Hello")

    async def open(self, session: str, *, narrow: bool = False) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection that streams; a narrow one takes next to nothing until it is read."""
        address = urlsplit(self.url)
        raw = socket.socket()
        if narrow:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.setblocking(False)
        await asyncio.get_running_loop().sock_connect(raw, (address.hostname, address.port))
        reader, writer = await asyncio.open_connection(sock=raw, limit=1024 if narrow else 1 << 16)
        writer.write(self.request(session))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        return reader, writer


def _request(method: str, path: str, url: str, body: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {urlsplit(url).netloc}", "Accept: text/event-stream",
             "Authorization: Bearer a-token", "Content-Type: application/json",
             f"Content-Length: {len(body)}"]  # fmt: skip
    return "\r\n".join([*lines, "", body]).encode()


@asynccontextmanager
async def front(served: Served, mode: str, model: Model) -> AsyncIterator[Front]:
    """Put api mode or the page in front of the server."""
    agent = await served.agent(model)
    async with FluxClient(served.url) as client:
        exchanges = Exchanges(create_page(client, agent) if mode == "web" else create_api(client, agent))
        async with listening(exchanges) as url:
            yield Front(mode, url, agent, exchanges, served)


def judged(body: bytes) -> list[str]:
    """The pieces of an answer, as an independent parser reads them."""
    response = httpx.Response(200, headers={"content-type": "text/event-stream"}, content=body)
    events = [event for event in httpx_sse.EventSource(response).iter_sse() if event.data]
    found = [(event.event, json.loads(event.data)) for event in events]
    return [told["text"] for kind, told in found if "token" in (kind, told.get("type"))]


async def whole(reader: asyncio.StreamReader) -> bytes:
    """Everything up to and with the answer, without the marks of its chunks."""
    body = bytearray()
    answered = False
    while not (answered and body.endswith(b"\n\n")):
        size = int(await reader.readuntil(b"\r\n"), 16)
        before = max(0, len(body) - 100)
        body += (await reader.readexactly(size + 2))[:-2]
        answered = answered or b"event: chat_response" in body[before:] or b'"type":"response"' in body[before:]
    return bytes(body)


MODES = pytest.mark.parametrize("mode", ["api", "web"])


@pytest.mark.behaviour("readers:fronts:slow")
@MODES
async def test_a_reader_that_stops_reading_holds_up_nobody_and_gets_everything_later(served: Served, mode: str) -> None:
    model = Held([Reply(f"{PIECE} " * MANY)])
    async with front(served, mode, model) as way:
        session = await served.client.start_session(way.agent)
        reader, writer = await way.open(session.id, narrow=True)
        await way.begin(session.id)
        model.open()
        async for _ in session.until_rest():
            pass
        assert session.state == "ended"
        assert judged(await whole(reader)) == [f"{PIECE} "] * MANY
        writer.close()


@pytest.mark.behaviour("readers:fronts:many")
@MODES
async def test_many_readers_each_get_everything(served: Served, mode: str) -> None:
    model = Held([Reply(LONG)]) if mode == "web" else says(LONG)
    async with front(served, mode, model) as way, AsyncExitStack() as stack:
        sessions = [(await served.client.start_session(way.agent)).id for _ in range(1 if mode == "web" else READERS)]
        opened = await asyncio.gather(*(way.open(sessions[n % len(sessions)]) for n in range(READERS)))
        for _, writer in opened:
            stack.callback(writer.close)
        await way.begin(sessions[0])
        if isinstance(model, Held):
            model.open()
        bodies = await asyncio.gather(*(whole(reader) for reader, _ in opened))
    assert {"".join(judged(body)) for body in bodies} == {LONG}


@pytest.mark.behaviour("readers:fronts:vanish")
@MODES
async def test_readers_that_vanish_leave_nothing_behind(
    served: Served, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = Held([Reply(LONG)])
    async with front(served, mode, model) as way:
        session = await served.client.start_session(way.agent)
        opened = await asyncio.gather(*(way.open(session.id) for _ in range(20)))
        await way.begin(session.id)
        model.let(3)
        await opened[0][0].readuntil(b"word2")
        for _, writer in opened:
            writer.transport.abort()
        await way.exchanges.until(0)
        await served.exchanges.until(0)
        model.open()
        async for _ in session.until_rest():
            pass
        assert session.state == "ended"
    assert not served.process.feed.reading.is_set()
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


HOSTILE = "a\r\nb\rc\n\nd\u2028e\u0085f \x00 ünï 🎉 data: x\n\n: y\nid: 7"


class Crumbs(httpx.AsyncBaseTransport):
    """A network that passes on one byte at a time."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self._inner.handle_async_request(request)
        assert isinstance(response.stream, httpx.AsyncByteStream)
        return httpx.Response(response.status_code, headers=response.headers, stream=_Crumbs(response.stream))

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Crumbs(httpx.AsyncByteStream):
    def __init__(self, stream: httpx.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            for byte in chunk:
                yield bytes((byte,))

    async def aclose(self) -> None:
        await self._stream.aclose()


@pytest.mark.behaviour("readers:fronts:bytes")
async def test_the_page_passes_on_every_byte_and_no_proxy_keeps_them(served: Served) -> None:
    agent = await served.agent(says(HOSTILE))
    session = await served.client.start_session(agent)
    async for _ in session.send("Hello"):
        pass
    path = f"/api/sessions/{session.id}/events"
    async with (
        FluxClient(served.url, transport=Crumbs(served.transport())) as client,
        listening(create_page(client, agent)) as url,
        httpx.AsyncClient(base_url=url, trust_env=False) as http,
        httpx_sse.aconnect_sse(http, "GET", path) as source,
    ):
        async for event in source.aiter_sse():
            if event.event == "chat_response":
                break
        headers = source.response.headers
    assert json.loads(event.data)["content"] == HOSTILE
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert headers["cache-control"] == "no-cache, no-transform"
    assert headers["x-accel-buffering"] == "no"
