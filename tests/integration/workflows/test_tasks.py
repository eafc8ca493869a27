"""What a task's call comes to: results, retries, fallbacks, rollbacks, timeouts, injected values."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from flux import ExecutionContext, TaskMetadata, task, workflow
from flux.engine.workflows.flow import parallel, pipeline
from flux.errors import ExecutionError, InvalidInput
from flux.store.database import Database
from tests.integration.workflows.machine import Machine, working

calls: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    calls.clear()


@task
async def double(x: int) -> int:
    calls[f"double {x}"] += 1
    return x * 2


@task
def plain(x: int) -> int:
    return x + 1


async def instead(x: int) -> str:
    return f"instead of {x}"


undone: list[int] = []


async def undo(x: int) -> None:
    undone.append(x)


@task.with_options(retry_max_attempts=2, retry_delay=0.001)
async def third_time(x: int) -> int:
    calls["third"] += 1
    if calls["third"] < 3:
        raise ValueError(f"not yet {calls['third']}")
    return x


@task.with_options(fallback=instead)
async def falls_back(x: int) -> int:
    raise ValueError("broken")


@task.with_options(rollback=undo)
async def rolls_back(x: int) -> int:
    raise ValueError("broken")


@task.with_options(timeout=0.01)
async def slow() -> None:
    await asyncio.Event().wait()


@task.with_options(name="pay_{order_id}", metadata=True)
async def pay(order_id: int, *, metadata: TaskMetadata) -> list[str]:
    return [metadata.task_name, metadata.task_id]


@task.with_options(secret_requests=["token"], config_requests=["city"])
async def secretive(*, secrets: dict[str, str], config: dict[str, str]) -> str:
    return secrets["token"] + config["city"]


@task.with_options(cache=True)
async def cached(x: int) -> int:
    calls["cached"] += 1
    return x


@task
async def nested(x: int) -> int:
    return int(await double(x)) + int(await double(x + 1))


@workflow.with_options(namespace="tasks")
async def several(ctx: ExecutionContext[int]) -> Any:
    return {
        "one": await double(ctx.input),
        "sync": await plain(ctx.input),
        "mapped": await double.map([1, 2, 3]),
        "parallel": await parallel(double(4), plain(4), max_concurrent=1),
        "pipeline": await pipeline(double, plain, input=5),
        "nested": await nested(10),
        "input": [ctx.input, ctx.payload, ctx.workflow_name, (await ExecutionContext.get()).execution_id],
    }


@workflow.with_options(namespace="tasks")
async def calls_one(ctx: ExecutionContext[str]) -> Any:
    return await ONE[ctx.input]()


ONE: dict[str, Callable[[], Any]] = {
    "retry": lambda: third_time(7),
    "fallback": lambda: falls_back(7),
    "rollback": lambda: rolls_back(7),
    "timeout": slow,
    "named": lambda: pay(41),
    "secrets": secretive,
    "cached": lambda: cached(3),
}


def types(context: Any) -> list[str]:
    return [event.type for event in context.events if event.type.startswith("TASK_")]


@pytest.mark.behaviour("workflows:tasks:results")
async def test_results_of_tasks_come_back_however_they_are_called(machine: Machine) -> None:
    context = await machine.run(several, 3)
    assert context.state == "COMPLETED", context.error
    assert context.output == {
        "one": 6,
        "sync": 4,
        "mapped": [2, 4, 6],
        "parallel": [8, 5],
        "pipeline": 11,
        "nested": 42,
        "input": [3, 3, "several", context.execution_id],
    }
    assert context.output is not None
    assert context.has_succeeded
    assert types(context).count("TASK_STARTED") == types(context).count("TASK_COMPLETED")


@pytest.mark.behaviour("workflows:tasks:plain-outside")
async def test_outside_a_workflow_a_task_is_a_plain_call() -> None:
    assert await double(4) == 8
    assert await plain(4) == 5


@pytest.mark.behaviour("workflows:tasks:retry")
async def test_a_task_is_tried_again_and_each_try_is_told(machine: Machine) -> None:
    context = await machine.run(calls_one, "retry")
    assert (context.output, calls["third"]) == (7, 3)
    assert types(context) == [
        "TASK_STARTED",
        "TASK_RETRY_STARTED",
        "TASK_RETRY_FAILED",
        "TASK_RETRY_STARTED",
        "TASK_RETRY_COMPLETED",
        "TASK_COMPLETED",
    ]


@pytest.mark.behaviour("workflows:tasks:fallback")
async def test_a_fallback_gives_the_result(machine: Machine) -> None:
    context = await machine.run(calls_one, "fallback")
    assert context.output == "instead of 7"
    assert types(context) == ["TASK_STARTED", "TASK_FALLBACK_STARTED", "TASK_FALLBACK_COMPLETED", "TASK_COMPLETED"]


@pytest.mark.behaviour("workflows:tasks:rollback")
async def test_a_rollback_runs_and_the_task_fails_with_its_cause(machine: Machine) -> None:
    undone.clear()
    context = await machine.run(calls_one, "rollback")
    assert (context.state, undone) == ("FAILED", [7])
    assert context.error == "ValueError: broken"
    assert types(context) == ["TASK_STARTED", "TASK_ROLLBACK_STARTED", "TASK_ROLLBACK_COMPLETED", "TASK_FAILED"]


@pytest.mark.behaviour("workflows:tasks:timeout")
async def test_a_task_that_takes_too_long_fails(machine: Machine) -> None:
    context = await machine.run(calls_one, "timeout")
    assert context.state == "FAILED"
    assert context.error == "slow took longer than its timeout of 0.01 s"


@pytest.mark.behaviour("workflows:tasks:names")
async def test_a_name_holds_arguments_and_metadata_tells_the_call(machine: Machine) -> None:
    context = await machine.run(calls_one, "named")
    name, id = context.output
    assert name == "pay_41"
    assert id in {event.source_id for event in context.events}


@pytest.mark.behaviour("workflows:tasks:secrets-and-configs")
async def test_secrets_and_configs_arrive_as_keywords(database: Database) -> None:
    async with working(database, values={"token": "t", "city": "Rome"}) as machine:
        context = await machine.run(calls_one, "secrets")
    assert context.output == "tRome"


@pytest.mark.behaviour("workflows:tasks:cache")
async def test_a_cached_result_is_used_by_later_executions(machine: Machine) -> None:
    first, second = await machine.run(calls_one, "cached"), await machine.run(calls_one, "cached")
    assert (first.output, second.output, calls["cached"]) == (3, 3, 1)


@workflow.with_options(namespace="tasks")
async def catches(ctx: ExecutionContext[None]) -> str:
    try:
        await rolls_back(1)
    except ExecutionError as error:
        return f"{type(error).__name__} of {type(error.inner_exception).__name__}: {error.inner_exception}"
    return "nothing"


@pytest.mark.behaviour("workflows:tasks:failures-are-remembered")
async def test_a_failure_is_the_same_when_it_comes_from_the_journal(machine: Machine) -> None:
    context = await machine.run(catches)
    assert context.output == "ExecutionError of ValueError: broken"
    entries = [stored.entry for stored in await machine.entries(context.execution_id)]
    copy = await machine.copy(context.execution_id, entries[:-1], "copy")  # type: ignore[arg-type]
    machine.dispatch.nudge(copy)
    assert (await machine.until(copy)).output == context.output


@pytest.mark.behaviour("workflows:options:unknown-refused")
def test_an_unknown_option_is_refused_by_name() -> None:
    with pytest.raises(InvalidInput, match="no option retries"):
        task.with_options(retries=3)(instead)  # type: ignore[call-arg]
    with pytest.raises(InvalidInput, match="no option queue"):
        workflow.with_options(queue="x")  # type: ignore[call-arg]
