"""A workflow that lost its worker goes on where its log ends, whatever it was doing."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from flux import ExecutionContext, pause, task, workflow
from flux.engine.intake.inputs import NewWorkflow
from flux.engine.workflows.flow import parallel
from flux.engine.workflows.pause import sleep
from flux.errors import DatabaseUnavailable
from flux.events import Entry
from flux.store import executions
from flux.store.database import LOCAL, Database
from tests.integration.workflows.machine import Machine, working

BRANCHES, STEPS = 6, 5
ran: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    ran.clear()


@task
async def step(x: int) -> str:
    ran["step"] += 1
    await asyncio.sleep(0)
    return f"result {ran['step']}"


@task.with_options(effect="once")
async def once() -> str:
    ran["once"] += 1
    return "paid"


async def branch(n: int) -> list[str]:
    # All branches call one function with the same arguments, as often.
    found = []
    for _ in range(STEPS):
        for _ in range(n % 3):
            await asyncio.sleep(0)
        found.append(await step(1))
    return found


@workflow.with_options(namespace="recovery")
async def branches(ctx: ExecutionContext[None]) -> list[list[str]]:
    return list(await asyncio.gather(*(branch(n) for n in range(BRANCHES))))


def results(entries: list[Any]) -> dict[str, Any]:
    return {entry.call: entry.value for entry in entries if type(entry).__name__ == "TaskCompleted"}


@pytest.mark.behaviour("workflows:recovery:parallel-branches")
async def test_parallel_branches_get_their_own_results_back(machine: Machine) -> None:
    whole = await machine.run(branches)
    assert ran["step"] == BRANCHES * STEPS
    entries: list[Any] = [stored.entry for stored in await machine.entries(whole.execution_id)]
    known = results(entries)
    assert len(known) == BRANCHES * STEPS
    for cut in range(1, len(entries)):
        ran.clear()
        kept: list[Entry] = entries[:cut]
        id = await machine.copy(whole.execution_id, kept, f"cut-{cut}")
        machine.dispatch.nudge(id)
        again = await machine.until(id)
        assert again.state == "COMPLETED", again.error
        before = results(kept)
        assert ran["step"] == BRANCHES * STEPS - len(before)
        after = results([stored.entry for stored in await machine.entries(id)])
        assert {call: after[call] for call in before} == before  # each call keeps what it returned
        assert sorted(after) == sorted(known)  # and the calls are the same ones
        flat = [value for found in again.output for value in found]
        assert sorted(flat) == sorted(after.values())
        if cut == len(entries) - 1:
            assert again.output == whole.output


@workflow.with_options(namespace="recovery")
async def pays(ctx: ExecutionContext[None]) -> str:
    return str(await once())


@pytest.mark.behaviour("workflows:recovery:once")
async def test_a_once_task_in_flight_is_not_run_again(machine: Machine) -> None:
    whole = await machine.run(pays)
    assert ran["once"] == 1
    entries: list[Any] = [stored.entry for stored in await machine.entries(whole.execution_id)]
    at = next(n for n, entry in enumerate(entries) if type(entry).__name__ == "TaskStarted")
    id = await machine.copy(whole.execution_id, entries[: at + 1], "in-flight")
    machine.dispatch.nudge(id)
    again = await machine.until(id)
    assert (again.state, ran["once"]) == ("FAILED", 1)
    assert "was not run again" in (again.error or "")


@workflow.with_options(namespace="recovery")
async def naps(ctx: ExecutionContext[float]) -> str:
    await sleep(ctx.input)
    return "awake"


@pytest.mark.behaviour("workflows:sleep:durable")
async def test_a_sleep_waits_in_the_database_and_ends_on_time(database: Database) -> None:
    async with working(database) as machine:
        context = await machine.run(naps, 2.5)
        assert (context.state, (await machine.row(context.execution_id)).state) == ("PAUSED", "waiting")
        due = (await machine.row(context.execution_id)).due
    async with working(database) as machine:  # another process
        done = await machine.until(context.execution_id, "ended")
        assert done.output == "awake"
        assert due is not None
        assert (await machine.row(context.execution_id)).updated >= due


@workflow.with_options(namespace="recovery")
async def held(ctx: ExecutionContext[None]) -> str:
    await step(1)
    GATES["held"].set()
    await GATES["let go"].wait()
    return str(await step(2))


GATES: dict[str, asyncio.Event] = {}


@pytest.mark.behaviour("workflows:recovery:hand-over")
async def test_a_worker_that_leaves_hands_over_and_nothing_is_repeated(database: Database) -> None:
    GATES.update({"held": asyncio.Event(), "let go": asyncio.Event()})
    async with working(database) as machine:
        id = await machine.start(held)
        async with asyncio.timeout(10):
            await GATES["held"].wait()
    row = await machine.row(id)
    assert (row.state, row.failures) == ("scheduled", 0)
    GATES["let go"].set()
    async with working(database) as machine:
        done = await machine.until(id, "ended")
    assert (done.state, ran["step"]) == ("COMPLETED", 2)


@workflow.with_options(namespace="recovery")
async def breaks(ctx: ExecutionContext[None]) -> None:
    raise LookupError("nothing there")


@pytest.mark.behaviour("workflows:failure:told")
async def test_what_a_workflow_raises_is_its_failure(machine: Machine) -> None:
    context = await machine.run(breaks)
    assert (context.state, context.error, context.output) == ("FAILED", "LookupError: nothing there", None)


@pytest.mark.behaviour("workflows:code:missing")
async def test_a_workflow_whose_code_is_not_here_is_handed_back_with_the_reason(machine: Machine) -> None:
    started = await machine.admission.start_workflow(LOCAL, NewWorkflow(workflow="default/missing"))
    context = await machine.until(started.id, "ended")
    assert context.state == "FAILED"
    assert "default/missing is not here" in (context.error or "")


@pytest.mark.behaviour("workflows:recovery:of-a-script")
async def test_an_execution_of_a_script_is_not_run_by_a_worker_that_is_told_of_it(machine: Machine) -> None:
    id = await machine.start(pays, pool=executions.CALLER)
    machine.dispatch.nudge(id)
    assert (await machine.run(pays)).state == "COMPLETED"
    row = await machine.row(id)
    assert (row.state, row.epoch, row.failures, ran["once"]) == ("scheduled", 0, 0, 1)


@task.with_options(config_requests=["city"])
async def visits(*, config: dict[str, str]) -> str:
    ran["visits"] += 1
    return config["city"]


@workflow.with_options(namespace="recovery")
async def travels(ctx: ExecutionContext[None]) -> Any:
    return [await step(1), await asyncio.gather(visits(), step(2))]


class Away(dict[str, Any]):
    """Values that are in a database which is away the first time."""

    def __getitem__(self, name: str) -> Any:
        ran["asked"] += 1
        if ran["asked"] == 1:
            raise DatabaseUnavailable("the database does not answer")
        return super().__getitem__(name)


@pytest.mark.behaviour("workflows:database:away")
async def test_a_database_that_is_away_for_a_moment_fails_no_task(database: Database) -> None:
    async with working(database, values=Away(city="Rome")) as machine:
        done = await machine.until(await machine.start(travels), "ended")
    assert (done.state, done.output[1][0]) == ("COMPLETED", "Rome")
    assert (ran["asked"], ran["visits"]) == (2, 1)


@workflow.with_options(namespace="recovery")
async def cleans(ctx: ExecutionContext[None]) -> None:
    try:
        await parallel(pause("a"), pause("b"))
    except asyncio.CancelledError:
        ran["cleaned"] += 1
        raise


@pytest.mark.behaviour("workflows:cancel:paused")
async def test_a_paused_workflow_is_cancelled_and_its_code_sees_it(machine: Machine) -> None:
    context = await machine.run(cleans)
    assert context.is_paused
    await machine.executions.cancel(LOCAL, context.execution_id)
    done = await machine.until(context.execution_id, "ended")
    assert done.is_cancelled
    assert [e.type for e in done.events][-1] == "WORKFLOW_CANCELLED"
    assert ran["cleaned"] >= 1
    assert not await machine.database.read(executions.open_children(LOCAL, context.execution_id))
