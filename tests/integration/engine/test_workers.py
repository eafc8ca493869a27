"""Workers as an operator sees them: names, states, draining, and work that is left to others."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import pytest

import flux
from flux.agents.define.definition import define
from flux.agents.process import Process, open_process
from flux.engine.intake.inputs import NewMessage
from flux.engine.running.recovery import WorkerLock
from flux.engine.running.run import Refused, Run
from flux.engine.service.scheduling import NewSchedule
from flux.engine.service.ticker import Starter
from flux.entries.workflows import WorkflowFailed
from flux.errors import DefinitionInvalid, InvalidInput, WorkerExists, WorkerNotFound
from flux.settings import Settings
from flux.store import executions, log, ownership, refusals, workers
from flux.store.database import LOCAL, Database, one
from flux.store.ownership import AVOID_SECONDS
from flux.store.workers import Presence
from flux.testing import Call, Reply
from flux.tools.function import tool_of
from tests.integration.agents.world import Committed, opened
from tests.integration.engine.engines import GUARD, Engine, answer_all
from tests.integration.states import Sessions

Open = Callable[..., Awaitable[Process]]


@pytest.fixture
async def process(tmp_path: Path, database_url: str) -> AsyncIterator[Open]:
    """A function that opens a process on the one database."""
    async with AsyncExitStack() as stack:

        async def open_it(name: str | None = None, **more: object) -> Process:
            settings = Settings(home=tmp_path, database_url=database_url, synchronous="normal")
            opening = open_process(settings, environment={}, workspace=tmp_path, name=name, **more)  # type: ignore[arg-type]
            return await stack.enter_async_context(opening)

        yield open_it


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    """Return once something is true; what no event announces is looked up."""
    with anyio.fail_after(GUARD):
        while not await true():
            await anyio.lowlevel.checkpoint()


async def names(of: Process) -> dict[str, str]:
    """Each worker with its state."""
    return {row.name: row.state for row in await of.workers.page("", 100)}


@pytest.mark.behaviour("scale:workers:listed")
async def test_workers_are_listed_with_what_they_are(process: Open) -> None:
    one_, serves_only = await process("one", labels={"zone": "eu"}), await process(worker=False)
    await process()
    await until(lambda: _has(serves_only, 2))
    row = await serves_only.workers.get("one")
    assert (row.id, row.version, row.state) == (one_.worker_id, flux.__version__, "active")
    assert (row.running, row.concurrency, row.labels) == (0, 64, '{"zone":"eu"}')
    assert row.host
    assert row.pid
    assert row.started <= row.seen
    assert one_.offer.resources.packages >= {"msgspec", "pydantic-core"}
    with pytest.raises(WorkerNotFound, match="no worker 'nobody'"):
        await serves_only.workers.get("nobody")


async def _has(process: Process, number: int) -> bool:
    return len(await names(process)) == number


@pytest.mark.behaviour("scale:workers:listed")
async def test_two_workers_of_one_process_have_names_of_their_own(process: Open) -> None:
    first, second = await process(), await process()
    await until(lambda: _has(first, 2))
    assert {row.id for row in await first.workers.page("", 10)} == {first.worker_id, second.worker_id}


@pytest.mark.behaviour("scale:workers:names")
async def test_a_name_belongs_to_one_living_worker(process: Open, database: Database) -> None:
    with pytest.raises(InvalidInput, match="must be a letter followed by"):
        await process("no name")
    first = await process("alpha")
    with pytest.raises(WorkerExists, match="worker named 'alpha' is alive"):
        await process("alpha")
    await database.write(workers.beat(Presence("elsewhere-1", "beta")))
    with pytest.raises(WorkerExists):
        await process("beta")
    await database.write(one("update workers set seen = seen - 30 where name = 'beta'"))
    second = await process("beta")
    assert await names(second) == {"alpha": "active", "beta": "active"}
    assert (await second.workers.get("beta")).id == second.worker_id
    # The former worker was only frozen, or cut off: now it goes by its id too.
    await database.write(workers.beat(Presence("elsewhere-1", "beta")))
    assert await names(first) == {"alpha": "active", "beta": "active", "beta-elsewhere-1": "active"}


@pytest.mark.behaviour("scale:workers:names")
async def test_the_name_of_a_killed_worker_of_this_home_is_free_at_once(process: Open, tmp_path: Path) -> None:
    other = await process(worker=False)
    (tmp_path / "workers" / "dead-1").touch()
    await other.database.write(workers.beat(Presence("dead-1", "alpha")))
    assert (await other.workers.get("alpha")).state == "gone"
    alpha = await process("alpha")
    assert (await other.workers.get("alpha")).id == alpha.worker_id


@pytest.mark.behaviour("scale:workers:listed")
async def test_who_is_silent_is_gone_but_who_only_rests_is_not(
    process: Open, tmp_path: Path, database_url: str
) -> None:
    here = await process(worker=False)
    frozen = WorkerLock(tmp_path / "workers")
    for id, name in (("elsewhere-1", "away"), (frozen.id, "frozen")):
        await here.database.write(workers.beat(Presence(id, name)))
    await here.database.write(one("update workers set seen = seen - 30 where name in ('away', 'frozen')"))
    shown = await names(here)
    # Where nothing is heard of those that rest, the lock tells that they live.
    assert (shown["away"], shown["frozen"]) == ("gone", "active" if database_url.startswith("sqlite") else "gone")
    sessions = Sessions(here.database)
    await sessions.claim(await sessions.scheduled(), frozen.id)
    await here.database.write(one("update workers set seen = seen - 30 where name = 'frozen'"))
    assert (await names(here))["frozen"] == "gone"
    frozen.release()


@pytest.mark.behaviour("scale:workers:drain")
async def test_a_drained_worker_finishes_takes_nothing_new_and_leaves(tmp_path: Path, database_url: str) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    async def pay() -> str:
        """Pay."""
        started.set()
        await go_on.wait()
        return "paid"

    committed, tools = Committed(), {"pay": tool_of(pay)}
    common = {"database_url": database_url, "heartbeat": 0.01, "grace": GUARD, "dead_after": 60.0}
    async with asyncio.timeout(GUARD), opened(tmp_path, tools, committed=committed, **common) as leaves:
        await leaves.agent([Reply(calls=(Call("pay"),)), Reply("Done.")], tools=["pay"])
        await leaves.start("go")
        await started.wait()
        async with opened(tmp_path, tools, committed=committed, **common) as stays:
            stays.models.update(leaves.models)
            (name,) = [row.name for row in await stays.process.workers.page("", 9) if row.running]
            asked = await stays.process.workers.drain(name)
            assert (asked.state, asked.running) == ("draining", 1)
            await until(_is_set(leaves.process.recovery.draining))
            assert not leaves.process.drained.is_set()
            go_on.set()
            await leaves.process.drained.wait()
            assert [row.id for row in await stays.process.workers.page("", 9)] == [stays.process.worker_id]
            row = await stays.process.database.read(one("select failures, last_error from executions"))
            assert row == [(0, None)]
            stays.id = leaves.id
            await stays.rest("idle")
            assert await stays.faults() == []


def _is_set(event: asyncio.Event) -> Callable[[], Awaitable[bool]]:
    async def asked() -> bool:
        return event.is_set()

    return asked


@pytest.mark.behaviour("scale:workers:drain")
async def test_a_drained_process_serves_on_and_runs_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        await world.agent([Reply("Never.")])
        await until(lambda: _has(world.process, 1))
        (row,) = await world.process.workers.page("", 9)
        await world.process.workers.drain(row.name)
        async with asyncio.timeout(GUARD):
            await world.process.drained.wait()
        await world.start("hello")
        assert (await world.row()).state == "scheduled"
        with pytest.raises(WorkerNotFound):
            await world.process.workers.drain(row.name)


@pytest.mark.behaviour("scale:workers:drain")
async def test_a_worker_that_has_nothing_to_do_hears_that_it_is_to_drain(process: Open) -> None:
    idle, asks = await process("idle"), await process("asks")
    async with asyncio.timeout(GUARD):
        await asks.workers.drain("idle")
        await idle.drained.wait()
    assert await names(asks) == {"asks": "active"}
    assert not asks.drained.is_set()


@pytest.mark.behaviour("scale:workers:drain")
async def test_one_that_is_gone_is_not_drained(process: Open) -> None:
    here = await process()
    await here.database.write(workers.beat(Presence("elsewhere-1", "away")))
    await here.database.write(one("update workers set seen = 0 where name = 'away'"))
    assert (await here.workers.drain("away")).state == "gone"


async def refuses(run: Run) -> None:
    raise Refused("not here")


@pytest.mark.behaviour("scale:workers:refusal")
async def test_what_one_worker_cannot_run_goes_to_another(database: Database, other_database: Database) -> None:
    bad, good = Engine(database, refuses, worker="bad"), Engine(other_database, worker="good")
    async with bad.working():
        id = await bad.start()
        row = await bad.row_when(id, lambda row: row.failures == 1)
        assert (row.state, row.last_error) == ("scheduled", "not here")
        for _ in range(3):
            bad.dispatch.nudge(id)
            bad.dispatch.timers_changed()
            for _ in range(20):
                await anyio.lowlevel.checkpoint()
        assert not (await database.read(ownership.look(("default",), "bad", 20))).work
        assert (await database.read(ownership.look(("default",), "good", 20))).work
        async with good.working():
            await good.at_rest(id)
    assert (bad.ran, good.ran) == ([id], [id])


@pytest.mark.behaviour("scale:workers:refusal")
async def test_what_nobody_else_took_comes_back_without_another_failure(database: Database) -> None:
    calls: list[int] = []

    async def refuses_once(run: Run) -> None:
        calls.append(run.failures)
        if len(calls) < 3:
            raise Refused("not here")
        await answer_all(run)

    engine = Engine(database, refuses_once, worker="bad")
    async with engine.working():
        id = await engine.start()
        for epoch in (2, 4):  # a claim and a refusal, each time
            await engine.row_when(id, lambda row, epoch=epoch: row.epoch == epoch)  # type: ignore[misc]
            await database.write(one("update executions set due = due - :s", s=AVOID_SECONDS))
            engine.dispatch.timers_changed()
        await engine.at_rest(id)
    assert calls == [0, 1, 1]


LACKS = b"""
import nowhere_to_be_found
from flux import workflow

@workflow.with_options(affinity={"zone": "eu"})
async def lacks(ctx):
    return "done"
"""


@pytest.mark.behaviour("scale:workers:refusal")
@pytest.mark.parametrize(("zone", "silent"), [("us", 0), ("eu", 30)])
async def test_a_source_that_no_living_worker_can_load_fails_and_says_why(
    process: Open, zone: str, silent: float
) -> None:
    here = await process(labels={"zone": "eu"})
    await here.database.write(workers.beat(Presence("elsewhere-1", labels=f'{{"zone":"{zone}"}}')))
    await here.database.write(one("update workers set seen = seen - :s where id = 'elsewhere-1'", s=silent))
    await here.workflows.register(LOCAL, LACKS)
    id = (await here.executions.start(LOCAL, "default/lacks", None)).id
    await until(lambda: _state(here, id, "ended"))
    last = await here.database.read(log.last(LOCAL, id))
    assert last is not None
    entry = last.stored().entry
    assert isinstance(entry, WorkflowFailed)
    assert entry.message.startswith("given up: the source of default/lacks version 1 cannot be used: it imports")


@pytest.mark.behaviour("scale:workers:refusal")
async def test_a_source_that_is_lacking_here_is_left_to_who_lives_and_serves_its_pool(process: Open) -> None:
    here = await process(labels={"zone": "eu"})
    await here.database.write(workers.beat(Presence("elsewhere-1", labels='{"zone":"eu"}')))
    await here.workflows.register(LOCAL, LACKS)
    id = (await here.executions.start(LOCAL, "default/lacks", None)).id
    await until(lambda: _state(here, id, "scheduled", failures=1))
    other = await here.database.write(ownership.claim(id, "elsewhere-1"))
    assert other is not None
    assert "imports 'nowhere_to_be_found'" in (other.last_error or "")
    assert await here.database.read(refusals.others(id, "elsewhere-1", 20)) == []


async def _state(process: Process, id: str, state: str, failures: int | None = None) -> bool:
    row = await process.database.read(executions.get(LOCAL, id))
    return row is not None and row.state == state and failures in (None, row.failures)


@pytest.mark.behaviour("scale:pools:agents")
async def test_sessions_of_an_agent_get_the_pool_of_its_affinity(process: Open) -> None:
    here = await process()
    fields = {"name": "far", "model": "scripted/echo", "affinity": {"zone": "eu"}}
    await here.agents.put(LOCAL, define(fields), create=True, update=True)
    id = (await here.sessions.start(LOCAL, "far", NewMessage("hello"))).id
    assert (await here.sessions.get(LOCAL, id)).pool == "zone=eu"
    times = NewSchedule(agent="far", message="hello", interval="1h")
    made = await here.schedules.create(LOCAL, "hourly", times)
    say = await Starter(here.dispatch, here.workflows.found, "/")(made, 0.0)
    written, _ = await here.database.write(say)
    assert (await here.sessions.get(LOCAL, written.id)).pool == "zone=eu"


@pytest.mark.behaviour("scale:pools:agents")
@pytest.mark.parametrize("affinity", [{"a|b": "c"}, {"zone": ""}, {"zone": 1}, ["zone"]])
def test_an_affinity_that_cannot_be_is_refused(affinity: object) -> None:
    with pytest.raises(DefinitionInvalid, match="affinity"):
        define({"name": "far", "model": "scripted/echo", "affinity": affinity})
