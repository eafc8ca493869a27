"""A server that does not take a message, does not stop a run, or goes away; played by a transport."""

import asyncio
import io
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from flux.client import FluxClient, SessionHandle, reader
from flux.events import AssistantSaid, ChatResponse, Entry, RunStarted, UserSaid, encode
from flux.messages import TextPart
from flux.surfaces.terminal.chat import Chat
from flux.surfaces.terminal.plain import PlainView, pipe
from flux.surfaces.terminal.problems import LOST
from flux.surfaces.terminal.signals import Signals
from flux.surfaces.terminal.turn import Conversation
from tests.acceptance.terminal.test_conversation import Person, client, talk

GUARD_SECONDS = 20


class Server(httpx.AsyncBaseTransport):
    """Has one session; `takes` messages or leaves the caller waiting; `streams` says what each connection brings."""

    def __init__(self, *, takes: bool = True) -> None:
        self.takes = takes
        self.posted: list[tuple[str, str | None]] = []
        self.happened = asyncio.Event()
        self.streams: list[Callable[[], AsyncIterator[bytes]]] = []
        self.cancelled = True

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.rpartition("/")[2]
        if path == "events":
            return httpx.Response(200, content=self._stream())
        if path == "messages":
            body = msgspec.json.decode(await request.aread())
            self.posted.append((body["message"], request.headers.get("Idempotency-Key")))
            self.happened.set()
            if not self.takes:
                await asyncio.Event().wait()
            accepted = {"Flux-Message": "u", "Flux-Seq": "2", "Flux-Repeated": "false", "Flux-After": "1.0.0"}
            return httpx.Response(200, headers=accepted, content=self._stream())
        if path == "cancel":
            self.happened.set()
            return httpx.Response(202, json={"cancelled": self.cancelled})
        return httpx.Response(200, json={"items": []} if path == "interrupts" else {"status": "ok"})

    def _stream(self) -> AsyncIterator[bytes]:
        return (self.streams.pop(0) if self.streams else forever)()


async def forever() -> AsyncGenerator[bytes, None]:
    yield b""
    await asyncio.Event().wait()


def frame(seq: int, entry: Entry) -> bytes:
    data = msgspec.json.decode(encode(entry)) | {"seq": seq}
    return b"id: %d.1.0\nevent: %b\ndata: %b\n\n" % (seq, data["type"].encode(), msgspec.json.encode(data))


class Stage:
    """A chat with such a server."""

    def __init__(self, server: Server, opened: FluxClient) -> None:
        self.server = server
        self.signals = Signals()
        self.person = Person()
        self._out = io.StringIO()
        view = PlainView(self._out, self._out)
        handle = SessionHandle(opened, "s", "0")
        self.conversation = Conversation(opened, handle, view, self.person, self.signals)
        self.chat = Chat(opened, "helper", handle, view, self.conversation)

    @property
    def shown(self) -> str:
        return self._out.getvalue()

    async def says(self, line: str) -> None:
        self.person.lines.append(line)
        async with asyncio.timeout(GUARD_SECONDS):
            await self.chat.step()

    async def interrupted_twice(self, line: str) -> None:
        """Say something and press Ctrl+C when the server has it, and once more when it was asked to cancel."""
        saying = asyncio.create_task(self.says(line))
        for _ in range(2):
            await self.server.happened.wait()
            self.server.happened.clear()
            assert self.signals.on_interrupt is not None
            self.signals.on_interrupt()
        await saying


@pytest.mark.behaviour("terminal:cancel:not-taken")
async def test_a_message_that_the_server_never_took_comes_back() -> None:
    server = Server(takes=False)
    async with FluxClient("http://x", transport=server) as opened:
        stage = Stage(server, opened)
        await stage.interrupted_twice("hello")
        assert "The server did not take this message; it is back at the prompt.\n" in stage.shown
        assert "goes on" not in stage.shown
        assert stage.person.returned == ["hello"]
        await stage.interrupted_twice("hello")
        await stage.interrupted_twice("other")
    keys = [key for _, key in server.posted]
    assert keys[0] == keys[1] is not None  # the same message is taken once
    assert keys[2] not in (None, keys[0])


@pytest.mark.behaviour("terminal:cancel:not-waiting")
async def test_ctrl_c_twice_does_not_wait_for_the_run() -> None:
    server = Server()
    async with FluxClient("http://x", transport=server) as opened:
        stage = Stage(server, opened)
        await stage.interrupted_twice("hello")
        await stage.interrupted_twice("hello")
    assert stage.shown.count("Not waiting for the run to stop; /session shows when it has.\n") == 2
    assert stage.person.returned == []
    assert server.posted[0][1] != server.posted[1][1]  # said twice, meant twice


@pytest.mark.behaviour("terminal:errors:lost")
async def test_a_lost_server_and_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "RECONNECT", ())

    async def breaks() -> AsyncGenerator[bytes, None]:
        yield frame(2, UserSaid(id="u", mode="queue", parts=(TextPart("hello"),)))
        yield frame(3, RunStarted(run="r", inputs=("u",)))

    async def goes_on() -> AsyncGenerator[bytes, None]:
        yield frame(4, AssistantSaid(message_id="m", parts=(TextPart("Here I am."),)))
        yield frame(5, ChatResponse(content="Here I am.", turn=1))

    server = Server()
    server.streams = [breaks, goes_on]
    async with FluxClient("http://x", transport=server) as opened:
        stage = Stage(server, opened)
        await stage.says("hello")
        assert stage.shown == f"\n{LOST}\n"
        await stage.says("/retry")
    assert stage.shown == f"\n{LOST}\n\nHere I am.\n"
    assert [text for text, _ in server.posted] == ["hello"]


@pytest.mark.behaviour("terminal:errors:lost")
async def test_a_message_to_a_server_that_is_away_comes_back() -> None:
    def refuse(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    async with FluxClient("http://x", transport=httpx.MockTransport(refuse)) as opened:
        stage = Stage(Server(), opened)
        await stage.says("hello")
    assert "Error: no Flux server answers at http://x" in stage.shown
    assert stage.person.returned == ["hello"]


@pytest.mark.behaviour("terminal:model:shown")
async def test_a_piped_message_with_a_model_and_the_model_of_an_older_version(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with client(tmp_path) as opened:
        session = await opened.start_session("helper")
        await opened.put("/agents/helper", {"model": "scripted/newer"})
        shown = await talk(opened, session.id, Person("/model"))
        assert await pipe(opened, agent="helper", session=session, text="go", model="scripted/y") == 1
        rows = (await opened.get(f"/sessions/{session.id}/events"))["items"]
    assert "Model of the next messages: scripted/x (the agent's own)\n" in shown
    assert [row["options"] for row in rows if row["type"] == "user_message"] == [{"model": "scripted/y"}]
    assert "Ctrl+D" not in "".join(capsys.readouterr())


async def texts(events: AsyncGenerator[Any, None]) -> list[str]:
    return [event.event.content async for event in events if isinstance(event.event, ChatResponse)]


@pytest.mark.behaviour("client:session:no-replay")
async def test_a_handle_without_a_cursor_does_not_replay_the_past(tmp_path: Path) -> None:
    async with client(tmp_path) as opened, asyncio.timeout(GUARD_SECONDS):
        session = await opened.start_session("helper")
        await talk(opened, session.id, Person("go"))
        fresh = SessionHandle(opened, session.id)
        seen = [event.event async for event in fresh.send("again")]
        assert [entry.id for entry in seen if isinstance(entry, UserSaid)] == [fresh.accepted]
        assert isinstance(seen[-1], ChatResponse)
        history = SessionHandle(opened, session.id).events()
        assert (await anext(history)).seq == 1
        await history.aclose()


@pytest.mark.behaviour("client:session:resolve")
async def test_an_answer_is_watched_from_its_first_token_on(tmp_path: Path) -> None:
    async with client(tmp_path) as opened, asyncio.timeout(GUARD_SECONDS):
        session = await opened.start_session("helper")
        async for _ in session.send("go"):
            pass
        assert session.state == "waiting"
        (asked,) = await session.interrupts()
        fresh = SessionHandle(opened, session.id)
        seen = [event async for event in fresh.resolve(asked["id"], "approve")]
        told = "".join(event.event.text for event in seen if hasattr(event.event, "text"))
        assert "Good." in told
        assert isinstance(seen[-1].event, ChatResponse)


@pytest.mark.behaviour("terminal:two-clients:queued", "terminal:two-clients:elsewhere")
async def test_what_others_said_at_an_idle_prompt_is_announced(tmp_path: Path) -> None:
    async with client(tmp_path) as opened, asyncio.timeout(GUARD_SECONDS):
        session = await opened.start_session("helper")
        person = Person("go", "mine")
        first = person.message

        async def message() -> str:
            if person.lines == ["mine"]:
                assert await texts(SessionHandle(opened, session.id).send("theirs")) == ["Fine."]
            return await first()

        person.message = message  # type: ignore[method-assign]
        shown = await talk(opened, session.id, person)
    assert "1 new message elsewhere\n> theirs\n" in shown
    assert shown.index("> theirs") < shown.index("Fine.") < shown.index("> mine")


@pytest.mark.behaviour("terminal:leaving:during-run")
async def test_ctrl_d_is_told_once() -> None:
    server = Server()
    async with FluxClient("http://x", transport=server) as opened:
        stage = Stage(server, opened)

        async def ends() -> AsyncGenerator[bytes, None]:
            yield frame(2, RunStarted(run="r", inputs=("u",)))
            assert stage.person.leave is not None
            stage.person.leave()
            stage.person.leave()
            yield frame(3, ChatResponse(content="", turn=1))

        server.streams = [ends]
        await stage.says("hello")
    assert stage.shown == "\nLeaving when this run ends; Ctrl+C cancels it.\n"
    assert stage.conversation.leaving
