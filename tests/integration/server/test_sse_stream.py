"""The stream itself: what it looks like on the wire, when it ends, and that it goes when its reader goes."""

import asyncio
import socket
from contextlib import AsyncExitStack, aclosing
from urllib.parse import urlsplit

import httpx_sse
import pytest

from flux.client import FluxClient
from flux.client.sse import Parser, ServerEvent
from flux.client.transport import InProcessTransport
from flux.messages import ModelFailure
from flux.models.scripted import Reply, ScriptedModel
from flux.server.app import create_app, end_streams
from tests.integration.server.models import LONG, Held, asks, says
from tests.integration.server.serving import Served, listening
from tests.integration.server.streams import ACCEPT, body, frames, history, is_delta, nth, read

MANY = 5000
PIECE = "x" * 1000


async def answered(served: Served, text: str) -> str:
    """A session with one answer."""
    session = await served.client.start_session(await served.agent(says(text)), "Hello")
    await history(served.client, session.id)
    return session.id


@pytest.mark.behaviour("sse:stream:headers")
async def test_no_proxy_is_asked_to_keep_or_change_the_stream(served: Served) -> None:
    id = await answered(served, "hi")
    async with served.http.stream("GET", f"/sessions/{id}/events", headers=ACCEPT) as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert response.headers["cache-control"] == "no-cache, no-transform"
        assert response.headers["x-accel-buffering"] == "no"


@pytest.mark.behaviour("sse:stream:independent-parser")
async def test_an_independent_parser_reads_the_same_events(served: Served) -> None:
    text = "a\r\nb\rc\n\nd\u2028e\u0085f \x00 ünï 🎉 data: x\n\n: y\nid: 7"
    id = await answered(served, text)
    ours = await history(served.client, id)
    async with httpx_sse.aconnect_sse(served.http, "GET", f"/sessions/{id}/events") as source:
        theirs = []
        async for event in source.aiter_sse():
            theirs.append(ServerEvent(event.id, event.event, event.data))
            if event.event == "chat_response":
                break
    assert theirs == ours
    assert body(ours[-1])["content"] == text


@pytest.mark.behaviour("sse:stream:heartbeat")
async def test_an_idle_stream_sends_comments(served: Served) -> None:
    id = await answered(served, "hi")
    app = create_app(served.process, heartbeat=0.01)
    received = b""
    async with FluxClient("http://localhost", transport=InProcessTransport(app)) as client:
        chunks = client.stream(f"/sessions/{id}/events", ACCEPT)
        async with aclosing(chunks):
            async for chunk in chunks:
                received += chunk
                if received.count(b": ping\n\n") == 3:
                    break
    assert [event.type for event in Parser().feed(received)].count("chat_response") == 1


@pytest.mark.behaviour("sse:stream:disconnect")
async def test_a_reader_that_leaves_is_forgotten(served: Served) -> None:
    model = Held([Reply(LONG)])
    session = await served.client.start_session(await served.agent(model), "Hello")
    async with served.new_client() as client, AsyncExitStack() as stack:
        for _ in range(3):
            stream = await stack.enter_async_context(aclosing(frames(client, session.id)))
            await anext(stream)
        await served.exchanges.until(3)
        assert served.process.feed.reading.is_set()
    await served.exchanges.until(0)
    assert not served.process.feed.reading.is_set()
    model.open()
    assert [event.type for event in await history(served.client, session.id)][-1] == "chat_response"


@pytest.mark.behaviour("sse:stream:server-stops")
@pytest.mark.parametrize("over_socket", [False, True])
async def test_streams_end_in_good_order_when_the_server_stops(in_memory: Served, over_socket: bool) -> None:
    id = await answered(in_memory, "hi")
    app = create_app(in_memory.process)
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(listening(app)) if over_socket else "http://localhost"
        transport = None if over_socket else InProcessTransport(app)
        client = await stack.enter_async_context(FluxClient(url, transport=transport))
        streams = [await stack.enter_async_context(aclosing(frames(client, id))) for _ in range(3)]
        for stream in streams:
            await read(stream, nth("chat_response", 1))
        end_streams(app)
        assert [event for stream in streams async for event in stream] == []
    assert not in_memory.process.feed.reading.is_set()


async def run_of_post(served: Served, session: str, message: str) -> list[ServerEvent]:
    """The events that a POST answers with; the stream must end by itself."""
    parser = Parser()
    events = []
    path = f"/sessions/{session}/messages"
    async with served.http.stream("POST", path, headers=ACCEPT, json={"message": message}) as response:
        assert response.status_code == 200
        async for chunk in response.aiter_raw():
            events += parser.feed(chunk)
    return events


@pytest.mark.behaviour("sse:post:until-rest")
async def test_the_stream_of_a_message_ends_with_its_answer(served: Served) -> None:
    session = await served.client.start_session(await served.agent(says("one two", "three")))
    first = await run_of_post(served, session.id, "Hello")
    assert [event.type for event in first] == [
        "user_message", "run_started", "context", "token", "token", "assistant_message", "chat_response",
    ]  # fmt: skip
    second = await run_of_post(served, session.id, "Go on")
    assert body(second[-1])["content"] == "three"


@pytest.mark.behaviour("sse:post:until-rest")
async def test_the_stream_of_a_message_ends_with_a_question(served: Served) -> None:
    session = await served.client.start_session(await served.agent(asks("Why?"), tools=["ask_user"]))
    events = await run_of_post(served, session.id, "Hello")
    assert events[-1].type == "input_required"
    assert body(events[-1])["question"] == "Why?"


@pytest.mark.behaviour("sse:post:until-rest")
async def test_the_stream_of_a_message_ends_with_an_error(served: Served) -> None:
    model = ScriptedModel([ModelFailure("no such model", "unknown_model")])
    session = await served.client.start_session(await served.agent(model))
    events = await run_of_post(served, session.id, "Hello")
    assert events[-1].type == "error"
    assert "no such model" in body(events[-1])["message"]


@pytest.mark.behaviour("sse:post:until-rest")
@pytest.mark.parametrize(("way", "last"), [("cancel", "cancelled"), ("stop", "session_end")])
async def test_the_stream_of_a_message_ends_when_it_is_stopped(served: Served, way: str, last: str) -> None:
    model = Held([Reply(LONG)])
    session = await served.client.start_session(await served.agent(model))
    async with asyncio.TaskGroup() as tasks:
        stream = tasks.create_task(run_of_post(served, session.id, "Hello"))
        await model.asked.wait()
        await served.client.post(f"/sessions/{session.id}/{way}")
    assert stream.result()[-1].type in ("cancelled", last)


@pytest.mark.behaviour("sse:post:resumes")
async def test_the_stream_of_a_message_begins_where_its_reader_was(served: Served) -> None:
    session = await served.client.start_session(await served.agent(says("one", "two")))
    past = await run_of_post(served, session.id, "Hello")
    request = {"headers": ACCEPT | {"Last-Event-ID": past[1].id}, "json": {"message": "Go on"}}
    async with served.http.stream("POST", f"/sessions/{session.id}/messages", **request) as response:  # type: ignore[arg-type]
        events = Parser().feed(await response.aread())
    told = [event.data for event in events if not is_delta(event)]
    missed = [event.data for event in past[2:] if not is_delta(event)]
    assert told[: len(missed)] == missed
    (said,) = [body(event) for event in events if event.type == "user_message"]
    assert response.headers["flux-message"] == said["id"]
    assert (response.headers["flux-seq"], response.headers["flux-repeated"]) == (str(said["seq"]), "false")


@pytest.mark.behaviour("sse:post:where")
async def test_the_stream_of_a_message_says_where_it_begins_and_how_the_session_stood(served: Served) -> None:
    model = Held([Reply("one"), Reply("two")])
    session = await served.client.start_session(await served.agent(model))
    path, sent = f"/sessions/{session.id}/messages", {"headers": ACCEPT, "json": {"message": "Hello"}}
    async with served.http.stream("POST", path, **sent) as idle:  # type: ignore[arg-type]
        await model.asked.wait()
        async with served.http.stream("POST", path, **sent) as working:  # type: ignore[arg-type]
            model.open()
            first = Parser().feed(await working.aread())[0]
    assert (idle.headers["flux-state"], idle.headers["flux-after"]) == ("idle", "1.0.0")
    assert working.headers["flux-state"] in ("scheduled", "running")
    assert int(first.id.partition(".")[0]) in (after := int(working.headers["flux-after"].partition(".")[0]), after + 1)


@pytest.mark.behaviour("sessions:send:of-agent")
@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
async def test_a_message_may_say_whose_session_it_is_for(served: Served, accept: str) -> None:
    name, other = await served.agent(says("hi")), await served.agent(says("no"))
    session = await served.client.start_session(name)
    path, body = f"/sessions/{session.id}/messages", {"message": "Hello"}
    refused = await served.http.post(path, headers={"Accept": accept}, json={**body, "agent": other})
    assert (refused.status_code, refused.json()["error"]["type"]) == (404, "session_not_found")
    assert refused.json()["error"]["message"] == f"session {session.id} is not one of {other}"
    assert (await session.info())["head"] == 1
    assert (await served.http.post(path, headers={"Accept": accept}, json={**body, "agent": name})).is_success


@pytest.mark.behaviour("sse:post:until-rest")
async def test_a_message_that_is_refused_leaves_no_reader(served: Served) -> None:
    session = await served.client.start_session(await served.agent(says("hi")))
    await session.stop()
    path = f"/sessions/{session.id}/messages"
    assert (await served.http.post(path, headers=ACCEPT, json={"message": "Hello?"})).status_code == 409
    assert not served.process.feed.reading.is_set()


@pytest.mark.behaviour("sse:post:repeated-key")
async def test_a_repeated_key_attaches_to_the_run_it_began(served: Served) -> None:
    session = await served.client.start_session(await served.agent(says("one", "two")))
    headers = {**ACCEPT, "Idempotency-Key": f"key of {session.id}"}
    texts = []
    for _ in range(2):
        request = {"headers": headers, "json": {"message": "Hello"}}
        response = await served.http.post(f"/sessions/{session.id}/messages", **request)  # type: ignore[arg-type]
        texts.append([(event.type, body(event).get("content")) for event in Parser().feed(response.content)])
    assert texts[0][-1] == texts[1][-1] == ("chat_response", "one")
    assert (await session.info())["turns"] == 1


async def open_narrow(url: str, session: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection that takes next to nothing until it is read."""
    address = urlsplit(url)
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.setblocking(False)
    await asyncio.get_running_loop().sock_connect(raw, (address.hostname, address.port))
    reader, writer = await asyncio.open_connection(sock=raw, limit=1024)
    request = f"GET /sessions/{session}/events HTTP/1.0\r\nHost: {address.netloc}\r\nAccept: text/event-stream\r\n\r\n"
    writer.write(request.encode())
    return reader, writer


@pytest.mark.behaviour("sse:readers:slow")
async def test_a_reader_that_stops_reading_gets_everything_later(on_socket: Served) -> None:
    served = on_socket
    model = Held([Reply(f"{PIECE} " * MANY)])
    session = await served.client.start_session(await served.agent(model))
    reader, writer = await open_narrow(served.url, session.id)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    parser = Parser()
    seen: list[ServerEvent] = []
    model.open()
    events = [event async for event in session.send("Hello")]
    assert session.state == "ended"
    while not (seen and seen[-1].type == "chat_response"):
        seen += parser.feed(await reader.read(65536))
    writer.close()
    assert sum(map(is_delta, seen)) == MANY
    assert [event.id for event in seen] == [event.cursor for event in events]


@pytest.mark.behaviour("sse:readers:many")
async def test_two_hundred_readers_each_get_everything(served: Served) -> None:
    model = Held([Reply(LONG)])
    session = await served.client.start_session(await served.agent(model), "Hello")
    async with served.new_client() as client, AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(aclosing(frames(client, session.id))) for _ in range(200)]
        for stream in streams:
            await anext(stream)
        model.open()
        rests = await asyncio.gather(*(read(stream, nth("chat_response", 1)) for stream in streams))
    assert {"".join(body(e)["text"] for e in rest if is_delta(e)) for rest in rests} == {LONG}
    assert len({tuple((event.type, event.data) for event in rest) for rest in rests}) == 1
