"""Pauses, approvals, timers, and other executions: what a workflow can wait for."""

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flux import ExecutionContext, call, pause, task, workflow
from flux.engine.intake.answers import Decision
from flux.engine.workflows.flow import parallel
from flux.errors import ExecutionFinished, ExecutionNotFound, InterruptDecided, NotPaused
from flux.store.database import LOCAL, Database, Scope
from tests.integration.workflows.machine import Machine, working

ran: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    ran.clear()


@task
async def work(x: str) -> str:
    ran[x] += 1
    return x.upper()


@task.with_options(effect="once")
async def confirmed(x: int) -> Any:
    return [x, await pause("sure")]


@workflow.with_options(namespace="waits")
async def confirms(ctx: ExecutionContext[int]) -> Any:
    return await confirmed(ctx.input)


@pytest.mark.behaviour("workflows:pause:inside-once")
async def test_a_task_that_may_run_once_goes_on_after_a_pause_inside_it(machine: Machine) -> None:
    context = await machine.run(confirms, 1)
    assert context.is_paused
    await machine.resume(context.execution_id, "yes")
    assert (await machine.until(context.execution_id, "ended")).output == [1, "yes"]


@workflow.with_options(namespace="waits")
async def asks(ctx: ExecutionContext[str]) -> Any:
    before = await work("before")
    answer = await pause("address", output={"ask": ctx.input})
    return [before, answer, await work("after")]


@pytest.mark.behaviour("workflows:pause:resume")
async def test_a_pause_shows_its_output_and_returns_what_it_is_resumed_with(database: Database) -> None:
    async with working(database) as machine:
        context = await machine.run(asks, "where?")
        assert (context.state, context.output) == ("PAUSED", None)
        assert context.pause == {"name": "address", "output": {"ask": "where?"}}
    async with working(database) as machine:  # days later, in another process
        await machine.resume(context.execution_id, {"city": "Rome"}, "address")
        done = await machine.until(context.execution_id, "ended")
    assert done.output == ["BEFORE", {"city": "Rome"}, "AFTER"]
    assert ran == {"before": 1, "after": 1}
    types = [event.type for event in done.events if event.type.startswith("WORKFLOW_")]
    assert types == [
        "WORKFLOW_SCHEDULED",
        "WORKFLOW_CLAIMED",
        "WORKFLOW_STARTED",
        "WORKFLOW_PAUSED",
        "WORKFLOW_RESUMING",
        "WORKFLOW_CLAIMED",
        "WORKFLOW_RESUMED",
        "WORKFLOW_COMPLETED",
    ]


@pytest.mark.behaviour("workflows:summary")
async def test_a_summary_tells_the_same_with_events_and_without(machine: Machine) -> None:
    id = (await machine.run(asks, "where?")).execution_id

    async def summary() -> dict[str, Any]:
        detailed = await machine.executions.summary(LOCAL, id, detailed=True)
        short = await machine.executions.summary(LOCAL, id)
        assert short == {key: value for key, value in detailed.items() if key != "events"}
        return short

    paused = await summary()
    assert (paused["state"], paused["input"], paused["pause"]) == ("PAUSED", "where?", "address")
    assert paused["output"] == {"ask": "where?"}
    await machine.resume(id, "Rome")
    await machine.until(id, "ended")
    done = await summary()
    assert (done["state"], done["output"]) == ("COMPLETED", ["BEFORE", "Rome", "AFTER"])
    for scope in (Scope("default", "eve"), Scope("other", "local")):
        with pytest.raises(ExecutionNotFound):
            await machine.executions.summary(scope, id)


@workflow.with_options(namespace="waits")
async def asks_both(ctx: ExecutionContext[None]) -> Any:
    async def side(name: str) -> Any:
        await work(f"{name} before")
        return [await pause(name), await work(f"{name} after")]

    return await asyncio.gather(side("a"), side("b"))


@pytest.mark.behaviour("workflows:pause:several")
async def test_open_pauses_are_answered_by_name_in_any_order(machine: Machine) -> None:
    context = await machine.run(asks_both)
    id = context.execution_id
    assert sorted(one["name"] for one in context.pause["open"]) == ["a", "b"]
    with pytest.raises(NotPaused, match=r"several open pauses \(a, b\)"):
        await machine.resume(id, 1)
    with pytest.raises(NotPaused, match="no open pause 'c'"):
        await machine.resume(id, 1, "c")
    await machine.resume(id, "for b", "b")
    async with asyncio.timeout(10):
        async for _ in machine.feed.follow(LOCAL, id):
            if ran["b after"] and (await machine.row(id)).state == "waiting":
                break
    await machine.resume(id, "for a")
    done = await machine.until(id, "ended")
    assert done.output == [["for a", "A AFTER"], ["for b", "B AFTER"]]
    assert set(ran.values()) == {1}
    with pytest.raises(ExecutionFinished, match=r"has finished \(COMPLETED\)"):
        await machine.resume(id, 1)


@pytest.mark.behaviour("workflows:pause:unknown-execution")
async def test_only_ones_own_executions_are_resumed(machine: Machine) -> None:
    with pytest.raises(ExecutionNotFound):
        await machine.resume("nobody", 1)


@workflow.with_options(namespace="waits")
async def gives_up(ctx: ExecutionContext[float]) -> Any:
    return [await pause("late", after=timedelta(seconds=ctx.input)), await work("after")]


@pytest.mark.behaviour("workflows:pause:wakes-by-itself")
@pytest.mark.parametrize("seconds", [0.05, 1.5])
async def test_a_pause_with_a_time_wakes_by_itself_and_takes_no_late_answer(machine: Machine, seconds: float) -> None:
    id = await machine.start(gives_up, seconds)
    done = await machine.until(id, "ended")
    assert done.output == [None, "AFTER"]
    with pytest.raises(ExecutionFinished):
        await machine.resume(id, "too late")


@workflow.with_options(namespace="waits")
async def until_then(ctx: ExecutionContext[None]) -> Any:
    return await pause("then", until=datetime.now(UTC) - timedelta(seconds=1))


@pytest.mark.behaviour("workflows:pause:wakes-by-itself")
async def test_a_time_in_the_past_wakes_at_once(machine: Machine) -> None:
    assert (await machine.until(await machine.start(until_then), "ended")).has_succeeded


@workflow.with_options(namespace="waits")
async def waits_for(ctx: ExecutionContext[str]) -> Any:
    return [await pause("other", on_complete=ctx.input), await work("after")]


@pytest.mark.behaviour("workflows:pause:on-complete")
@pytest.mark.parametrize("first", ["waiter", "target"])
async def test_a_pause_ends_with_the_execution_it_waits_for(machine: Machine, first: str) -> None:
    target = (await machine.run(asks, "?")).execution_id
    if first == "target":
        await machine.resume(target, "x")
        await machine.until(target, "ended")
    id = await machine.start(waits_for, target)
    if first == "waiter":
        await machine.until(id, "waiting")
        await machine.resume(target, "x")
    assert (await machine.until(id, "ended")).output == [None, "AFTER"]


@task.with_options(requires_approval=lambda amount: amount > 10)
async def pay(amount: int) -> str:
    ran[f"pay {amount}"] += 1
    return f"paid {amount}"


@workflow.with_options(namespace="waits")
async def pays_many(ctx: ExecutionContext[list[int]]) -> Any:
    return await parallel(*(pay(amount) for amount in ctx.input))


@pytest.mark.behaviour("workflows:approval:asked")
async def test_a_task_that_needs_approval_waits_for_it(machine: Machine) -> None:
    context = await machine.run(pays_many, [5, 50])
    id = context.execution_id
    assert (context.state, dict(ran)) == ("PAUSED", {"pay 5": 1})
    assert (await machine.row(id)).waiting_for == "approval"
    await machine.decide(id, "approve")
    done = await machine.until(id, "ended")
    assert (done.output, dict(ran)) == (["paid 5", "paid 50"], {"pay 5": 1, "pay 50": 1})
    types = [event.type for event in done.events]
    assert types.index("TASK_AWAITING_APPROVAL") < types.index("TASK_APPROVED")


@pytest.mark.behaviour("workflows:approval:rejected")
async def test_a_rejected_task_fails_without_retry_fallback_or_rollback(machine: Machine) -> None:
    context = await machine.run(pays_many, [50])
    await machine.decide(context.execution_id, "reject", reason="too much")
    done = await machine.until(context.execution_id, "ended")
    assert (done.state, done.error) == ("FAILED", "pay was rejected by local: too much")
    assert "TASK_REJECTED" in [event.type for event in done.events]
    asked = await machine.executions.approvals(LOCAL, context.execution_id, state="rejected", after=None, limit=5)
    assert len(asked) == 1
    assert not ran


@workflow.with_options(namespace="waits")
async def pays_twice(ctx: ExecutionContext[None]) -> Any:
    return [await pay(20), await pay(30)]


@pytest.mark.behaviour("workflows:approval:always")
async def test_a_standing_grant_holds_for_the_task_in_this_execution(machine: Machine) -> None:
    context = await machine.run(pays_twice)
    await machine.decide(context.execution_id, "approve", always=True)
    done = await machine.until(context.execution_id, "ended")
    assert done.output == ["paid 20", "paid 30"]
    asked = await machine.executions.approvals(LOCAL, None, state="approved", after=None, limit=5)
    assert len(asked) == 1


@workflow.with_options(namespace="waits")
async def inner(ctx: ExecutionContext[Any]) -> Any:
    if ctx.input == "ask":
        return await pause("inner")
    if ctx.input == "break":
        raise ValueError("inside")
    return [ctx.input, await work(str(ctx.input))]


@workflow.with_options(namespace="waits")
async def outer(ctx: ExecutionContext[Any]) -> Any:
    started = await call("waits/inner", "alone", mode="async")
    return [started, await call(inner, ctx.input), await work("after")]


@pytest.mark.behaviour("workflows:call:output")
async def test_a_called_workflow_is_an_execution_of_its_own(machine: Machine) -> None:
    context = await machine.until(await machine.start(outer, "x"), "ended")
    started, output, after = context.output
    assert (output, after) == (["x", "X"], "AFTER")
    assert (await machine.until(started, "ended")).output == ["alone", "ALONE"]
    assert ran == {"x": 1, "alone": 1, "after": 1}
    assert (await machine.row(started)).parent == context.execution_id


@pytest.mark.behaviour("workflows:call:waits")
async def test_a_caller_waits_as_long_as_the_called_one(machine: Machine) -> None:
    id = await machine.start(outer, "ask")
    context = await machine.until(id, "waiting")
    child = context.pause["execution_id"]
    await machine.until(child, "waiting")
    await machine.resume(child, "answered")
    assert (await machine.until(id, "ended")).output[1] == "answered"


@pytest.mark.behaviour("workflows:call:failure")
async def test_a_failure_of_a_called_workflow_comes_out(machine: Machine) -> None:
    context = await machine.until(await machine.start(outer, "break"), "ended")
    assert context.state == "FAILED"
    assert "ValueError: inside" in (context.error or "")


@workflow.with_options(namespace="waits")
async def calls_nobody(ctx: ExecutionContext[None]) -> Any:
    return await call("default/nobody")


@pytest.mark.behaviour("workflows:call:unknown")
async def test_calling_what_is_not_there_fails_with_its_name(machine: Machine) -> None:
    context = await machine.until(await machine.start(calls_nobody), "ended")
    assert context.state == "FAILED"
    assert "default/nobody" in (context.error or "")


@pytest.mark.behaviour("workflows:cancel:tree")
async def test_cancelling_reaches_what_was_called(machine: Machine) -> None:
    id = await machine.start(outer, "ask")
    child = (await machine.until(id, "waiting")).pause["execution_id"]
    await machine.until(child, "waiting")
    await machine.executions.cancel(LOCAL, id)
    assert (await machine.until(id, "ended")).is_cancelled
    assert (await machine.until(child, "ended")).is_cancelled


@pytest.mark.behaviour("workflows:approval:once")
async def test_the_first_decision_wins(machine: Machine) -> None:
    context = await machine.run(pays_many, [50])
    asked = await machine.executions.approvals(LOCAL, context.execution_id, state="open", after=None, limit=5)
    await machine.decide(context.execution_id, "approve")
    with pytest.raises(InterruptDecided):
        await machine.executions.decide(LOCAL, context.execution_id, asked[0].id, Decision("reject"))
