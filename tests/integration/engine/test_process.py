"""A whole process: how it leaves, what it asks of providers, and runs that fail before their first step."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import pytest

from flux.agents.parts.kept import Recent
from flux.events import Cancelled, ChatResponse, RunFailed, ToolDone
from flux.models.base import ModelEvent, ModelLimits, ModelRequest
from flux.store import log, workers
from flux.store.database import LOCAL, one
from flux.store.opening import open_database
from flux.testing import Call, Reply, ScriptedModel
from flux.tools.function import tool_of
from tests.integration.agents.world import GUARD, of, opened, outcomes


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failed runs are tried again without a pause."""
    monkeypatch.setattr("flux.engine.running.runner.BACKOFFS", (0.0, 0.0))


@pytest.mark.behaviour("engine:recovery:heartbeat", "engine:recovery:leaves")
async def test_a_process_that_leaves_is_alive_until_its_runs_are_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, go_on, draining = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def pay() -> str:
        """Pay."""
        started.set()
        await go_on.wait()
        return "paid"

    database = await open_database(f"sqlite:///{tmp_path / 'flux.db'}")
    async with AsyncExitStack() as stack, asyncio.timeout(GUARD):
        world = await stack.enter_async_context(opened(tmp_path, {"pay": tool_of(pay)}, heartbeat=0.01, grace=GUARD))
        await world.agent([Reply(calls=(Call("pay"),)), Reply("Done.")], tools=["pay"])
        await world.start("go")
        await started.wait()
        drain = world.process.runner.drain

        def drained() -> None:
            drain()
            draining.set()

        monkeypatch.setattr(world.process.runner, "drain", drained)
        leaving = asyncio.create_task(stack.aclose())
        await draining.wait()
        await database.write(one("update workers set seen = 0"))
        while await database.read(workers.silent(world.process.worker_id, 20)):
            await anyio.lowlevel.checkpoint()
        go_on.set()
        await leaving
    assert await database.read(one("select id from workers")) == []
    assert list((tmp_path / "workers").iterdir()) == []
    row = await database.read(one("select state, failures, worker from executions"))
    assert row == [("scheduled", 0, None)]  # the call used the grace, the next model call did not begin
    await database.close()

    async with opened(tmp_path, {"pay": tool_of(pay)}) as later:
        later.models["main"] = ScriptedModel([Reply("never"), Reply("Done.")])
        later.id = world.id
        await later.rest("idle")
        assert outcomes(await later.log()) == [("pay", "success")]
        assert await later.faults() == []


@pytest.mark.behaviour("engine:dispatch:drains")
async def test_a_once_call_that_outlasts_the_grace_is_told_to_be_interrupted(tmp_path: Path) -> None:
    started = asyncio.Event()

    async def pay() -> str:
        """Pay."""
        started.set()
        await asyncio.Event().wait()
        return "paid"

    async with asyncio.timeout(GUARD), opened(tmp_path, {"pay": tool_of(pay)}, grace=0.0) as world:
        await world.agent([Reply(calls=(Call("pay"),)), Reply("Done.")], tools=["pay"])
        await world.start("go")
        await started.wait()
    database = await open_database(f"sqlite:///{tmp_path / 'flux.db'}")
    assert await database.read(one("select state, failures from executions")) == [("scheduled", 0)]
    rows = await database.read(log.read(LOCAL, world.id))
    (done,) = [row.stored().entry for row in rows if row.type == "tool_done"]
    assert isinstance(done, ToolDone)
    assert done.outcome == "interrupted"
    await database.close()


class Limited(ScriptedModel):
    """Its limits raise, or never come."""

    def __init__(self, problem: str) -> None:
        super().__init__([Reply("hello")])
        self.problem = problem
        self.asked = asyncio.Event()
        self.times = 0

    async def limits(self) -> ModelLimits:
        self.times += 1
        self.asked.set()
        if self.problem == "raises":
            raise ZeroDivisionError("a provider with a bug")
        if self.problem == "cancelled":
            raise asyncio.CancelledError
        if self.problem == "hangs":
            await asyncio.Event().wait()
        return ModelLimits()


@pytest.mark.behaviour("engine:limits:never-fail")
@pytest.mark.parametrize("problem", ["raises", "cancelled", "hangs"])
async def test_limits_that_cannot_be_had_are_unknown(
    tmp_path: Path, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flux.agents.parts.kept.ASK_SECONDS", 0.01)
    async with opened(tmp_path) as world:
        await world.agent(Limited(problem))
        entries = await world.ask("hello")
        assert [end.content for end in of(entries, ChatResponse)] == ["hello"]
        assert (await world.row()).epoch == 1


@pytest.mark.behaviour("engine:limits:never-fail")
async def test_a_run_that_is_stopped_waits_for_no_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flux.agents.parts.kept.ASK_SECONDS", 1000)
    async with opened(tmp_path) as world:
        model = Limited("hangs")
        await world.agent(model)
        await world.start("hello")
        async with asyncio.timeout(GUARD):
            await model.asked.wait()
        await world.cancel()
        await world.rest("idle")
        assert len(of(await world.log(), Cancelled)) == 1
        assert await world.faults() == []


class Broken(Limited):
    """A model that breaks its run."""

    def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        raise ZeroDivisionError("a bug")


@pytest.mark.behaviour("engine:failures:settled-without-model")
async def test_a_run_that_has_failed_is_settled_without_asking_a_model(tmp_path: Path) -> None:
    async with opened(tmp_path, run_failures=2) as world:
        model = Broken("none")
        await world.agent(model)
        entries = await world.ask("hello")
        assert len(of(entries, RunFailed)) == 1
        assert model.times == 2
        assert await world.faults() == []


@pytest.mark.behaviour("engine:failures:settled-without-model")
async def test_a_session_whose_log_cannot_be_read_fails_its_runs_and_takes_the_next_message(tmp_path: Path) -> None:
    async with opened(tmp_path, run_failures=2) as world:
        await world.agent([Reply("hello")])
        await world.start()
        await world.process.database.write(one("update events set body = 'not JSON'"))
        for _ in range(2):
            await world.say("hello")
            await world.rest("idle")
            row = await world.row()
            assert (row.failures, row.run_id) == (0, None)
            assert row.last_error is not None
            assert "4 times" in row.last_error
        ends = await world.process.database.read(one("select count(*) from events where type = 'error'"))
        assert ends == [(2,)]
        said = await world.process.database.read(one("select count(*) from events where type = 'user_message'"))
        assert said == [(2,)]


@pytest.mark.behaviour("engine:kept:bounded")
def test_what_was_used_last_is_kept_up_to_a_number_and_a_weight() -> None:
    kept: Recent[str, str] = Recent(3, 10, len)
    for key, value in (("a", "1"), ("b", "22"), ("c", "333")):
        kept.put(key, value)
    assert kept.get("a") == "1"
    kept.put("d", "4")
    assert [kept.get(key) for key in "abcd"] == ["1", None, "333", "4"]
    kept.put("e", "55555555")
    assert [kept.get(key) for key in "acde"] == [None, None, "4", "55555555"]
    kept.put("f", "a very long value")
    assert [kept.get(key) for key in "def"] == [None, None, "a very long value"]
    assert kept.take("f") == "a very long value"
    assert kept.take("f") is None
    kept.put("g", "7777")
    kept.put("g", "77")
    kept.put("h", "88888888")
    assert kept.get("g") == "77"
