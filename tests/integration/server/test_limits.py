"""Limits of a server: what is too much is refused with 429 and the time to come again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from flux.client.transport import InProcessTransport
from flux.engine.dispatching import limits
from flux.errors import TooManyRequests
from flux.http.bounded import bounded
from flux.server.app import create_app
from flux.server.limits import ServerLimits
from flux.settings import Settings
from flux.store.database import Scope, one
from flux.surfaces.cli.start import listen, until_stopped
from flux.testing import Reply, ScriptedModel
from tests.integration.agents.world import World, opened
from tests.integration.server.test_errors import error_of


@asynccontextmanager
async def limited(home: Path, script: Any = None, **settings: Any) -> AsyncIterator[tuple[World, httpx.AsyncClient]]:
    async with opened(home, **settings) as world:
        await world.agent(script or (lambda request: Reply("ok")))
        transport = InProcessTransport(create_app(world.process))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            yield world, http


@pytest.fixture
def held() -> ScriptedModel:
    return ScriptedModel([Reply("ok")], delay=3600.0)


@pytest.mark.behaviour("limits:requests:rate")
async def test_a_principal_sends_no_more_requests_than_its_rate(tmp_path: Path) -> None:
    async with limited(tmp_path, max_requests_per_second=2.0) as (_, http):
        answers = [await http.get("/agents") for _ in range(6)]
        assert [answer.status_code for answer in answers[:4]] == [200] * 4
        error = error_of(answers[-1], 429)
        assert (error["type"], answers[-1].headers["retry-after"]) == ("too_many_requests", "1")
        assert 0 < error["details"]["retry_after"] <= 0.5
        assert (await http.get("/health")).status_code == 200


@pytest.mark.behaviour("limits:requests:rate")
def test_one_principal_does_not_use_up_the_rate_of_another(tmp_path: Path) -> None:
    counts = ServerLimits(Settings(home=tmp_path, max_requests_per_second=1.0))
    ann, bob = Scope("acme", "ann"), Scope("acme", "bob")
    for _ in range(2):
        counts.count(ann)
    with pytest.raises(TooManyRequests, match="1 requests a second"):
        counts.count(ann)
    counts.count(bob)


@pytest.mark.behaviour("limits:readers:counted")
async def test_readers_are_counted_and_their_places_are_free_when_they_leave(tmp_path: Path) -> None:
    async with limited(tmp_path, max_readers_per_principal=1) as (world, http):
        id = await world.start()
        events = f"/sessions/{id}/events"
        sse = {"Accept": "text/event-stream"}
        for _ in range(2):
            async with http.stream("GET", events, headers=sse) as first:
                assert first.status_code == 200
                await anext(first.aiter_raw())
                error = error_of(await http.get(events, headers=sse), 429)
                assert "you read 1 streams already" in error["message"]
            await asyncio.sleep(0)


@pytest.mark.behaviour("limits:queue:session")
async def test_a_session_holds_so_many_waiting_messages_and_goes_on_when_some_are_answered(
    tmp_path: Path, held: ScriptedModel
) -> None:
    async with limited(tmp_path, held, max_queued_messages=3) as (world, http):

        async def taken() -> bool:
            return await world.process.database.read(one("select queued from executions")) == [(0,)]

        id = await world.start("one")
        await world.until(taken)
        answers = [await http.post(f"/sessions/{id}/messages", json={"message": f"m{n}"}) for n in range(5)]
        assert [answer.status_code for answer in answers] == [202, 202, 202, 429, 429]
        refused = answers[-1]
        assert "messages wait in this session already" in error_of(refused, 429)["message"]
        held._delay = 0.0
        await world.cancel()
        await world.rest("idle")
        assert (await http.post(f"/sessions/{id}/messages", json={"message": "again"})).status_code == 202
        await world.rest("idle")
        assert await taken()


@pytest.mark.behaviour("limits:runs:principal")
async def test_a_principal_has_no_more_runs_under_way_than_allowed(tmp_path: Path, held: ScriptedModel) -> None:
    async with limited(tmp_path, held, max_runs=2) as (world, http):
        for _ in range(2):
            assert (await http.post("/sessions", json={"agent": "agent", "message": "go"})).status_code == 201
        refused = await http.post("/sessions", json={"agent": "agent", "message": "go"})
        assert "you have 2 runs under way" in error_of(refused, 429)["message"]
        found = await world.process.database.read(one("select count(*) from executions"))
        assert found == [(2,)]


@pytest.mark.behaviour("limits:queue:server")
async def test_a_full_server_takes_nothing_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LOOK_SECONDS", 0.0)
    async with limited(tmp_path, max_queued_runs=2) as (world, http):
        world.process.recovery.draining.set()
        await world.process.drained.wait()
        start = {"agent": "agent", "message": "go"}
        answers = [await http.post("/sessions", json=start) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [201, 201, 429]
        assert answers[-1].headers["retry-after"] == "5"
        assert (await http.get("/sessions")).status_code == 200


@pytest.mark.behaviour("limits:headers:bounded")
async def test_headers_are_bounded(tmp_path: Path) -> None:
    async with limited(tmp_path, max_header_bytes=2_000) as (_, http):
        error = error_of(await http.get("/health", headers={"X-Large": "x" * 3_000}), 431)
        assert error["type"] == "headers_too_large"
        assert (await http.get("/health?" + "x" * 3_000)).status_code == 431
        assert (await http.get("/health", headers={"X-Large": "x" * 1_000})).status_code == 200


@pytest.mark.behaviour("limits:headers:bounded")
async def test_a_head_that_never_ends_is_cut_off(tmp_path: Path) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    with listen("127.0.0.1", 0) as listener:
        config = uvicorn.Config(app, http=bounded(2_000), log_level="critical", lifespan="off")
        serving = asyncio.create_task(until_stopped(config, listener, lambda: None))
        reader, writer = await asyncio.open_connection(*listener.getsockname()[:2])
        for _ in range(2):  # both on one connection
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX-Large: " + b"x" * 1_500 + b"\r\n\r\n")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")
        async with asyncio.timeout(20):
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await endless(reader, writer)
        writer.close()
        serving.cancel()
        await asyncio.wait((serving,))


async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send a head without an end."""
    writer.write(b"GET / HTTP/1.1\r\n")
    for _ in range(10_000):
        writer.write(b"X-Large: " + b"x" * 100 + b"\r\n")
        await writer.drain()
    await reader.readexactly(1)
