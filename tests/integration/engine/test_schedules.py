"""The clock of schedules: what is due starts once, whatever else happens."""

import asyncio
import time
from contextlib import suppress
from datetime import datetime, timedelta

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flux.engine.dispatching.dispatch import EmbeddedDispatch
from flux.engine.encoding.values import decode_value
from flux.engine.service.executions import Found
from flux.engine.service.scheduling import NewSchedule, Schedules
from flux.engine.service.ticker import LOOK_SECONDS, Starter, Ticker, execution_of
from flux.entries.workflows import WorkflowScheduled
from flux.errors import (
    Conflict,
    DatabaseUnavailable,
    WorkflowNotFound,
)
from flux.events import UserSaid
from flux.store import agents, executions, log, ownership
from flux.store.database import Database, Scope, one
from flux.store.executions import Execution
from flux.store.feed import Feed
from flux.store.log import Then
from flux.store.opening import open_database
from flux.store.schedules import Schedule, ScheduleRun
from tests.integration.engine.engines import GUARD, Unreliable
from tests.integration.states import ANN, BOB, Sessions, a_session

HOURLY = NewSchedule(workflow="default/hello", input={"n": 1}, interval="1h")
TALK = NewSchedule(agent="helper", message="Good morning.", cron="0 9 * * *")


async def find(scope: Scope, workflow: str, version: int | None) -> Found:
    if not workflow.endswith("/hello"):
        raise WorkflowNotFound(f"there is no workflow {workflow!r}")
    return Found(workflow, 3, pool="gpu", requests='{"cpu":1}')


class World:
    """A worker's clock, and the service beside it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.nudged = asyncio.Event()
        dispatch = EmbeddedDispatch(database)
        dispatch.nudge = lambda id: self.nudged.set()  # type: ignore[method-assign]
        self.ticker = Ticker(database, Feed(database), dispatch, Starter(dispatch, find, "/tmp"))
        self.schedules = Schedules(database, self.ticker, find, 1000)

    async def create(self, name: str = "nightly", new: NewSchedule = HOURLY) -> Schedule:
        return await self.schedules.create(ANN, name, new)

    async def make_due(self, name: str = "nightly", ago: float = 1.0) -> Schedule:
        """Let the next time of a schedule be in the past."""
        at = time.time() - ago
        await self.database.write(one("update schedules set next_at = :at where name = :name", at=at, name=name))
        return await self.get(name)

    async def fire(self, name: str = "nightly", ago: float = 1.0) -> ScheduleRun:
        """Let a schedule be due, and see what becomes of it."""
        await self.make_due(name, ago)
        await self.ticker.tick()
        return (await self.history(name))[0]

    async def get(self, name: str = "nightly") -> Schedule:
        return await self.schedules.get(ANN, name)

    async def history(self, name: str = "nightly") -> list[ScheduleRun]:
        return await self.schedules.history(ANN, name, None, 500)

    async def execution(self, run: ScheduleRun) -> Execution:
        found = await self.database.read(executions.get(ANN, run.execution_id or ""))
        assert found is not None
        return found

    async def end(self, run: ScheduleRun) -> None:
        """Let what was started come to its end: a workflow ends, a session rests."""
        row = await self.database.write(ownership.claim(run.execution_id or "", "w"))
        assert row is not None
        then = Then("ended", outcome="completed") if row.kind == "workflow" else Then("idle")
        await self.database.write(log.append(row.scope, row.id, row.epoch, row.run_id, [], then=then))


def until_next(schedule: Schedule) -> float:
    """Seconds from the last change to the next time, to ten: on Postgres each statement has a time of its own."""
    return round((schedule.next_at or 0) - schedule.updated, -1)


@pytest.fixture
async def world(database: Database) -> World:
    await database.write(agents.put(ANN, "helper", "d1", "{}", create=True, update=True))
    return World(database)


@pytest.mark.behaviour("schedules:fire:workflow")
async def test_a_workflow_is_started_for_the_owner_and_the_schedule_moves_on(world: World) -> None:
    made = await world.create()
    assert (made.state, until_next(made)) == ("active", 3_600)
    due = (await world.make_due()).next_at or 0
    assert await world.ticker.tick() <= LOOK_SECONDS
    [run] = await world.history()
    assert (run.due, run.outcome, run.missed, run.error) == (due, "started", 0, None)
    assert run.execution_id == execution_of(made.id, due)
    row = await world.execution(run)
    assert (row.kind, row.owner, row.state, row.workflow) == ("workflow", "ann", "scheduled", "default/hello")
    assert (row.source_version, row.pool, row.requests) == (3, "gpu", '{"cpu":1}')
    [entry] = [found.stored().entry for found in await world.database.read(log.read(ANN, row.id))]
    assert isinstance(entry, WorkflowScheduled)
    assert entry.input == {"n": 1}
    after = await world.get()
    assert (after.last_at, after.last_execution, after.next_at) == (due, row.id, due + 3_600)
    assert world.nudged.is_set()
    await world.ticker.tick()
    assert len(await world.history()) == 1


@pytest.mark.behaviour("schedules:fire:workflow")
async def test_an_input_that_looks_like_a_typed_value_reaches_the_workflow_as_it_is(world: World) -> None:
    given_input = {"$flux": "datetime", "value": "2026-01-01T00:00:00"}
    await world.create(new=NewSchedule(workflow="default/hello", input=given_input, interval="1h"))
    run = await world.fire()
    [entry] = [row.stored().entry for row in await world.database.read(log.read(ANN, run.execution_id or ""))]
    assert isinstance(entry, WorkflowScheduled)
    assert decode_value(entry.input) == given_input


@pytest.mark.behaviour("schedules:fire:agent")
async def test_an_agent_is_told_in_the_session_of_its_instance_which_goes_on(world: World) -> None:
    await world.create(new=TALK)
    first = await world.fire()
    row = await world.execution(first)
    assert (row.kind, row.owner, row.agent, row.agent_version, row.instance) == (
        "session",
        "ann",
        "helper",
        1,
        "nightly",
    )
    await world.end(first)
    second = await world.fire()
    assert (second.outcome, second.execution_id) == ("started", first.execution_id)
    said = [found.stored().entry for found in await world.database.read(log.read(ANN, row.id))]
    assert [entry.parts[0].text for entry in said if isinstance(entry, UserSaid)] == ["Good morning."] * 2
    await Sessions(world.database).admission.end(ANN, row.id)
    third = await world.fire()
    assert third.outcome == "started"
    assert third.execution_id != first.execution_id


@pytest.mark.behaviour("schedules:overlap:skip")
@pytest.mark.parametrize("target", ["workflow", "agent"])
async def test_a_time_is_skipped_while_the_last_one_has_not_ended(world: World, target: str) -> None:
    await world.create(new=HOURLY if target == "workflow" else TALK)
    first = await world.fire()
    skipped = await world.fire()
    assert (skipped.outcome, skipped.execution_id) == ("skipped", None)
    assert skipped.error == f"execution {first.execution_id} of the time before has not ended"
    await world.end(first)
    assert (await world.fire()).outcome == "started"


@pytest.mark.behaviour("schedules:overlap:allow")
async def test_with_allow_the_next_one_starts_beside_the_last(world: World) -> None:
    await world.create(new=NewSchedule(workflow="default/hello", interval="1h", overlap="allow"))
    runs = [await world.fire(ago=seconds) for seconds in (3, 2)]
    assert [run.outcome for run in runs] == ["started", "started"]
    assert runs[0].execution_id != runs[1].execution_id


@pytest.mark.behaviour("schedules:missed:counted")
async def test_after_a_long_time_without_a_worker_one_run_makes_up_for_all(world: World) -> None:
    await world.create()
    run = await world.fire(ago=10 * 3_600 + 5)
    assert (run.outcome, run.missed) == ("started", 10)
    assert (await world.get()).next_at == run.due + 11 * 3_600
    assert len(await world.history()) == 1


@pytest.mark.behaviour("schedules:missed:skip")
async def test_with_skip_what_was_missed_is_only_written_down(world: World) -> None:
    await world.create(new=NewSchedule(workflow="default/hello", interval="1h", missed="skip"))
    run = await world.fire(ago=10 * 3_600 + 90)
    assert (run.outcome, run.missed, run.execution_id) == ("missed", 10, None)
    assert (await world.fire(ago=3_600 + 5)).outcome == "started"


@pytest.mark.behaviour("schedules:next:once")
async def test_a_single_time_is_done_after_it_has_fired(world: World) -> None:
    later = datetime.now() + timedelta(hours=1)
    await world.create(new=NewSchedule(workflow="default/hello", once=later.astimezone().isoformat()))
    waiting = await world.get()
    await world.ticker.fire(waiting, waiting.next_at or 0)
    assert [run.outcome for run in await world.history()] == ["started"]
    found = await world.get()
    assert (found.state, found.next_at, found.last_at) == ("done", None, waiting.next_at)
    for change in (world.schedules.pause, world.schedules.resume):
        with pytest.raises(Conflict, match="fired for the last time"):
            await change(ANN, "nightly")


@pytest.mark.behaviour("schedules:fire:failed")
async def test_what_cannot_start_is_in_the_history_and_holds_up_nobody(world: World) -> None:
    for name in ("a", "c"):
        await world.create(name)
    await world.create("b", TALK)
    await world.database.write(agents.delete(ANN, "helper"))
    for name in ("a", "b", "c"):
        await world.make_due(name)
    await world.ticker.tick()
    assert [(await world.history(name))[0].outcome for name in ("a", "b", "c")] == ["started", "failed", "started"]
    failed = (await world.history("b"))[0]
    assert failed.error == "there is no agent 'helper'; `flux agent list` shows those that exist"
    found = await world.get("b")
    assert (found.failures, found.state) == (1, "active")
    assert (found.next_at or 0) > time.time()
    await world.fire("b")
    assert (await world.get("b")).failures == 2
    await world.database.write(agents.put(ANN, "helper", "d1", "{}", create=True, update=True))
    await world.fire("b")
    assert (await world.get("b")).failures == 0


@pytest.mark.behaviour("schedules:fire:failed")
async def test_a_session_of_somebody_else_is_not_written_to(world: World) -> None:
    await Sessions(world.database).admission.start(BOB, a_session(instance="nightly"))
    await world.create(new=TALK)
    run = await world.fire()
    assert run.outcome == "failed"
    assert "already has an open session" in (run.error or "")


@pytest.mark.behaviour("schedules:fire:failed")
async def test_a_schedule_that_cannot_be_read_any_more_is_paused_with_the_reason(world: World) -> None:
    await world.create()
    broken = '{"type":"cron","expr":"0 9 * * *","timezone":"Gone/Away"}'
    await world.database.write(one("update schedules set spec = :spec", spec=broken))
    run = await world.fire()
    assert (run.outcome, "there is no time zone 'Gone/Away'" in (run.error or "")) == ("failed", True)
    assert (await world.get()).state == "paused"


@pytest.mark.behaviour("schedules:fire:once")
async def test_two_workers_never_fire_the_same_time_twice(world: World, other_database: Database) -> None:
    other = World(other_database)
    names = [f"s{n}" for n in range(12)]
    for name in names:
        await world.create(name, NewSchedule(workflow="default/hello", interval="1h", overlap="allow"))
    for _ in range(3):
        for name in names:
            await world.make_due(name)
        await asyncio.gather(world.ticker.tick(), other.ticker.tick(), other.ticker.tick())
    for name in names:
        assert [run.outcome for run in await world.history(name)] == ["started"] * 3
    rows = await world.database.read(one("select count(*) from executions"))
    assert rows == [(36,)]


@pytest.mark.behaviour("schedules:fire:once")
@pytest.mark.parametrize("change", ["pause", "replace", "delete"])
async def test_what_was_changed_since_it_was_seen_does_not_fire(world: World, change: str) -> None:
    await world.create()
    seen = await world.make_due()
    if change == "replace":
        await world.schedules.replace(ANN, "nightly", NewSchedule(workflow="default/hello", input=2, interval="1h"))
    else:
        await getattr(world.schedules, change)(ANN, "nightly")
    await world.ticker.fire(seen, time.time())
    assert await world.database.read(one("select 1 from executions")) == []
    if change == "replace":  # it is still due, and fires as it is now
        await world.ticker.tick()
        [entry] = await world.database.read(one("select body from events"))
        assert '"input":2' in entry[0]


@pytest.mark.behaviour("schedules:fire:once")
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(["fine", "lost", "failed"]), st.integers(0, 5)), min_size=1, max_size=12))
def test_no_time_is_lost_or_doubled_by_commits_that_fail_or_are_not_answered(
    tmp_path_factory: pytest.TempPathFactory, story: list[tuple[str, int]]
) -> None:
    asyncio.run(_tell(f"sqlite:///{tmp_path_factory.mktemp('faults') / 'flux.db'}", story))


async def _tell(url: str, story: list[tuple[str, int]]) -> None:
    database = await open_database(url, synchronous="off")
    try:
        world = World(database)
        made = await world.create(new=NewSchedule(workflow="default/hello", interval="1h", overlap="allow"))
        begin = time.time() - 1_000 * 3_600
        await database.write(one("update schedules set next_at = :at", at=begin))
        now = begin
        for fault, hours in story:
            now += hours * 3_600 + 60
            faulty = Unreliable(database)
            faulty.failures, faulty.lost = int(fault != "fine"), fault == "lost"
            clock = World(faulty)
            seen = await world.get()
            if (seen.next_at or 0) <= now:
                with suppress(DatabaseUnavailable):
                    await clock.ticker.fire(seen, now)
        seen = await world.get()
        if (seen.next_at or 0) <= now:
            await world.ticker.fire(seen, now)
        runs = await world.history()
        times = [run.due + 3_600 * n for run in runs[::-1] for n in range(run.missed + 1)]
        assert times == pytest.approx([begin + 3_600 * n for n in range(int((now - begin) // 3_600) + 1)])
        ids = await database.read(one("select id from executions order by id"))
        assert sorted(execution_of(made.id, run.due) for run in runs) == [id for (id,) in ids]
    finally:
        await database.close()


@pytest.mark.behaviour("schedules:wake:changed")
async def test_a_sleeping_clock_wakes_for_a_new_schedule_and_for_its_time(world: World) -> None:
    task = asyncio.create_task(world.ticker.run())
    try:
        with anyio.fail_after(GUARD):
            soon = (datetime.now() + timedelta(seconds=0.3)).astimezone().isoformat()
            await world.create(new=NewSchedule(workflow="default/hello", once=soon))
            await world.nudged.wait()
    finally:
        task.cancel()
        await asyncio.wait((task,))
    [run] = await world.history()
    assert run.fired >= run.due
    assert run.fired - run.due < LOOK_SECONDS - 1
    assert (await world.get()).state == "done"
