"""Models and tools that fail: each failure is data, and the session stays usable."""

import asyncio
import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from flux.agents.define.definition import define
from flux.engine.intake.inputs import NewMessage
from flux.errors import AgentNotFound, IdempotencyMismatch
from flux.events import AssistantSaid, ChatResponse, Compacted, ModelFailed, RunFailed, ToolDone
from flux.messages import ModelFailure, Usage
from flux.models.base import ModelRequest
from flux.models.scripted import Turn
from flux.store import agents
from flux.store.database import LOCAL
from flux.testing import Call, Reply, ScriptedModel
from tests.integration.agents.tools import Bench
from tests.integration.agents.world import World, of, opened, outcomes

AT_ONCE = ModelFailure("overloaded", "transient", retry_after=-1.0)
REJECTED = ModelFailure("bad request", "rejected")


def in_turn(*turns: Turn) -> Callable[[ModelRequest], Turn]:
    """A script by the number of the call, whatever the call is; the last turn is repeated."""
    calls = itertools.count()
    return lambda request: turns[min(next(calls), len(turns) - 1)]


@pytest.mark.behaviour("loop:model:retries")
async def test_a_transient_failure_is_retried_and_each_attempt_is_in_the_log(world: World) -> None:
    await world.agent(in_turn(AT_ONCE, AT_ONCE, Reply("at last")))
    log = await world.ask("go")
    assert [failure.attempt for failure in of(log, ModelFailed)] == [1, 2]
    (said,) = of(log, AssistantSaid)
    assert {failure.message_id for failure in of(log, ModelFailed)} == {said.message_id}
    assert [response.content for response in of(log, ChatResponse)] == ["at last"]
    assert await world.faults() == []


@pytest.mark.behaviour("loop:model:gives-up")
async def test_after_its_attempts_a_model_is_given_up_and_the_session_goes_on(world: World) -> None:
    await world.agent(in_turn(AT_ONCE, AT_ONCE, AT_ONCE, Reply("better now")))
    log = await world.ask("go")
    assert [failure.retry_at is None for failure in of(log, ModelFailed)] == [False, False, True]
    (failed,) = of(log, RunFailed)
    assert (failed.message, failed.retryable) == ("overloaded", True)
    assert await world.faults() == []
    log = await world.ask("and now?")
    assert [response.content for response in of(log, ChatResponse)] == ["better now"]


@pytest.mark.behaviour("loop:model:gives-up")
async def test_what_no_retry_can_mend_is_not_retried(world: World) -> None:
    await world.agent(in_turn(REJECTED))
    log = await world.ask("go")
    assert len(world.model.requests) == 1
    assert of(log, RunFailed) == [RunFailed(message="bad request", retryable=False)]
    assert await world.faults() == []


@pytest.mark.behaviour("loop:model:fallback")
@pytest.mark.parametrize("first", [(REJECTED,), (AT_ONCE, AT_ONCE, AT_ONCE)])
async def test_a_model_that_is_given_up_is_followed_by_the_next(world: World, first: tuple[Turn, ...]) -> None:
    world.models["second"] = ScriptedModel(in_turn(AT_ONCE, AT_ONCE, Reply("from the second")), name="test/second")
    await world.agent(in_turn(*first), fallback_models=["test/second"])
    log = await world.ask("go")
    assert len(world.model.requests) == len(first)
    assert [response.content for response in of(log, ChatResponse)] == ["from the second"]
    assert [failure.attempt for failure in of(log, ModelFailed)] == list(range(1, len(first) + 3))
    assert of(log, AssistantSaid)[0].model == "test/second"


@pytest.mark.behaviour("loop:model:long-retry-parks")
async def test_a_long_retry_after_gives_up_the_worker_and_the_session_can_be_stopped(world: World) -> None:
    await world.agent(in_turn(ModelFailure("come back later", "transient", retry_after=3600.0), Reply("hello")))
    await world.start("go")
    assert await world.rest() == "waiting"
    row = await world.row()
    assert (row.waiting_for, row.worker) == ("retry", None)
    assert row.due is not None
    assert row.due > row.updated + 3000
    await world.cancel()
    assert await world.rest("idle") == "idle"
    assert await world.faults() == []


def by_size(limit: int) -> Callable[[ModelRequest], Turn]:
    """Overflow as soon as a prompt has more messages than this; summarise when asked."""

    def turn(request: ModelRequest) -> Turn:
        if "summarise" in request.system:
            return Reply("They greeted each other.", usage=Usage(7, 3))
        return ModelFailure("too long", "overflow") if len(request.messages) > limit else Reply("hello")

    return turn


@pytest.mark.behaviour("loop:overflow:compacts")
async def test_an_overflow_is_compacted_and_the_run_goes_on(world: World) -> None:
    await world.agent(by_size(4))
    for text in ("one", "two", "three"):
        log = await world.ask(text)
    assert len(of(log, ChatResponse)) == 3
    (compacted,) = of(log, Compacted)
    assert compacted.summary == "They greeted each other."
    prompt = world.prompts()[-1]
    assert prompt[0].endswith("They greeted each other.")
    assert prompt[-1] == "user: three"
    assert await world.faults() == []


@pytest.mark.behaviour("loop:overflow:clear-failure")
async def test_an_overflow_that_no_summary_mends_is_a_clear_failure(world: World) -> None:
    await world.agent(by_size(0))
    log = await world.ask("one")
    assert [failed.message for failed in of(log, RunFailed)] == ["too long"]
    assert await world.faults() == []


@pytest.mark.behaviour("loop:overflow:ahead")
async def test_history_near_the_window_is_compacted_before_it_overflows(world: World) -> None:
    def turn(request: ModelRequest) -> Turn:
        if "summarise" in request.system:
            return Reply("They greeted each other.")
        return Reply("hello", usage=Usage(900 if len(request.messages) > 2 else 100, 10))

    await world.agent(turn, context=1000, max_tokens=100)
    for text in ("one", "two", "three"):
        log = await world.ask(text)
    assert len(of(log, Compacted)) == 1
    assert of(log, ModelFailed) == []
    assert len(of(log, ChatResponse)) == 3


@pytest.mark.behaviour("loop:repeats:warns")
async def test_the_same_failing_call_is_warned_about_and_then_ends_the_run(world: World, bench: Bench) -> None:
    await world.agent(in_turn(Reply("", calls=(Call("break", {"n": 1}),))), tools=["break"])
    log = await world.ask("go")
    contents = [done.content for done in of(log, ToolDone)]
    assert len(contents) == 5
    assert ["in a row" in content for content in contents] == [False, False, True, True, True]
    assert all("OSError: it is broken" in content for content in contents)
    (failed,) = of(log, RunFailed)
    assert "5 times in a row" in failed.message
    assert await world.faults() == []


@pytest.mark.behaviour("loop:limits:final-answer")
async def test_after_its_tool_calls_an_agent_must_answer_and_keeps_its_tools_in_sight(world: World) -> None:
    def turn(request: ModelRequest) -> Turn:
        return Reply("that is all" if request.final else "", calls=(Call("look"),))

    await world.agent(turn, tools=["look"], max_tool_calls=2)
    log = await world.ask("go")
    assert [response.content for response in of(log, ChatResponse)] == ["that is all"]
    assert [request.final for request in world.model.requests] == [False, False, True]
    assert all(request.tools for request in world.model.requests)
    assert len(outcomes(log)) == 2
    assert await world.faults() == []


@pytest.mark.behaviour("loop:limits:budget")
async def test_a_used_up_budget_ends_the_run_and_the_next_has_its_own(world: World) -> None:
    script = in_turn(
        Reply("", calls=(Call("look"),), usage=Usage(60, 0)),
        Reply("", calls=(Call("look"),), usage=Usage(150, 0)),
        Reply("fine", usage=Usage(60, 0)),
    )
    await world.agent(script, tools=["look"], budget={"run": {"max_tokens": 200}})
    log = await world.ask("go")
    (failed,) = of(log, RunFailed)
    assert "the run's budget of 200 tokens is used up (210)" in failed.message
    assert len(world.model.requests) == 2
    assert outcomes(log) == [("look", "success"), ("look", "cancelled")]
    log = await world.ask("again")
    assert len(of(log, ChatResponse)) == 1
    assert await world.faults() == []


@pytest.mark.behaviour("loop:tools:timeout")
async def test_a_call_that_takes_too_long_is_stopped_and_says_so(world: World) -> None:
    await world.agent(
        [Reply("", calls=(Call("slow"), Call("impatient"), Call("refuse"))), Reply("ok")],
        tools=["slow", "impatient", "refuse"],
    )
    log = await world.ask("go")
    assert outcomes(log) == [("slow", "timeout"), ("impatient", "error"), ("refuse", "error")]
    contents = [done.content for done in of(log, ToolDone)]
    assert contents == ["[timed out after 0.01 s]", "TimeoutError: no reply from printer", "not today"]


@pytest.mark.behaviour("loop:tools:overlap")
async def test_reads_overlap_up_to_the_limit_and_others_keep_their_order(world: World, bench: Bench) -> None:
    reads = tuple(Call("hold_read", {"n": n}) for n in range(5))
    await world.agent(
        [Reply("", calls=(*reads, Call("pay", {"n": 1}), Call("pay", {"n": 2}))), Reply("ok")],
        tools=["hold_read", "pay"],
        max_concurrent_tools=3,
    )
    await world.start("go")
    await asyncio.wait_for(bench.three.wait(), 10)
    bench.go.set()
    await world.rest()
    assert bench.most_running == 3
    assert bench.done[5:] == ["pay 1", "pay 2"]
    assert await world.faults() == []


@pytest.mark.behaviour("loop:failures:tried-again")
async def test_a_run_that_raises_is_tried_again(world: World) -> None:
    await world.agent(raising(1))
    log = await world.ask("go")
    assert [response.content for response in of(log, ChatResponse)] == ["well again"]
    assert await world.faults() == []


@pytest.mark.behaviour("loop:failures:run-fails")
async def test_a_run_that_raises_too_often_fails_and_the_session_goes_on(tmp_path: Path) -> None:
    async with opened(tmp_path, run_failures=1) as world:
        await world.agent(raising(1))
        log = await world.ask("go")
        (failed,) = of(log, RunFailed)
        assert "failed 1 times in a row" in failed.message
        assert await world.faults() == []
        log = await world.ask("and now?")
        assert [response.content for response in of(log, ChatResponse)] == ["well again"]


def raising(times: int) -> Callable[[ModelRequest], Turn]:
    """A model adapter with a bug that shows so many times."""
    calls = itertools.count()

    def turn(request: ModelRequest) -> Turn:
        if next(calls) < times:
            raise ZeroDivisionError
        return Reply("well again")

    return turn


@pytest.mark.behaviour("sessions:agents:unreadable")
async def test_a_session_whose_agent_cannot_be_bound_here_fails_clearly(tmp_path: Path, bench: Bench) -> None:
    async with opened(tmp_path, bench.tools()) as world:
        await world.agent([Reply("hello")], tools=["look"])
        id = await world.start()
    async with opened(tmp_path) as world:  # the same home without the tools of the code
        world.models["main"] = ScriptedModel([Reply("hello")])
        world.id = id
        log = await world.ask("go")
        (failed,) = of(log, RunFailed)
        assert "look" in failed.message
        assert await world.faults() == []


@pytest.mark.behaviour("sessions:agents:unreadable")
async def test_a_session_whose_definition_cannot_be_read_any_more_fails_clearly(world: World) -> None:
    stored = '{"name": "agent", "model": "test/main", "from_the_future": 1}'
    await world.process.database.write(agents.put(LOCAL, "agent", "digest", stored, create=True, update=True))
    log = await world.ask("go")
    (failed,) = of(log, RunFailed)
    assert "from_the_future" in failed.message
    assert await world.faults() == []


@pytest.mark.behaviour("sessions:idempotency:agent-changed")
async def test_a_start_may_be_repeated_after_its_agent_has_changed(world: World) -> None:
    await world.agent([Reply("hello")])
    sessions = world.process.sessions
    first = await sessions.start(LOCAL, "agent", NewMessage("go"), key="k")
    changed = define({"name": "agent", "model": "test/main", "system_prompt": "Changed."})
    await world.process.agents.put(LOCAL, changed, create=False, update=True)
    again = await sessions.start(LOCAL, "agent", NewMessage("go"), key="k")
    assert (again.id, again.repeated) == (first.id, True)
    with pytest.raises(IdempotencyMismatch):
        await sessions.start(LOCAL, "agent", NewMessage("stay"), key="k")


@pytest.mark.behaviour("sessions:idempotency:agent-deleted")
async def test_a_start_may_be_repeated_after_its_agent_and_directory_are_gone(world: World, tmp_path: Path) -> None:
    await world.agent([Reply("hello")])
    sessions = world.process.sessions
    place = tmp_path / "place"
    place.mkdir()
    first = await sessions.start(LOCAL, "agent", NewMessage("go"), workspace=str(place), key="k")
    await world.process.agents.delete(LOCAL, "agent")
    world.id = first.id
    await world.rest()
    shutil.rmtree(place)
    again = await sessions.start(LOCAL, "agent", NewMessage("go"), workspace=str(place), key="k")
    assert (again.id, again.seq, again.repeated) == (first.id, first.seq, True)
    with pytest.raises(IdempotencyMismatch):
        await sessions.start(LOCAL, "agent", NewMessage("stay"), workspace=str(place), key="k")
    with pytest.raises(AgentNotFound):
        await sessions.start(LOCAL, "agent", NewMessage("go"), key="other")
