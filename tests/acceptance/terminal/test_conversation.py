"""What a pseudo terminal cannot easily stage: other clients, lost servers, refusals; in one process."""

import asyncio
import io
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx
import pytest

from flux.agents.process import open_process
from flux.client import FluxClient
from flux.client.transport import InProcessTransport
from flux.errors import ServerUnreachable, SessionEnded, TooLarge, Unauthorized
from flux.events import UserSaid
from flux.models.base import ModelEvent, ModelRequest
from flux.models.scripted import Call, Reply, ScriptedModel
from flux.server.app import create_app
from flux.settings import load_settings
from flux.surfaces.terminal import beside
from flux.surfaces.terminal.chat import Chat
from flux.surfaces.terminal.plain import PlainView, pipe
from flux.surfaces.terminal.problems import page_problem, problem, start_problem
from flux.surfaces.terminal.signals import Signals
from flux.surfaces.terminal.turn import Conversation

SCRIPT = (
    Reply(calls=(Call("shell", {"command": "echo one"}),)),
    Reply(text="Good."),
    Reply(text="Fine."),
)


class Person:
    """Types what a test says; `before_key` happens while a question is on the screen."""

    def __init__(self, *lines: str) -> None:
        self.lines = list(lines)
        self.before_key: Callable[[], Awaitable[object]] | None = None
        self.leave: Callable[[], None] | None = None
        self.send: Callable[[str], bool] | None = None
        self.returned: list[str] = []

    @contextmanager
    def typing(self, leave: Callable[[], None], send: Callable[[str], bool]) -> Iterator[None]:
        self.leave, self.send = leave, send
        yield

    def hold(self) -> None:
        """Nothing is typed ahead."""

    def put_back(self, text: str) -> None:
        self.returned.append(text)

    async def message(self) -> str:
        if not self.lines:
            raise EOFError
        return self.lines.pop(0)

    async def line(self, label: str) -> str:
        return self.lines.pop(0)

    async def key(
        self, label: str, keys: Mapping[str, str], enter: str | None = None, twice: Collection[str] = ()
    ) -> str:
        if self.before_key is not None:
            await self.before_key()
        return "a"


@asynccontextmanager
async def client(home: Path, model: ScriptedModel | None = None) -> AsyncIterator[FluxClient]:
    model = model or ScriptedModel(SCRIPT)
    settings = load_settings({}, home=str(home))
    async with (
        open_process(settings, environment={}, workspace=home, factories={"scripted": lambda _: model}) as process,
        FluxClient("http://localhost", transport=InProcessTransport(create_app(process))) as opened,
    ):
        agent = {"model": "scripted/x", "tools": ["shell"], "tool_approvals": {"shell": True}}
        await opened.put("/agents/helper", agent, create=True)
        yield opened


async def talk(opened: FluxClient, session: str, person: Person) -> str:
    """Everything shown until the person leaves."""
    out = io.StringIO()
    view, handle = PlainView(out, out), opened.session(session)
    conversation = Conversation(opened, handle, view, person, Signals())
    chat = Chat(opened, "helper", handle, view, conversation)
    async with asyncio.timeout(20):
        await chat.catch_up(await handle.info())
        while not conversation.leaving:
            await chat.step()
    return out.getvalue()


@pytest.mark.behaviour("terminal:approval:answered-elsewhere")
async def test_an_approval_that_was_given_elsewhere(tmp_path: Path) -> None:
    async with client(tmp_path) as opened:
        session = await opened.start_session("helper")
        person = Person("go")

        async def elsewhere() -> None:
            other = opened.session(session.id)
            (asked,) = await other.interrupts()
            await other.answer(asked["id"], "reject", reason="no")

        person.before_key = elsewhere
        shown = await talk(opened, session.id, person)
    assert "This was answered elsewhere meanwhile.\n" in shown
    assert 'Calling shell(command="echo one")... Denied.\n' in shown
    assert "Good." in shown


def summarising(request: ModelRequest) -> Reply:
    """Summaries are asked for without tools."""
    return Reply("Good." if request.tools else "They said much.")


@pytest.mark.behaviour("terminal:compact")
async def test_a_person_asks_for_a_summary(tmp_path: Path) -> None:
    async with client(tmp_path, ScriptedModel(summarising)) as opened:
        session = await opened.start_session("helper")
        shown = await talk(opened, session.id, Person("/compact", "go", "x " * 30_000, "/compact", "again"))
    assert shown.count("There is nothing to summarise yet.\n") == 1
    assert shown.count("… earlier messages were summarised to save space\n") == 1
    assert shown.index("There is nothing") < shown.index("Good.") < shown.index("were summarised")
    assert "Error" not in shown


@pytest.mark.behaviour("terminal:compact")
async def test_who_comes_back_after_a_summary_sees_the_last_exchange(tmp_path: Path) -> None:
    async with client(tmp_path, ScriptedModel(summarising)) as opened:
        session = await opened.start_session("helper")
        await talk(opened, session.id, Person("x " * 30_000, "then", "/compact"))
        shown = await talk(opened, session.id, Person("again"))
    assert "> then\nGood.\n… earlier messages were summarised to save space\n" in shown


@pytest.mark.behaviour("terminal:resume:asks-again")
async def test_a_resumed_session_shows_the_last_exchange_and_the_new_messages_only(tmp_path: Path) -> None:
    async with client(tmp_path) as opened:
        session = await opened.start_session("helper")
        await talk(opened, session.id, Person("go"))
        shown = await talk(opened, session.id, Person("again"))
    past = '> go\nCalling shell(command="echo one")... Done.\nGood.\n'
    assert shown.index(past) < shown.index("Fine.")
    assert shown.count("Good.") == 1


@pytest.mark.behaviour("terminal:errors:one-line")
async def test_a_session_that_has_ended(tmp_path: Path) -> None:
    async with client(tmp_path) as opened:
        session = await opened.start_session("helper")
        await session.stop()
        shown = await talk(opened, session.id, Person("hello", "/usage"))
    assert "The session has ended and takes no more messages; leave with Ctrl+D and start the agent again." in shown
    assert "Tokens: 0 in, 0 out · 0 turns" in shown


@pytest.mark.behaviour("terminal:errors:one-line")
async def test_a_message_that_is_too_large(tmp_path: Path) -> None:
    async with client(tmp_path) as opened:
        session = await opened.start_session("helper")
        shown = await talk(opened, session.id, Person("x" * 20_000_000, "go"))
    assert "larger than" in shown
    assert "Good." in shown


@pytest.mark.behaviour("terminal:errors:one-line")
async def test_a_refused_token(capsys: pytest.CaptureFixture[str]) -> None:
    body = {"error": {"type": "unauthorized", "message": "Missing or invalid Authorization header", "details": {}}}
    transport = httpx.MockTransport(lambda _: httpx.Response(401, json=body))
    async with FluxClient("http://localhost", transport=transport) as opened:
        assert await pipe(opened, agent="helper", session=None, text="hi") == 1
    told = "Error starting agent: Missing or invalid Authorization header: 401; "
    assert capsys.readouterr() == ("", told + "set FLUX_AUTH_TOKEN or run `flux auth login`\n")


def test_what_problems_say() -> None:
    assert start_problem(ServerUnreachable("no server")) == "Error starting agent: no server"
    assert problem(Unauthorized("no")) == "Error: no (401); set FLUX_AUTH_TOKEN or run `flux auth login`"
    away = Unauthorized("Missing or invalid Authorization header; run `flux auth login`, or set FLUX_AUTH_TOKEN")
    assert page_problem(away) == "Agent process started without a token; set FLUX_AUTH_TOKEN or run `flux auth login`"
    assert page_problem(Unauthorized("the token is not valid; run `x`")) == (
        "Error starting agent: the token is not valid: 401; set FLUX_AUTH_TOKEN or run `flux auth login`"
    )
    assert problem(TooLarge("too large: limit 5")) == "Error: too large: limit 5"
    assert "Ctrl+D" not in problem(SessionEnded(), interactive=False)
    assert "start the agent again" in problem(SessionEnded())


@pytest.mark.behaviour("terminal:errors:reconnecting")
async def test_a_lost_server_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "SILENT_SECONDS", 0.0)
    looks, enough = 0, asyncio.Event()

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal looks
        looks += 1
        if looks == 5:
            enough.set()
        if looks in (2, 3):
            raise httpx.ConnectError("gone")
        return httpx.Response(200, json={"status": "ok"})

    out = io.StringIO()
    async with (
        FluxClient("http://localhost", transport=httpx.MockTransport(answer)) as opened,
        beside.beside(beside.tell_when_lost(opened, PlainView(out, out), lambda: 0.0)),
        asyncio.timeout(20),
    ):
        await enough.wait()
    assert out.getvalue() == "reconnecting…\n"


class Busy(Person):
    """Types while the approved command of the first run works."""

    def __init__(self, *lines: str, meanwhile: tuple[str, ...]) -> None:
        super().__init__(*lines)
        self.meanwhile = meanwhile
        self.taken: list[bool] = []
        self.shown = 0

    @contextmanager
    def typing(self, leave: Callable[[], None], send: Callable[[str], bool]) -> Iterator[None]:
        self.shown += 1
        if self.shown == 2:
            self.taken = [send(line) for line in self.meanwhile]
        yield


class Waits(ScriptedModel):
    """Answers when it has been allowed to; its first turn comes at once."""

    def __init__(self) -> None:
        super().__init__(SCRIPT)
        self.gate = asyncio.Event()

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        if self.requests:
            await self.gate.wait()
        async for event in super().stream(request):
            yield event


async def _open_when_said(opened: FluxClient, session: str, count: int, gate: asyncio.Event) -> None:
    async with opened.session(session, "0").connected() as events:
        said = 0
        async for event in events:
            said += isinstance(event.event, UserSaid)
            if said == count:
                gate.set()
                return


@pytest.mark.behaviour("terminal:modes:during-run")
async def test_messages_that_are_typed_during_a_run_are_sent_at_once_in_their_mode(tmp_path: Path) -> None:
    model = Waits()
    async with client(tmp_path, model) as opened:
        session = await opened.start_session("helper")
        person = Busy("go", meanwhile=("", "a", "/usage", "later", "/steer soon"))
        opens = asyncio.create_task(_open_when_said(opened, session.id, 3, model.gate))
        shown = await talk(opened, session.id, person)
        await opens
        log = [row async for row in opened.pages(f"/sessions/{session.id}/events")]
        said = [row for row in log if row["type"] == "user_message"]
    assert person.taken == [True, False, False, True, True]
    assert {(row["parts"][0]["text"], row["mode"]) for row in said} == {
        ("go", "queue"), ("later", "queue"), ("soon", "steer"),
    }  # fmt: skip
    assert "> later\n" in shown
    assert "(joins this run)" in shown
    assert "Fine." in shown  # the queued one had its own run, which was waited for


@pytest.mark.behaviour("terminal:modes:refused")
async def test_a_message_that_is_refused_during_a_run_comes_back(tmp_path: Path) -> None:
    async with client(tmp_path) as opened:
        session = await opened.start_session("helper")
        person = Busy("go", meanwhile=("x" * 20_000_000,))
        shown = await talk(opened, session.id, person)
    assert "larger than" in shown
    assert [len(text) for text in person.returned] == [20_000_000]


@pytest.mark.behaviour("terminal:fork")
async def test_a_person_goes_on_in_a_copy(tmp_path: Path) -> None:
    async with client(tmp_path) as opened:
        session = await opened.start_session("helper")
        person = Person("/fork", "go", "again", "/fork 3", "/fork x", "/fork 1", "/session", "other", "/fork")
        shown = await talk(opened, session.id, person)
        rows = [row async for row in opened.pages("/sessions")]
        said = {row["id"]: [m["parts"][0]["text"] for m in await opened.messages(row["id"]) if m["role"] == "user"]
                for row in rows}  # fmt: skip
    assert "There is nothing to fork yet." in shown
    assert "this session has 2 messages to go back behind" in shown
    assert "/fork takes a number" in shown
    assert person.returned == ["again"]
    assert sorted(said.values()) == [["go", "again"], ["go", "other"], ["go", "other"]]
    assert said[session.id] == ["go", "again"]
    assert all(f"Session: {id}" in shown for id in said if id != session.id)
