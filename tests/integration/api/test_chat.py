"""/chat: a message, its run, and nothing but its run."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import httpx
import pytest

from flux.client import FluxClient
from flux.client.transport import InProcessTransport
from flux.models.scripted import Call, Reply, ScriptedModel
from flux.surfaces.api.app import create_api, end_streams
from tests.integration.api.calling import TOKEN, Api, Frame, api, kinds, one, text_of
from tests.integration.server.models import LONG, WORDS, Held, says
from tests.integration.server.serving import IN_PROCESS_URL, Served

SHELL = Call("shell", {"command": "echo one"})
TOOLS: dict[str, Any] = {"tools": ["system_tools"], "tool_approvals": {"shell": False}}


async def until(stream: object, kind: str) -> list[Frame]:
    """Frames up to and with the first of a type."""
    found: list[Frame] = []
    async for frame in stream:  # type: ignore[attr-defined]
        found.append(frame)
        if frame["type"] == kind:
            return found
    raise AssertionError(f"the stream ended after {[frame['type'] for frame in found]}")


@pytest.mark.behaviour("api:chat:starts")
async def test_a_message_starts_a_session_and_streams_its_run(served: Served) -> None:
    async with api(served, says(LONG)) as agent:
        frames = await agent.chat("hello")
        assert kinds(frames) == ["session_id", "token", "usage", "response"]
        assert [frame["text"] for frame in frames if frame["type"] == "token"] == list(WORDS)
        assert one(frames, "response").items() >= {"content": LONG, "turn": 1}.items()
        session = await served.client.session(frames[0]["id"]).info()
        assert (session["turns"], session["title"]) == (1, "hello")


@pytest.mark.behaviour("api:chat:wire")
async def test_frames_are_one_line_each_and_no_proxy_keeps_them(served: Served) -> None:
    text = "a\r\nb\rc\n\nd\u2028e\u0085f ünï 🎉 data: x\n\n: y\nid: 7"
    async with api(served, says(text)) as agent:
        response = await agent.http.post("/chat", json={"message": "hi"}, headers=TOKEN)
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert response.headers["cache-control"] == "no-cache, no-transform"
        assert response.headers["x-accel-buffering"] == "no"
        for block in response.content.removesuffix(b"\n\n").split(b"\n\n"):
            assert b"\n" not in block
            assert "type" in json.loads(block.removeprefix(b"data: "))
        again = await agent.chat("hi")
        assert text_of(again) == again[-1]["content"] == text


@pytest.mark.behaviour("api:chat:continues")
async def test_a_session_goes_on(served: Served) -> None:
    async with api(served, says("one", "two")) as agent:
        id = (await agent.chat("first"))[0]["id"]
        frames = await agent.chat("second", id)
        assert kinds(frames) == ["session_id", "token", "usage", "response"]
        assert (frames[0]["id"], frames[-1]["content"], frames[-1]["turn"]) == (id, "two", 2)


@pytest.mark.behaviour("api:chat:tools")
async def test_tools_are_told_with_arguments_output_and_their_true_outcome(served: Served) -> None:
    calls = (SHELL, Call("read_file", {"path": "nowhere.txt"}))
    async with api(served, ScriptedModel([Reply("Look. ", calls), Reply("Seen.")]), **TOOLS) as agent:
        frames = await agent.chat("look")
    starts = {frame["name"]: frame for frame in frames if frame["type"] == "tool_start"}
    ends = {frame["name"]: frame for frame in frames if frame["type"] == "tool_done"}
    assert starts["shell"]["args"] == {"command": "echo one"}
    assert starts["shell"]["id"] == ends["shell"]["id"] == one(frames, "tool_output")["id"]
    assert one(frames, "tool_output")["text"] == "one\n"
    assert (ends["shell"]["status"], ends["shell"]["outcome"]) == ("success", "success")
    assert (ends["read_file"]["status"], ends["read_file"]["outcome"]) == ("error", "error")


@pytest.mark.behaviour("api:chat:own-run")
async def test_of_a_run_in_front_of_it_a_message_sees_nothing(served: Served) -> None:
    model = Held([Reply("first answer"), Reply("second answer")])
    async with api(served, model) as agent, aclosing(agent.stream("/chat", {"message": "first"})) as first:
        model.let(1)
        begun = await until(first, "token")
        async with aclosing(agent.stream(f"/chat?session={begun[0]['id']}", {"message": "second"})) as second:
            assert (await anext(second))["type"] == "session_id"
            model.open()
            frames = [frame async for frame in second]
        assert text_of(frames) == frames[-1]["content"] == "second answer"
        rest = [frame async for frame in first]
        assert rest[-1]["content"] == "first answer"


@pytest.mark.behaviour("api:chat:idempotent")
async def test_the_same_key_attaches_to_the_run_and_starts_none(served: Served) -> None:
    model = says(LONG)
    key = uuid.uuid4().hex
    async with api(served, model) as agent:
        first = await agent.chat("hello", idempotency_key=key)
        again = await agent.chat("hello", idempotency_key=key)
        assert again[0] == first[0]
        assert text_of(again) == LONG
        assert again[-1] == first[-1]
        later = await agent.chat("more", first[0]["id"], idempotency_key=key + "2")
        attached = await agent.chat("more", first[0]["id"], idempotency_key=key + "2")
        assert attached[-1] == later[-1]
        assert await agent.refused(409, "/chat", {"message": "other"}, idempotency_key=key)
    assert len(model.requests) == 2


@pytest.mark.behaviour("api:chat:idempotent")
async def test_who_lost_the_stream_gets_the_whole_run_again(served: Served) -> None:
    model = Held([Reply(LONG)])
    key = uuid.uuid4().hex
    async with api(served, model) as agent:
        model.let(20)
        async with aclosing(agent.stream("/chat", {"message": "hello"}, idempotency_key=key)) as stream:
            await until(stream, "token")
        await served.exchanges.until(0)
        model.open()
        frames = await agent.chat("hello", idempotency_key=key)
    assert text_of(frames) == frames[-1]["content"] == LONG
    assert len(model.requests) == 1


@pytest.mark.behaviour("api:chat:cancelled")
async def test_a_cancelled_run_and_a_stopped_session_are_told(served: Served) -> None:
    model = Held([Reply(LONG)])
    async with api(served, model) as agent:
        async with aclosing(agent.stream("/chat", {"message": "hello"})) as stream:
            model.let(3)
            id = (await until(stream, "token"))[0]["id"]
            await served.client.session(id).cancel()
            rest = [frame async for frame in stream]
        assert rest[-1]["type"] == "error"
        assert "cancelled" in rest[-1]["message"]
        model.open()
        assert (await agent.chat("again", id))[-1]["type"] == "response"
        await served.client.session(id).stop()
        assert "ended" in await agent.refused(409, f"/chat?session={id}", {"message": "more"})


@pytest.mark.behaviour("api:chat:failed")
async def test_a_failed_run_ends_with_an_error(served: Served) -> None:
    async with api(served, Held([Reply("never")], breaks=dict.fromkeys(range(9), 0))) as agent:
        frames = await agent.chat("hello")
    assert frames[-1]["type"] == "error"
    assert "the line broke" in frames[-1]["message"]


@pytest.mark.behaviour("api:chat:vanished")
async def test_of_a_client_that_vanishes_no_reader_stays_and_the_run_goes_on(served: Served) -> None:
    model = Held([Reply(LONG)])
    async with api(served, model) as agent:
        async with aclosing(agent.stream("/chat", {"message": "hello"})) as stream:
            model.let(3)
            id = (await until(stream, "token"))[0]["id"]
            assert served.exchanges.open == 1
        await served.exchanges.until(0)
        model.open()
        async with aclosing(served.client.session(id, "0").until_rest()) as events:
            ended = [event async for event in events]
        assert ended[-1].event.content == LONG  # type: ignore[union-attr]


@pytest.mark.behaviour("api:chat:idle")
async def test_a_quiet_stream_sends_comments_and_a_stopping_process_says_so(served: Served) -> None:
    model = Held([Reply(LONG)])
    async with api(served, model, heartbeat=0.01) as agent:
        body = {"message": "hello"}
        received = b""
        async with agent.http.stream("POST", "/chat", json=body, headers=TOKEN) as response:
            async for chunk in response.aiter_raw():
                received += chunk
                if received.count(b": ping\n\n") == 3:
                    end_streams(agent.app)
        last = json.loads(received.strip().split(b"\n\n")[-1].removeprefix(b"data: "))
        assert (last["type"], last["retryable"]) == ("error", True)
        assert "stopping" in last["message"]
        model.open()
    await served.exchanges.until(0)


class Forgetful(httpx.AsyncBaseTransport):
    """Loses the answers to the first POST on each path, and all answers while `away`."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self.posted: list[str] = []
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self._inner.handle_async_request(request)
        if request.method == "POST":
            self.posted.append(request.url.path)
            if self.posted.count(request.url.path) == 1:
                await response.aread()
                raise httpx.ReadError("the line broke")
        return response


@pytest.mark.behaviour("api:chat:retried")
async def test_an_upstream_call_that_is_made_again_doubles_nothing(served: Served) -> None:
    model = says("once", "twice")
    name = await served.agent(model)
    transport = Forgetful(served.transport())
    async with FluxClient(IN_PROCESS_URL, transport=transport) as client:
        app = create_api(client, name)
        async with httpx.AsyncClient(base_url=IN_PROCESS_URL, transport=InProcessTransport(app)) as http:
            frames = await Api(app, http).chat("hello")
    assert len(transport.posted) == 4
    assert (text_of(frames), frames[-1]["turn"]) == ("once", 1)
    said = [row for row in await served.client.messages(frames[0]["id"]) if row["role"] == "user"]
    assert len(said) == len(model.requests) == 1


class Counting(httpx.AsyncBaseTransport):
    """Notes what is asked of the server."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self.asked: list[str] = []
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(f"{request.method} {request.url.path}")
        return await self._inner.handle_async_request(request)


@pytest.mark.behaviour("api:chat:one-request")
async def test_a_turn_of_a_resting_session_is_one_request_to_the_server(served: Served) -> None:
    name, other = await served.agent(says("one", "two")), await served.agent(says("no"))
    transport = Counting(served.transport())
    async with FluxClient(IN_PROCESS_URL, transport=transport) as client:
        app = create_api(client, name)
        async with httpx.AsyncClient(base_url=IN_PROCESS_URL, transport=InProcessTransport(app)) as http:
            agent = Api(app, http)
            id = (await agent.chat("hello"))[0]["id"]
            transport.asked.clear()
            assert (await agent.chat("again", id))[-1]["content"] == "two"
            assert transport.asked == [f"POST /sessions/{id}/messages"]
            session = await served.client.start_session(other)
            assert name in await agent.refused(404, f"/chat?session={session.id}", {"message": "hello"})
    assert (await session.info())["head"] == 1


class Crumbled(httpx.AsyncByteStream):
    """A stream byte by byte, with the line ends of another system."""

    def __init__(self, inner: httpx.AsyncByteStream) -> None:
        self._inner = inner

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._inner:
            for byte in chunk.replace(b"\n", b"\r\n"):
                yield bytes([byte])

    async def aclose(self) -> None:
        await self._inner.aclose()


class Crumbling(httpx.AsyncBaseTransport):
    """Brings streams as `Crumbled`."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self._inner.handle_async_request(request)
        if "event-stream" in response.headers["content-type"]:
            assert isinstance(response.stream, httpx.AsyncByteStream)
            response.stream = Crumbled(response.stream)
        return response


@pytest.mark.behaviour("api:chat:wire")
async def test_however_the_bytes_of_the_server_come_the_text_is_whole(served: Served) -> None:
    text = "für 🎉 \r\n data: x\n\nid: 9\n" * 20
    name = await served.agent(says(text))
    async with FluxClient(IN_PROCESS_URL, transport=Crumbling(served.transport())) as client:
        app = create_api(client, name)
        async with httpx.AsyncClient(base_url=IN_PROCESS_URL, transport=InProcessTransport(app)) as http:
            frames = await Api(app, http).chat("hello")
    assert text_of(frames) == frames[-1]["content"] == text


NAP = '''
from flux import task
from flux.tasks import sleep

@task.with_options(effect="idempotent")
async def nap() -> str:
    """Sleep a little."""
    await sleep(0.2)
    return "slept"
'''


@pytest.mark.behaviour("api:chat:sleeps")
async def test_a_tool_that_sleeps_does_not_end_the_stream(served: Served) -> None:
    model = ScriptedModel([Reply("A nap. ", (Call("nap"),)), Reply("Rested.")])
    async with api(served, model, tools_file={"name": "nap.py", "source": NAP}) as agent:
        frames = await agent.chat("nap")
    assert one(frames, "tool_done")["outcome"] == "success"
    assert frames[-1]["content"] == "Rested."


@pytest.mark.behaviour("api:several:alternate")
async def test_several_processes_share_nothing(served: Served) -> None:
    name = await served.agent(ScriptedModel([Reply("Look. ", (SHELL,)), Reply("Seen.")]), tools=["system_tools"])
    async with served.new_client() as one_client, served.new_client() as other_client:
        ways = [create_api(one_client, name), create_api(other_client, name)]
        agents = [
            Api(app, httpx.AsyncClient(base_url=IN_PROCESS_URL, transport=InProcessTransport(app))) for app in ways
        ]
        asked = await agents[0].chat("look")
        id, question = asked[0]["id"], asked[-1]["id"]
        told = await agents[1].post(f"/approval/{question}?session={id}", {"approved": True})
        assert one(told, "tool_start")["args"] == {"command": "echo one"}
        assert told[-1]["turn"] == 1
        assert (await agents[0].chat("more", id))[-1]["turn"] == 2
        await asyncio.gather(*(agent.http.aclose() for agent in agents))


@pytest.mark.behaviour("api:chat:modes")
async def test_a_message_that_steers_is_told_with_the_rest_of_its_run(served: Served) -> None:
    model = Held([Reply("Look.", (SHELL,)), Reply("both"), Reply("next")])
    async with api(served, model, **TOOLS) as agent:
        async with aclosing(agent.stream("/chat", {"message": "go"})) as first:
            id = (await anext(first))["id"]
            await model.asked.wait()
            path = f"/chat?session={id}"
            assert "working" in await agent.refused(409, path, {"message": "now", "mode": "reject"})
            async with aclosing(agent.stream(path, {"message": "mind this", "mode": "steer"})) as second:
                assert await anext(second) == {"type": "session_id", "id": id}
                model.open()
                frames = [frame async for frame in second]
            assert [frame async for frame in first][-1]["content"] == "both"
        assert frames[-1]["content"] == "both"
        assert "tool_done" in kinds(frames)


@pytest.mark.behaviour("api:chat:modes")
async def test_a_message_that_interrupts_is_told_from_its_own_run(served: Served) -> None:
    model = Held(lambda request: Reply("instead" if "no" in str(request.messages[-1]) else LONG))
    async with api(served, model) as agent, aclosing(agent.stream("/chat", {"message": "go"})) as first:
        id = (await anext(first))["id"]
        await model.asked.wait()
        async with aclosing(agent.stream(f"/chat?session={id}", {"message": "no", "mode": "interrupt"})) as second:
            assert (await anext(second))["type"] == "session_id"
            rest = [frame async for frame in first]
            model.open()
            frames = [frame async for frame in second]
        assert rest[-1]["type"] != "response"
        assert (frames[-1]["type"], frames[-1]["content"]) == ("response", "instead")
