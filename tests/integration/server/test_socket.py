"""Prompts to an instance over one WebSocket."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from flux.models.scripted import Call, Reply, ScriptedModel
from tests.integration.server.models import Held, says
from tests.integration.server.serving import Served, serving
from tests.integration.server.test_instances import project
from tests.integration.server.test_sessions import call


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(tmp_path, in_process=False, project=project(tmp_path)) as served:
        yield served


def talking(served: Served, id: str = "t-1", **options: Any) -> connect:
    return connect(f"{served.url.replace('http', 'ws', 1)}/agents/support/{id}", proxy=None, **options)


async def hear(socket: ClientConnection, *last: str) -> list[dict[str, Any]]:
    """Frames up to and with one of these types."""
    heard: list[dict[str, Any]] = []
    async with asyncio.timeout(20):
        while not heard or heard[-1]["type"] not in last:
            heard.append(json.loads(await socket.recv()))
    return heard


async def ask(socket: ClientConnection, text: str, **more: Any) -> None:
    await socket.send(json.dumps({"type": "prompt", "message": text, **more}))


@pytest.mark.behaviour("instances:socket:prompt")
async def test_several_prompts_go_over_one_connection(shop: Served) -> None:
    shop.models["support"] = ScriptedModel([Reply("", calls=(Call("ticket", {}),)), Reply("one two"), Reply("three")])
    async with talking(shop) as socket:
        assert await hear(socket, "ready") == [{"type": "ready", "agent": "support", "id": "t-1"}]
        await ask(socket, "hello", request_id="a")
        started, *events, result = await hear(socket, "result")
        assert (started["type"], started["request_id"], result["request_id"]) == ("started", "a", "a")
        assert {event["type"] for event in events} == {"event"}
        assert result["result"]["text"] == "one two"
        kinds = [event["event"]["type"] for event in events]
        assert kinds[:3] == ["tool_start", "tool_end", "delta"]
        await ask(socket, "again")
        assert (await hear(socket, "result"))[-1]["result"]["text"] == "three"
    answer = await call(shop, "POST", "/agents/support/t-1", 200, {"message": "over HTTP"})
    assert answer["result"]["metadata"]["session_id"] == started["session_id"]


@pytest.mark.behaviour("instances:socket:frames")
@pytest.mark.parametrize(
    "frame",
    ["", "{", "[]", "null", '{"type": "promt"}', '{"type": "prompt"}', '{"type": "prompt", "message": 1}', b"\xff\x00",
     '{"type": "prompt", "message": "x", "extra": 1}', '{"type": "prompt", "message": " "}',
     '{"type": "abort", "request_id": "nobody"}'],
)  # fmt: skip
async def test_a_frame_that_cannot_be_used_is_answered_and_the_socket_lives(shop: Served, frame: str | bytes) -> None:
    shop.models["support"] = says("fine")
    async with talking(shop) as socket:
        await socket.send(frame)
        error = (await hear(socket, "error"))[-1]["error"]
        assert error["type"] == "invalid_input"
        await socket.send('{"type": "ping", "request_id": "p"}')
        assert (await hear(socket, "pong"))[-1] == {"type": "pong", "request_id": "p"}
        await ask(socket, "hello")
        assert (await hear(socket, "result"))[-1]["result"]["text"] == "fine"


@pytest.mark.behaviour("instances:socket:frames")
async def test_a_frame_that_is_too_large_ends_the_connection_and_nothing_else(shop: Served) -> None:
    shop.models["support"] = says("fine")
    async with talking(shop) as socket:
        await ask(socket, "x" * 20_000)
        with pytest.raises(ConnectionClosed):
            await hear(socket, "result")
    assert (await call(shop, "POST", "/agents/support/t-1", 200, {"message": "hello"}))["result"]["text"] == "fine"


@pytest.mark.behaviour("instances:socket:abort")
async def test_an_abort_stops_the_run_and_a_busy_session_refuses(shop: Served) -> None:
    model = shop.models["support"] = Held([Reply("slow"), Reply("next")])
    async with talking(shop) as socket:
        await ask(socket, "hello", request_id="a")
        await asyncio.wait_for(model.asked.wait(), 20)
        await ask(socket, "too soon", request_id="b")
        busy = (await hear(socket, "error"))[-1]
        assert (busy["request_id"], busy["error"]["type"]) == ("b", "session_busy")
        await socket.send('{"type": "abort", "request_id": "a"}')
        stopped = (await hear(socket, "error"))[-1]
        assert (stopped["request_id"], stopped["error"]["type"]) == ("a", "aborted")
        model.open()
        await ask(socket, "again")
        assert (await hear(socket, "result"))[-1]["result"]["text"]


@pytest.mark.behaviour("instances:socket:left")
async def test_what_is_under_way_goes_on_when_the_client_leaves(shop: Served) -> None:
    model = shop.models["support"] = Held([Reply("done meanwhile")])
    async with talking(shop) as socket:
        await ask(socket, "hello")
        session = (await hear(socket, "started"))[-1]["session_id"]
        await asyncio.wait_for(model.asked.wait(), 20)
    model.open()
    handle = shop.client.session(session, "0")
    async for event in handle.events():
        if getattr(event.event, "content", None) == "done meanwhile":
            return
    raise AssertionError("it never ended")


@pytest.mark.behaviour("instances:socket:refused")
async def test_who_may_not_is_told_why(shop: Served) -> None:
    async with talking(shop, "theirs") as socket:
        assert "may not use" in (await hear(socket, "error"))[-1]["error"]["message"]
    for refused in (talking(shop, "a%2Fb"), talking(shop, origin="https://evil.example")):
        with pytest.raises(InvalidStatus):
            await refused
