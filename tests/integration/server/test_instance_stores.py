"""Agents of a project with a session store of their own: what is taken from it and given to it, over HTTP."""

import asyncio
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from flux import create_agent, init_agent
from flux.agents.code.stores import SessionKey
from flux.agents.define.agent import AgentCreateContext
from flux.agents.harness.host import close_hosts
from flux.agents.project.discovery import Project
from flux.models.configured import configure_provider, forget_provider
from flux.models.scripted import Reply, ScriptedModel
from flux.testing.session_stores import MemorySessionStore
from tests.integration.server.serving import Served, serving
from tests.integration.server.test_errors import error_of
from tests.integration.server.test_instances import fate, prompt
from tests.integration.server.test_sessions import call

KEY = SessionKey("support", "t-1", "default")
#: What the model says, by how often it has spoken in a conversation.
REPLIES = ("One.", "Two.", "Three.")


class Store(MemorySessionStore):
    """Says when it was given something, and can be told to fail or to take its time."""

    def __init__(self) -> None:
        super().__init__()
        self.given = asyncio.Event()
        self.open = asyncio.Event()
        self.open.set()
        self.fault: Exception | None = None

    async def load(self, key: SessionKey) -> bytes | None:
        if self.fault is not None:
            raise self.fault
        return await super().load(key)

    async def save(self, key: SessionKey, data: bytes) -> None:
        self.given.set()
        await self.open.wait()
        if self.fault is not None:
            raise self.fault
        await super().save(key, data)

    async def until(self, text: str, key: SessionKey = KEY) -> None:
        """Return when it keeps a conversation that holds a text."""
        async with asyncio.timeout(20):
            while text.encode() not in self.saved.get(key, b""):
                self.given.clear()
                await self.given.wait()
                await asyncio.sleep(0)


def desk(home: Path, store: Store) -> AbstractAsyncContextManager[Served]:
    """A server of a project whose agent keeps its conversations in a store too."""

    def build(ctx: AgentCreateContext) -> dict[str, Any]:
        return {"model": "test/support", "persist": store}

    home.mkdir(exist_ok=True)
    agents = {"support": create_agent(build, name="support")}
    model = ScriptedModel([Reply(text) for text in REPLIES])
    return serving(home, in_process=True, project=Project("shop", home, agents, {}, {}), support=model)


@pytest.mark.behaviour("instances:store:goes-on")
async def test_an_instance_goes_on_from_its_store_in_another_database(tmp_path: Path) -> None:
    store = Store()
    async with desk(tmp_path / "one", store) as served:
        await prompt(served, "t-1")
        await store.until("One.")
    async with desk(tmp_path / "two", store) as served:
        await prompt(served, "t-1")
        receipt = await call(served, "POST", "/agents/support/t-1/dispatch", 202, {"input": 1})
        await fate(served, receipt["dispatch_id"])
        await store.until("Three.")
        await prompt(served, "t-2")
        model = served.models["support"]
        assert isinstance(model, ScriptedModel)
        assert [len(request.messages) for request in model.requests] == [3, 5, 1]
    assert b"One." in store.saved[KEY]
    assert b"Two." in store.saved[KEY]


@pytest.mark.behaviour("instances:store:goes-on")
async def test_code_goes_on_from_what_was_said_over_http(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store()
    async with desk(tmp_path / "one", store) as served:
        await prompt(served, "t-1")
        await store.until("One.")
    monkeypatch.setenv("FLUX_HOME", str(tmp_path / "two"))
    model = ScriptedModel([Reply(text) for text in REPLIES])
    configure_provider("test", model=lambda _: model)
    agent = create_agent({"model": "test/support", "persist": store}, name="support")
    await (await (await init_agent(agent, id="t-1")).session()).prompt("more")
    assert len(model.requests[0].messages) == 3
    await close_hosts()
    forget_provider("test")


@pytest.mark.behaviour("instances:store:crash")
async def test_what_a_crash_kept_from_a_store_is_given_with_the_next_run(tmp_path: Path) -> None:
    store = Store()
    store.open.clear()
    async with desk(tmp_path, store) as served:
        await prompt(served, "t-1")
        await asyncio.wait_for(store.given.wait(), 20)
    assert store.saved == {}
    store.open.set()
    async with desk(tmp_path, store) as served:
        await prompt(served, "t-1")
        await store.until("Two.")
        model = served.models["support"]
        assert isinstance(model, ScriptedModel)
        assert len(model.requests[0].messages) == 3
    assert b"One." in store.saved[KEY]


@pytest.mark.behaviour("instances:store:fails")
async def test_a_store_that_fails_refuses_new_sessions_and_loses_nothing_of_old_ones(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store()
    async with desk(tmp_path, store) as served:
        await prompt(served, "t-1")
        await store.until("One.")
        store.fault = OSError("the disk is full")
        refused = error_of(await served.http.post("/agents/support/new", json={"message": "hello"}), 500)
        assert "the session store of agent support failed: OSError: the disk is full" in refused["message"]
        assert (await call(served, "GET", "/sessions", 200))["items"][0]["instance"] == "t-1"
        store.given.clear()
        await prompt(served, "t-1")
        await asyncio.wait_for(store.given.wait(), 20)
        store.fault = None
        await prompt(served, "t-1")
        await store.until("Three.")
    assert b"Two." in store.saved[KEY]
    assert "the next run of this session saves it" in caplog.text
    store.saved[SessionKey("support", "bad", "default")] = b"no conversation"
    async with desk(tmp_path, store) as served:
        refused = error_of(await served.http.post("/agents/support/bad", json={"message": "hello"}), 500)
        assert "is no conversation" in refused["message"]


@pytest.mark.behaviour("instances:store:deleted")
async def test_a_session_that_is_deleted_is_forgotten_by_its_store(tmp_path: Path) -> None:
    store = Store()
    async with desk(tmp_path, store) as served:
        first = (await prompt(served, "t-1"))["result"]["metadata"]["session_id"]
        await store.until("One.")
        await call(served, "POST", f"/sessions/{first}/stop", 202)
        second = (await prompt(served, "t-1"))["result"]["metadata"]["session_id"]
        await store.until("Two.")
        await served.http.delete(f"/sessions/{first}")
        assert b"One." in store.saved[KEY]
        await call(served, "POST", f"/sessions/{second}/stop", 202)
        await served.http.delete(f"/sessions/{second}")
        assert store.saved == {}
