"""What the client makes of answers, also of those that no Flux server gave."""

import json

import httpx
import pytest

from flux.client import FluxClient
from flux.errors import FluxError, ServerUnreachable, Unavailable, error_tree


def client_of(status: int, content: bytes) -> FluxClient:
    """A client whose server always answers this."""
    return FluxClient(
        "http://flux", "tok", transport=httpx.MockTransport(lambda _: httpx.Response(status, content=content))
    )


def envelope(type: str, **details: object) -> bytes:
    return json.dumps({"error": {"type": type, "message": "m", "details": details}}).encode()


@pytest.mark.behaviour("client:errors:typed")
@pytest.mark.parametrize("name", sorted(error_tree()))
async def test_every_error_keeps_its_class_message_and_details(name: str) -> None:
    async with client_of(400, envelope(name, limit=3)) as client:
        with pytest.raises(FluxError, match=r"^m$") as caught:
            await client.get("/")
    assert type(caught.value) is error_tree()[name]
    assert caught.value.details == {"limit": 3}


@pytest.mark.behaviour("client:errors:foreign")
@pytest.mark.parametrize(
    ("status", "content", "cls"),
    [
        (400, envelope("of_tomorrow"), FluxError),
        (409, envelope("session_ended", message="x"), FluxError),
        (418, b"teapot", FluxError),
        (500, b"\xff", FluxError),
        (500, b"[]", FluxError),
        (500, b'{"error": "x"}', FluxError),
        (502, b"<html>Bad Gateway</html>", Unavailable),
        (503, b"", Unavailable),
        (504, b"{}", Unavailable),
    ],
)
async def test_an_answer_of_something_else_is_still_an_error(status: int, content: bytes, cls: type) -> None:
    async with client_of(status, content) as client:
        with pytest.raises(FluxError) as caught:
            await client.post("/sessions", {})
    assert type(caught.value) is cls


@pytest.mark.behaviour("client:errors:newer")
async def test_an_error_of_a_newer_server_keeps_its_type() -> None:
    async with client_of(423, envelope("of_tomorrow", until=3)) as client:
        with pytest.raises(FluxError) as caught:
            await client.get("/")
    assert (caught.value.type, caught.value.status, caught.value.details) == ("of_tomorrow", 423, {"until": 3})
    assert FluxError.type == "internal"


@pytest.mark.behaviour("client:errors:foreign")
@pytest.mark.parametrize("content", [b"<html>hello</html>", b"[]", b"\xff"])
async def test_a_page_in_place_of_an_answer_is_an_error(content: bytes) -> None:
    async with client_of(200, content) as client:
        with pytest.raises(FluxError, match="is there one at http://flux"):
            await client.get("/health")


@pytest.mark.behaviour("client:token:sent")
async def test_the_token_goes_with_every_request() -> None:
    seen: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("authorization"))
        return httpx.Response(204)

    for token in ("tok", None):
        async with FluxClient("http://flux", token, transport=httpx.MockTransport(answer)) as client:
            assert await client.post("/sessions/x/stop") == {}
    assert seen == ["Bearer tok", None]


@pytest.mark.behaviour("client:reconnect:gives-up")
async def test_a_server_that_stays_away_is_told_after_some_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = 0

    def refuse(request: httpx.Request) -> httpx.Response:
        nonlocal attempts
        attempts += 1
        if attempts % 2:
            return httpx.Response(503, content=envelope("database_locked"))
        raise httpx.ConnectError("refused")

    monkeypatch.setattr("flux.client.reader.RECONNECT", (0.0,) * 7)
    async with FluxClient("http://flux", transport=httpx.MockTransport(refuse)) as client:
        with pytest.raises(ServerUnreachable, match="the connection to the server was lost; the work goes on there"):
            await anext(client.session("x").events())
    assert attempts == 8


@pytest.mark.behaviour("client:errors:unreachable")
async def test_sending_without_a_server_fails_at_once() -> None:
    attempts = 0

    def refuse(request: httpx.Request) -> httpx.Response:
        nonlocal attempts
        attempts += 1
        raise httpx.ConnectError("refused")

    async with FluxClient("http://flux", transport=httpx.MockTransport(refuse)) as client:
        with pytest.raises(ServerUnreachable, match="no Flux server answers at http://flux; start one with"):
            await anext(client.session("x").send("Hello"))
    assert attempts == 1
