"""SyncFluxClient against a server in another thread: from a script, and where an event loop runs already."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing

import httpx
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from flux.client import Event, SyncFluxClient
from flux.errors import AgentNotFound, InterruptDecided, SessionNotFound
from flux.events import ChatResponse, InputRequired, Token
from flux.models.scripted import Reply
from tests.integration.server.models import LONG, Held, asks, says
from tests.integration.server.serving import Served, serving
from tests.integration.server.test_client import Cutting

FILE = b"""
from flux import ExecutionContext, pause, workflow


@workflow
async def greet(ctx: ExecutionContext):
    return f"{ctx.input} {await pause('who')}"
"""


@pytest.fixture(scope="module")
def portal() -> Iterator[BlockingPortal]:
    with start_blocking_portal() as portal:
        yield portal


@pytest.fixture(scope="module")
def away(portal: BlockingPortal, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server on a socket, in a thread of its own."""
    with portal.wrap_async_context_manager(serving(tmp_path_factory.mktemp("home"), in_process=False)) as served:
        yield served


@pytest.fixture
def client(away: Served) -> Iterator[SyncFluxClient]:
    with SyncFluxClient(away.url) as client:
        yield client


def text_of(events: list[Event]) -> str:
    return "".join(one.event.text for one in events if isinstance(one.event, Token))


def answer_of(events: list[Event]) -> str:
    last = events[-1].event
    assert isinstance(last, ChatResponse)
    return last.content


def talk(client: SyncFluxClient, agent: str) -> None:
    session = client.start_session(agent)
    events = list(session.send("Hello"))
    assert (text_of(events), answer_of(events), session.state) == (LONG, LONG, "ended")
    assert session.cursor == events[-1].cursor
    assert [row["id"] for row in client.sessions.list(agent=agent)] == [session.id]


@pytest.mark.behaviour("client:sync:script")
def test_a_script_talks(away: Served, portal: BlockingPortal, client: SyncFluxClient) -> None:
    talk(client, portal.call(away.agent, says(LONG)))


@pytest.mark.behaviour("client:sync:notebook")
async def test_it_blocks_where_a_loop_runs_already(away: Served, portal: BlockingPortal) -> None:
    with SyncFluxClient(away.url) as client:
        talk(client, portal.call(away.agent, says(LONG)))


@pytest.mark.behaviour("client:sync:script")
def test_questions_are_answered(away: Served, portal: BlockingPortal, client: SyncFluxClient) -> None:
    agent = portal.call(lambda: away.agent(asks("Why?"), tools=["ask_user"]))
    session = client.start_session(agent)
    *_, asked = session.send("Hello")
    assert isinstance(asked.event, InputRequired)
    assert [row["id"] for row in session.interrupts()] == [asked.event.id]
    assert answer_of(list(session.resolve(asked.event.id, "answer", content="so"))) == "done"
    with pytest.raises(InterruptDecided):
        session.answer(asked.event.id, "answer", content="no")


@pytest.mark.behaviour("client:sync:errors")
def test_errors_are_those_of_the_server(client: SyncFluxClient) -> None:
    with pytest.raises(AgentNotFound, match="nobody") as caught:
        client.start_session("nobody")
    assert caught.value.type == "agent_not_found"
    with pytest.raises(SessionNotFound):
        next(client.session("0" * 32).events())


@pytest.mark.behaviour("client:sync:reconnect")
def test_a_line_that_breaks_loses_and_doubles_nothing(
    away: Served, portal: BlockingPortal, client: SyncFluxClient
) -> None:
    id = client.start_session(portal.call(away.agent, says(LONG))).id
    transport = Cutting(portal.call(_transport, away), [1, 400, 900])
    with SyncFluxClient(away.url, transport=transport) as broken:
        events = list(broken.session(id, "0").send("Hello"))
    assert transport.after == []
    assert answer_of(events) == LONG
    seqs = [one.seq for one in events if one.seq is not None]
    assert seqs == list(range(1, seqs[-1] + 1))


async def _transport(served: Served) -> httpx.AsyncBaseTransport:
    return served.transport()


@pytest.mark.behaviour("client:sync:left")
def test_leaving_an_iterator_closes_its_connection(
    away: Served, portal: BlockingPortal, client: SyncFluxClient
) -> None:
    session = client.start_session(portal.call(away.agent, says("hi")), "Hello")
    for _ in range(3):
        for _ in session.events():
            break
        with closing(session.events()) as events:
            next(events)
        portal.call(away.exchanges.until, 0)


#: A program of its own: in this one, servers of other tests have handlers for the signal.
INTERRUPTED = """
import signal, sys
from flux.client import SyncFluxClient
signal.signal(signal.SIGINT, signal.default_int_handler)
with SyncFluxClient(sys.argv[1]) as client:
    session = client.session(sys.argv[2])
    try:
        list(session.send("Hello"))
    except KeyboardInterrupt:
        print(session.cancel()["cancelled"], session.info()["id"])
"""


@pytest.mark.behaviour("client:sync:interrupted")
def test_ctrl_c_stops_waiting_and_the_client_goes_on(
    away: Served, portal: BlockingPortal, client: SyncFluxClient
) -> None:
    model = Held([Reply(LONG)])
    session = client.start_session(portal.call(away.agent, model))
    command = [sys.executable, "-c", INTERRUPTED, away.url, session.id]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        portal.call(model.asked.wait)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=20)[0].split() == ["True", session.id]


@pytest.mark.behaviour("client:nouns:each")
def test_agents_are_kept_and_removed(client: SyncFluxClient) -> None:
    made = client.agents.create({"name": "kept", "model": "scripted/echo", "system_prompt": "one"})
    changed = client.agents.apply({"name": "kept", "model": "scripted/echo", "system_prompt": "two"})
    assert (made["version"], changed["version"]) == (1, 2)
    assert client.agents.get("kept")["definition"]["system_prompt"] == "two"
    assert [row["version"] for row in client.agents.versions("kept")] == [2, 1]
    assert "kept" in [row["name"] for row in client.agents.list()]
    session = client.start_session("kept", "hello")
    assert client.sessions.get(session.id)["agent_name"] == "kept"
    assert answer_of(list(session.until_rest())) == "hello"
    assert [row["role"] for row in client.sessions.messages(session.id)] == ["user", "assistant"]
    session.stop()
    client.sessions.delete(session.id)
    with pytest.raises(SessionNotFound):
        client.sessions.get(session.id)
    client.agents.delete("kept")
    with pytest.raises(AgentNotFound):
        client.agents.get("kept")


@pytest.mark.behaviour("client:nouns:each")
def test_workflows_run_and_their_executions_are_seen(client: SyncFluxClient) -> None:
    assert [row["name"] for row in client.workflows.register(FILE)] == ["greet"]
    waiting = client.run_workflow("default/greet", "Hello,")
    assert waiting["state"] == "PAUSED"
    done = client.resume_workflow("default/greet", waiting["execution_id"], "you", pause="who")
    assert (done["state"], done["output"]) == ("COMPLETED", "Hello, you")
    execution = client.execution(waiting["execution_id"])
    assert execution.info()["output"] == "Hello, you"
    assert execution.rename("a greeting")["name"] == "a greeting"
    assert list(execution.approvals()) == list(client.executions.approvals()) == []
    listed = [row["execution_id"] for row in client.executions.list(workflow="default/greet")]
    assert listed == [waiting["execution_id"]]


@pytest.mark.behaviour("client:nouns:each")
def test_schedules_and_memories_are_there_too(client: SyncFluxClient) -> None:
    client.workflows.register(FILE)
    made = client.schedules.create("hourly", workflow="default/greet", interval="1h")
    assert made["name"] == "hourly"
    assert [row["name"] for row in client.schedules.list()] == ["hourly"]
    assert list(client.schedules.history("hourly")) == []
    client.schedules.delete("hourly")
    assert list(client.memories.list()) == []
