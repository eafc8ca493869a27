"""The client against a real server: conversations, questions, typed errors, and connections that break."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import aclosing

import httpx
import pytest

from flux.client import Event, FluxClient, SessionHandle
from flux.client.lanes import Lanes
from flux.errors import (
    AgentNotFound,
    DefinitionInvalid,
    Forbidden,
    IdempotencyMismatch,
    InterruptDecided,
    InvalidInput,
    NotFound,
    ServerUnreachable,
    SessionEnded,
    SessionExists,
    SessionNotFound,
    TooLarge,
)
from flux.events import ChatResponse, InputRequired, Token, ToolDone, UserSaid, type_of
from flux.models.scripted import Call, Reply, ScriptedModel
from tests.integration.server.models import LONG, WORDS, Held, asks, says
from tests.integration.server.serving import Served, serving


def text_of(events: list[Event]) -> str:
    return "".join(event.event.text for event in events if isinstance(event.event, Token))


def answer_of(events: list[Event]) -> str:
    last = events[-1].event
    assert isinstance(last, ChatResponse)
    return last.content


@pytest.mark.behaviour("client:send:one-run")
async def test_send_gives_the_events_of_one_run(served: Served) -> None:
    session = await served.client.start_session(await served.agent(says("one two", "three")))
    first = [event async for event in session.send("Hello")]
    assert (text_of(first), answer_of(first), session.state) == ("one two", "one two", "ended")
    second = [event async for event in session.send("More")]
    assert isinstance(second[0].event, UserSaid)
    assert answer_of(second) == "three"
    seqs = [event.seq for event in first + second if event.seq is not None]
    assert seqs == list(range(1, seqs[-1] + 1))
    assert session.cursor == second[-1].cursor


@pytest.mark.behaviour("client:send:one-run")
async def test_each_of_several_sent_messages_ends_with_its_own_answer(served: Served) -> None:
    model = Held([Reply("one"), Reply("two"), Reply("three")])
    id = (await served.client.start_session(await served.agent(model))).id

    async def said(handle: SessionHandle, text: str) -> str:
        return answer_of([event async for event in handle.send(text)])

    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(said(served.client.session(id), "1"))
        await model.asked.wait()
        second = tasks.create_task(said(served.client.session(id), "2"))
        model.open()
    assert (first.result(), second.result()) == ("one", "two")


@pytest.mark.behaviour("client:answer:questions")
async def test_two_questions_are_answered_one_by_one(served: Served) -> None:
    session = await served.client.start_session(await served.agent(asks("Who?", "Why?"), tools=["ask_user"]))
    events = [event async for event in session.send("Hello")]
    assert [e.event.question for e in events if isinstance(e.event, InputRequired)] == ["Who?", "Why?"]
    assert session.state == "waiting"
    who, why = await session.interrupts()
    await session.answer(who["id"], "answer", content="me")
    events = [event async for event in session.until_rest()]
    assert [e.event.content for e in events if isinstance(e.event, ToolDone)] == ["me"]
    assert session.state == "waiting"
    assert [asked["id"] for asked in await session.interrupts()] == [why["id"]]
    await session.answer(why["id"], "answer", content="because")
    events = [event async for event in session.until_rest()]
    assert (answer_of(events), session.state) == ("done", "ended")
    assert (await session.info())["state"] == "idle"


@pytest.mark.behaviour("client:answer:approvals")
async def test_an_approval_lets_a_tool_run_and_a_rejection_does_not(served: Served) -> None:
    calls = (Call("shell", {"command": "echo yes"}), Call("shell", {"command": "echo no"}))
    model = ScriptedModel([Reply("", calls), Reply("done")])
    agent = await served.agent(model, tools=["shell"], tool_approvals={"shell": True})
    session = await served.client.start_session(agent)
    assert [event async for event in session.send("Go")]
    decisions = {"echo yes": "approve", "echo no": "reject"}
    for asked in await session.interrupts():
        await session.answer(asked["id"], decisions[asked["payload"]["args"]["command"]], reason="I say so")
    events: list[Event] = []
    while session.state != "ended":
        events += [event async for event in session.until_rest()]
    done = [event.event for event in events if isinstance(event.event, ToolDone)]
    assert {(call.outcome, call.content.strip()) for call in done} == {
        ("success", "exit_code: 0\nstdout:\nyes\nstderr: (empty)"),
        ("denied", "[rejected by a person: I say so]"),
    }


@pytest.mark.behaviour("client:cancel:run")
async def test_a_cancelled_run_ends_and_the_next_message_is_answered(served: Served) -> None:
    model = Held([Reply(LONG), Reply("fine")])
    session = await served.client.start_session(await served.agent(model))
    events = []
    async for event in session.send("Hello"):
        events.append(event)
        if len(events) == 3:
            model.let(4)
        if isinstance(event.event, Token) and event.event.text == WORDS[3]:
            await session.cancel()
    assert type_of(events[-1].event) == "cancelled"
    assert text_of(events) == "".join(WORDS[:4])
    model.open()
    assert answer_of([event async for event in session.send("And now?")]) == "fine"


@pytest.mark.behaviour("client:errors:typed")
async def test_errors_come_as_the_classes_they_were(served: Served) -> None:
    client = served.client
    agent = await served.agent(asks("Why?"), tools=["ask_user"])
    session = await client.start_session(agent, instance=f"only {agent}")
    assert [event async for event in session.send("Hello")]
    (asked,) = await session.interrupts()
    await session.answer(asked["id"], "answer", content="x")
    await session.post("Hi", key=f"typed {agent}")
    wrong = {
        SessionNotFound: client.session("nobody").info(),
        AgentNotFound: client.start_session("nobody"),
        SessionExists: client.start_session(agent, instance=f"only {agent}"),
        InterruptDecided: session.answer(asked["id"], "answer", content="y"),
        IdempotencyMismatch: session.post("Ho", key=f"typed {agent}"),
        TooLarge: session.post("x" * 2_000_000),
        InvalidInput: client.post("/sessions", {}),
        DefinitionInvalid: client.post("/agents", {"name": "x"}),
        NotFound: client.get("/nowhere"),
    }
    for cls, call in wrong.items():
        with pytest.raises(cls) as caught:
            await call
        assert type(caught.value) is cls
    await session.stop()
    with pytest.raises(SessionEnded, match="has ended and takes no more messages"):
        await session.post("Hello?")
    with pytest.raises(SessionNotFound):
        await anext(client.session("nobody").events())


@pytest.mark.behaviour("client:errors:typed")
async def test_a_refused_host_is_forbidden(on_socket: Served) -> None:
    async with FluxClient(on_socket.url.replace("127.0.0.1", "0.0.0.0")) as client:
        with pytest.raises(Forbidden, match="does not answer to the host name"):
            await client.get("/health")


@pytest.mark.behaviour("client:stream:closed")
async def test_leaving_an_iterator_closes_its_connection(served: Served) -> None:
    session = await served.client.start_session(await served.agent(says("hi")), "Hello")
    async with served.new_client() as client:
        for _ in range(5):
            async with aclosing(client.session(session.id).events()) as events:
                await anext(events)
                await served.exchanges.until(1)
            await served.exchanges.until(0)
    assert not served.process.feed.reading.is_set()


class Cutting(httpx.AsyncBaseTransport):
    """A network that breaks each of the first connections of a stream after so many bytes."""

    def __init__(self, inner: httpx.AsyncBaseTransport, after: list[int]) -> None:
        self.inner = inner
        self.after = after

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self.inner.handle_async_request(request)
        if self.after and request.headers["accept"] == "text/event-stream":
            assert isinstance(response.stream, httpx.AsyncByteStream)
            return httpx.Response(
                response.status_code, headers=response.headers, stream=_Cut(response.stream, self.after.pop(0))
            )
        return response

    async def aclose(self) -> None:
        await self.inner.aclose()


class _Cut(httpx.AsyncByteStream):
    def __init__(self, whole: httpx.AsyncByteStream, left: int) -> None:
        self.whole = whole
        self.left = left

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self.whole:
            yield chunk[: self.left]
            self.left -= len(chunk)
            if self.left < 0:
                raise httpx.ReadError("the line broke")

    async def aclose(self) -> None:
        await self.whole.aclose()


@pytest.mark.behaviour("client:reconnect:exactly-once")
async def test_a_line_that_breaks_anywhere_loses_and_doubles_nothing(served: Served) -> None:
    model = Held([Reply(LONG)])
    session = await served.client.start_session(await served.agent(model))
    watching = asyncio.create_task(_until_answer(session))
    transport = Cutting(served.transport(), [1, 400, 900, 1700, 333])
    broken = []
    async with FluxClient(served.url, transport=transport) as client:
        async for event in client.session(session.id, "0").send("Hello"):
            broken.append(event)
            model.let(1)
    assert transport.after == []
    assert text_of(broken) == LONG
    assert broken == await watching


class Deaf(httpx.AsyncBaseTransport):
    """A network that loses the first answers to messages."""

    def __init__(self, inner: httpx.AsyncBaseTransport, losses: int) -> None:
        self.inner = inner
        self.losses = losses

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self.inner.handle_async_request(request)
        if self.losses and request.url.path.endswith("/messages"):
            self.losses -= 1
            await response.aread()
            raise httpx.ReadError("the line broke")
        return response

    async def aclose(self) -> None:
        await self.inner.aclose()


@pytest.mark.behaviour("client:send:lost-answer")
async def test_a_message_whose_answer_is_lost_is_sent_again_and_taken_once(served: Served) -> None:
    id = (await served.client.start_session(await served.agent(says("one", "two")))).id
    transport = Deaf(served.transport(), 2)
    async with FluxClient(served.url, transport=transport) as client:
        events = [event async for event in client.session(id).send("Hello")]
    assert transport.losses == 0
    assert answer_of(events) == "one"
    assert [message["role"] for message in await served.client.messages(id)] == ["user", "assistant"]


@pytest.mark.behaviour("client:send:repeated-key")
async def test_a_repeated_key_tells_the_run_again(served: Served) -> None:
    session = await served.client.start_session(await served.agent(says("one", "two")))
    first = [event async for event in session.send("Hello", key=session.id)]
    async with asyncio.timeout(10):
        for handle in (session, served.client.session(session.id), served.client.session(session.id, "0")):
            again = [event async for event in handle.send("Hello", key=session.id)]
            assert answer_of(again) == answer_of(first) == "one"
            assert isinstance(again[-5].event, UserSaid)
    assert (await session.info())["turns"] == 1


@pytest.mark.behaviour("client:send:one-request")
async def test_sending_is_one_request_over_a_connection_that_is_used_again(on_socket: Served) -> None:
    session = await on_socket.client.start_session(await on_socket.agent(says("one")))
    ports: set[object] = set()
    asked: list[str] = []

    class Seen(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            response = await inner.handle_async_request(request)
            asked.append(request.method)
            ports.add(response.extensions["network_stream"].get_extra_info("client_addr"))
            return response

        async def aclose(self) -> None:
            await inner.aclose()

    inner = Lanes(secure=False)
    async with FluxClient(on_socket.url, transport=Seen()) as client:
        handle = client.session(session.id)
        for _ in range(5):
            assert answer_of([event async for event in handle.send("Hello")]) == "one"
    assert asked == ["POST"] * 5
    assert len(ports) == 1


async def _until_answer(session: SessionHandle) -> list[Event]:
    async with aclosing(session.until_rest()) as events:
        return [event async for event in events]


@pytest.mark.behaviour("client:errors:unreachable")
async def test_no_server_is_told_with_the_remedy(served: Served) -> None:
    async with FluxClient("http://127.0.0.1:9") as client:
        with pytest.raises(ServerUnreachable) as caught:
            await client.get("/health")
    told = "no Flux server answers at http://127.0.0.1:9; start one with `flux start server`"
    assert str(caught.value) == told


@pytest.mark.behaviour("client:reconnect:restart")
async def test_a_run_goes_on_after_the_server_was_restarted_in_the_middle(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    home = tmp_path_factory.mktemp("restarted")
    before, after = Held([Reply(LONG)]), Held([Reply(LONG)])
    before.let(20)
    async with contextlib.AsyncExitStack() as stack, contextlib.AsyncExitStack() as first:
        served = await first.enter_async_context(serving(home, in_process=False, agent0=before))
        client = await stack.enter_async_context(FluxClient(served.url))
        session = await client.start_session(await served.agent(before))
        events = await stack.enter_async_context(aclosing(session.send("Hello")))
        seen: list[Event] = []
        while not text_of(seen).endswith(WORDS[19]):
            seen.append(await anext(events))
        assert text_of(seen) == "".join(WORDS[:20])
        await first.aclose()
        port = int(served.url.rpartition(":")[2])
        await stack.enter_async_context(serving(home, in_process=False, port=port, agent0=after))
        after.let(1)
        while not (isinstance(piece := seen[-1].event, Token) and piece.attempt > 1):
            seen.append(await anext(events))
        after.open()
        seen += [event async for event in events]
    pieces = [event.event for event in seen if isinstance(event.event, Token)]
    again = pieces[-1].attempt
    assert again > 1
    assert [piece.attempt for piece in pieces] == [1] * 20 + [again] * 50
    assert "".join(piece.text for piece in pieces if piece.attempt == again) == answer_of(seen) == LONG
    seqs = [event.seq for event in seen if event.seq is not None]
    assert seqs == list(range(1, seqs[-1] + 1))
    assert len({event.cursor for event in seen}) == len(seen)
