"""SyncFluxClient: it has what FluxClient has, and type checkers see it."""

import inspect
from collections.abc import Generator
from typing import Any, assert_type

import httpx
import pytest

import flux
from flux.client import Event, FluxClient, SyncFluxClient, SyncSession, sync
from flux.client.agents import AgentsClient
from flux.client.execution import ExecutionHandle, ExecutionsClient
from flux.client.memories import MemoriesClient
from flux.client.schedules import SchedulesClient
from flux.client.session import SessionHandle
from flux.client.sessions import SessionsClient
from flux.client.workflows import WorkflowsClient

PAIRS = {
    AgentsClient: sync.SyncAgents,
    ExecutionHandle: sync.SyncExecution,
    ExecutionsClient: sync.SyncExecutions,
    FluxClient: SyncFluxClient,
    MemoriesClient: sync.SyncMemories,
    SchedulesClient: sync.SyncSchedules,
    SessionHandle: SyncSession,
    SessionsClient: sync.SyncSessions,
    WorkflowsClient: sync.SyncWorkflows,
}
#: What has another form, or no use, where calls block.
OTHERWISE = {
    "aclose", "answered", "begun", "connect", "connected", "posted", "resuming_workflow", "running_workflow", "saying",
    "wait", "with_token",
}  # fmt: skip


def public(cls: type) -> dict[str, Any]:
    return {name: value for name, value in inspect.getmembers(cls) if not name.startswith("_")}


@pytest.mark.behaviour("client:sync:same-surface")
@pytest.mark.parametrize("cls", PAIRS, ids=lambda cls: cls.__name__)
def test_each_method_is_there_with_the_same_arguments(cls: type) -> None:
    ours, theirs = public(PAIRS[cls]), public(cls)
    assert set(theirs) - set(ours) - OTHERWISE == set(), "name them in client/sync.py"
    for name in set(theirs) - OTHERWISE:
        if callable(theirs[name]):
            assert inspect.signature(ours[name]).parameters == inspect.signature(theirs[name]).parameters
            assert ours[name].__doc__ == theirs[name].__doc__
            assert not inspect.iscoroutinefunction(ours[name])
            assert "Async" not in str(inspect.signature(ours[name]).return_annotation)


def script(client: SyncFluxClient) -> None:
    """Checked by mypy, and not run."""
    session = assert_type(client.start_session("agent", name="one"), SyncSession)
    assert_type(session.send("hi", key="k"), Generator[Event, None, None])
    assert_type(session.info(), dict[str, Any])
    assert_type(client.sessions.list(agent="agent"), Generator[dict[str, Any], None, None])
    session.send(3)  # type: ignore[arg-type]
    client.agents.get()  # type: ignore[call-arg]


@pytest.mark.behaviour("client:sync:typed")
def test_names_and_results_are_shown() -> None:
    shown = inspect.signature(SyncSession.send)
    assert [*shown.parameters] == ["self", "text", "mode", "model", "key", "files"]
    assert shown.return_annotation == "Generator[Event, None, None]"
    assert inspect.get_annotations(script) == {"client": SyncFluxClient, "return": None}


@pytest.mark.behaviour("client:sync:closed")
def test_a_closed_client_says_so() -> None:
    with SyncFluxClient("http://flux", transport=httpx.MockTransport(lambda _: httpx.Response(204))) as client:
        assert client.post("/sessions/x/stop") == {}
        waiting = client.agents.list()
    client.close()
    with pytest.raises(RuntimeError, match=r"^this client is closed$"):
        client.get("/")
    with pytest.raises(RuntimeError, match=r"^this client is closed$"):
        next(waiting)


@pytest.mark.behaviour("client:names:public")
def test_flux_offers_the_clients_by_name() -> None:
    assert flux.FluxClient is flux.PyFlueClient is FluxClient
    assert flux.SyncFluxClient is SyncFluxClient
