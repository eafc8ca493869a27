"""What a pseudo terminal cannot easily stage: other clients, lost servers, refusals; in one process."""

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx
import pytest

from flux.agents.process import open_process
from flux.client import FluxClient
from flux.client.transport import InProcessTransport
from flux.errors import ServerUnreachable, SessionEnded, TooLarge, Unauthorized
from flux.models.scripted import Call, Reply, Script, ScriptedModel
from flux.server.app import create_app
from flux.settings import load_settings
from flux.surfaces.terminal import beside
from flux.surfaces.terminal.chat import Chat
from flux.surfaces.terminal.plain import PlainView, pipe
from flux.surfaces.terminal.problems import problem, start_problem
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
        self.returned: list[str] = []

    @contextmanager
    def typing(self, leave: Callable[[], None]) -> Iterator[None]:
        self.leave = leave
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
async def client(home: Path, script: Script = SCRIPT) -> AsyncIterator[FluxClient]:
    model = ScriptedModel(script)
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


@pytest.mark.behaviour("terminal:compact")
async def test_a_person_asks_for_a_summary(tmp_path: Path) -> None:
    async with client(tmp_path, lambda request: Reply("They said much." if not request.tools else "Good.")) as opened:
        session = await opened.start_session("helper")
        shown = await talk(opened, session.id, Person("/compact", "go", "x " * 30_000, "/compact", "again"))
    assert shown.count("There is nothing to summarise yet.\n") == 1
    assert shown.count("… earlier messages were summarised to save space\n") == 1
    assert shown.index("There is nothing") < shown.index("Good.") < shown.index("were summarised")
    assert "Error" not in shown


@pytest.mark.behaviour("terminal:compact")
async def test_who_comes_back_after_a_summary_sees_the_last_exchange(tmp_path: Path) -> None:
    async with client(tmp_path, lambda request: Reply("They said much." if not request.tools else "Good.")) as opened:
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
