"""The transport that calls an application in this process."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from flux.client.transport import ASGIApp, InProcessTransport


def client_of(app: ASGIApp) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url="http://localhost:8000", transport=InProcessTransport(app))


async def start(send: Any, status: int = 200) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"x-a", b"1"), (b"x-a", b"2")]})


@pytest.mark.behaviour("client:in-process:streams")
async def test_a_piece_is_there_before_the_next_is_sent() -> None:
    go_on = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await start(send)
        for piece in (b"one", b"", b"two"):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            await go_on.wait()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async with client_of(app) as client, client.stream("GET", "/") as response:
        pieces = response.aiter_raw()
        assert await anext(pieces) == b"one"
        go_on.set()
        assert [piece async for piece in pieces] == [b"two"]
        assert response.headers.get_list("x-a") == ["1", "2"]


@pytest.mark.behaviour("client:in-process:requests")
async def test_the_application_sees_the_request() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.extend([scope, await receive()])
        await start(send, 204)
        await send({"type": "http.response.body"})

    async def body() -> AsyncIterator[bytes]:
        yield b"one "
        yield b"two"

    async with client_of(app) as client:
        response = await client.post("/a%20b%2F/ü?q=%C3%BC&r=1", content=body(), headers={"X-Test": "yes"})
    scope, received = seen
    assert response.status_code == 204
    assert received == {"type": "http.request", "body": b"one two", "more_body": False}
    assert (scope["method"], scope["path"], scope["query_string"]) == ("POST", "/a b//ü", b"q=%C3%BC&r=1")
    assert scope["raw_path"] == b"/a%20b%2F/%C3%BC"
    assert {(b"x-test", b"yes"), (b"host", b"localhost:8000")} <= set(scope["headers"])


@pytest.mark.behaviour("client:in-process:disconnect")
async def test_leaving_tells_the_application() -> None:
    heard: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await start(send)
        heard.append((await receive())["type"])

    async with client_of(app) as client, client.stream("GET", "/") as response:
        assert response.status_code == 200
    assert heard == ["http.disconnect"]


@pytest.mark.behaviour("client:in-process:failures")
async def test_a_failing_application_fails_the_request() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("broken")

    async with client_of(app) as client:
        with pytest.raises(RuntimeError, match="broken"):
            await client.get("/")


@pytest.mark.behaviour("client:in-process:failures")
async def test_an_application_that_fails_in_the_middle_breaks_the_stream() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await start(send)
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        raise RuntimeError("broken")

    async with client_of(app) as client, client.stream("GET", "/") as response:
        pieces = response.aiter_raw()
        assert await anext(pieces) == b"one"
        with pytest.raises(httpx.RemoteProtocolError):
            await anext(pieces)
