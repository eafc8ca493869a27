"""What every dispatch must do, under a runner whose executor the test controls."""

import asyncio
import functools
import logging
import time
import uuid

import anyio
import pytest

from flux.engine.dispatching._procrastinate import ProcrastinateDispatch
from flux.engine.intake.inputs import NewMessage
from flux.engine.running.run import Run
from flux.errors import Fenced
from flux.events import ChatResponse
from flux.store import executions
from flux.store.database import Database, Steps, one
from flux.store.log import Then
from tests.integration.conftest import Open
from tests.integration.engine.engines import Engine, Held, Unreliable, answer_all
from tests.integration.states import ANN, HOUR, Sessions, a_session


@pytest.fixture(params=["sqlite", "postgres", "jobs"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The embedded dispatch on both databases, and the one between processes."""
    url: str = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url")
    return url


@pytest.fixture
async def database(request: pytest.FixtureRequest, open_another: Open, monkeypatch: pytest.MonkeyPatch) -> Database:
    database = await open_another()
    if "jobs" in request.node.callspec.params.values():
        between = functools.partial(ProcrastinateDispatch, heartbeat=5, dead_after=20)
        await between(database).open()
        monkeypatch.setattr(Engine, "dispatching", between)
    return database


@pytest.mark.behaviour("engine:dispatch:runs")
async def test_an_admitted_message_is_run_once(database: Database) -> None:
    engine = Engine(database)
    async with engine.working():
        id = await engine.start()
        await engine.until(id, "chat_response")
        row = await engine.at_rest(id)
    assert engine.ran == [id]
    assert (row.epoch, row.failures, row.worker) == (1, 0, None)


@pytest.mark.behaviour("engine:dispatch:runs")
async def test_what_was_admitted_while_nobody_worked_is_run_at_the_start(database: Database) -> None:
    engine = Engine(database)
    ids = [await engine.start() for _ in range(3)]
    async with engine.working():
        for id in ids:
            await engine.until(id, "chat_response")
    assert sorted(engine.ran) == sorted(ids)


@pytest.mark.behaviour("engine:dispatch:another-look")
async def test_a_message_that_comes_when_the_run_has_just_left_is_run(database: Database) -> None:
    left, go_on = asyncio.Event(), asyncio.Event()

    async def lingering(run: Run) -> None:
        await answer_all(run)
        left.set()
        await go_on.wait()

    engine = Engine(database, lingering)
    async with engine.working():
        id = await engine.start("one")
        await left.wait()
        await engine.admission.admit(ANN, id, NewMessage("two"))
        assert (await engine.row(id)).state == "scheduled"
        go_on.set()
        await engine.until(id, "chat_response", 2)
    assert engine.ran == [id, id]


@pytest.mark.behaviour("engine:dispatch:another-look")
async def test_a_message_during_a_run_is_seen_by_that_run(database: Database) -> None:
    begun = asyncio.Event()

    async def waiting_for_more(run: Run) -> None:
        begun.set()
        await run.changed.wait()
        await answer_all(run)

    engine = Engine(database, waiting_for_more)
    async with engine.working():
        id = await engine.start("one")
        await begun.wait()
        await engine.admission.admit(ANN, id, NewMessage("two"))
        await engine.until(id, "chat_response", 2)
        await engine.at_rest(id)
    assert engine.ran == [id]


@pytest.mark.behaviour("engine:dispatch:concurrency")
async def test_no_more_runs_at_once_than_allowed_and_all_get_their_turn(database: Database) -> None:
    running: set[str] = set()
    most: list[int] = []
    full, gate = asyncio.Event(), asyncio.Event()

    async def held(run: Run) -> None:
        running.add(run.id)
        most.append(len(running))
        if len(running) == 3:
            full.set()
        await gate.wait()
        running.discard(run.id)
        await answer_all(run)

    engine = Engine(database, held)
    async with engine.working(concurrency=3):
        ids = [await engine.start() for _ in range(10)]
        await full.wait()
        gate.set()
        for id in ids:
            await engine.until(id, "chat_response")
    assert max(most) == 3
    assert sorted(engine.ran) == sorted(ids)


@pytest.mark.behaviour("engine:dispatch:timers")
async def test_a_parked_session_goes_on_when_it_is_due(database: Database) -> None:
    """The nearer timer counts, although the later one was there first."""
    dues: dict[str, float] = {}

    async def park_once(run: Run) -> None:
        if run.id in dues:
            await run.append(then=Then("waiting", due=time.time() + dues.pop(run.id), waiting_for="retry"))
        else:
            await answer_all(run)

    engine = Engine(database, park_once)
    async with engine.working():
        later = (await engine.admission.start(ANN, a_session())).id
        sooner = (await engine.admission.start(ANN, a_session())).id
        dues |= {later: HOUR, sooner: 0.05}
        for id in (later, sooner):
            await engine.admission.admit(ANN, id, NewMessage("hello"))
        await engine.until(sooner, "chat_response")
        assert (await engine.row(later)).state == "waiting"
    assert engine.ran.count(sooner) == 2


@pytest.mark.behaviour("engine:dispatch:many-at-start")
async def test_two_thousand_interrupted_sessions_all_run_at_the_start(database: Database) -> None:
    ids = {str(uuid.uuid4()) for _ in range(2000)}

    def interrupted() -> Steps[None]:
        for id in ids:
            yield from executions.create_session(
                ANN, id=id, agent="a", agent_version=None, definition_digest="d", instance=id, name="default"
            )
        yield from one("update executions set state = 'scheduled', due = :now")

    await database.write(interrupted())
    all_ran = asyncio.Event()

    async def rest(run: Run) -> None:
        await run.append(then=Then("idle"))
        if len(engine.ran) == len(ids):
            all_ran.set()

    engine = Engine(database, rest)
    async with engine.working(concurrency=64):
        await all_ran.wait()
    assert set(engine.ran) == ids
    assert await database.read(one("select distinct state from executions")) == [("idle",)]


@pytest.mark.behaviour("engine:dispatch:stops")
async def test_a_run_that_outlasts_the_grace_is_handed_back_and_has_not_failed(database: Database) -> None:
    begun = asyncio.Event()

    async def endless(run: Run) -> None:
        begun.set()
        await asyncio.Event().wait()

    engine = Engine(database, endless)
    async with engine.working(grace=0):
        id = await engine.start()
        await begun.wait()
    row = await engine.row(id)
    assert (row.state, row.worker, row.failures, row.epoch) == ("scheduled", None, 0, 2)
    assert row.due is not None
    assert row.due <= row.updated

    after = Engine(database)
    async with after.working():
        await after.until(id, "chat_response")


@pytest.mark.behaviour("engine:dispatch:stops")
async def test_a_run_may_finish_within_the_grace_and_nothing_new_begins(database: Database) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(run: Run) -> None:
        begun.set()
        await go_on.wait()
        await answer_all(run)

    engine = Engine(database, slow)
    async with engine.working(concurrency=1):
        id = await engine.start()
        await begun.wait()
        waiting = await engine.start()
        asyncio.get_running_loop().call_soon(go_on.set)
    assert ((await engine.row(id)).state, (await engine.row(id)).epoch) == ("idle", 1)
    assert (await engine.row(waiting)).state == "scheduled"
    assert engine.ran == [id]


@pytest.mark.behaviour("engine:dispatch:stops")
@pytest.mark.parametrize("steps", range(8))
async def test_stopping_while_a_session_is_being_claimed_leaves_nothing_owned(database: Database, steps: int) -> None:
    engine = Engine(database)
    async with engine.working(grace=0):
        await anyio.lowlevel.checkpoint()
        id = await engine.start()
        for _ in range(steps):
            await anyio.lowlevel.checkpoint()
    row = await engine.row(id)
    assert row.state in ("scheduled", "idle")
    assert (row.worker, row.failures) == (None, 0)


@pytest.mark.behaviour("engine:dispatch:database-trouble")
async def test_work_goes_on_when_the_database_answers_again(database: Database) -> None:
    unreliable = Unreliable(database)
    engine = Engine(unreliable)
    first = await engine.start()
    unreliable.failures = 1  # the sweep at the start
    async with engine.working():
        await engine.until(first, "chat_response")
        await engine.at_rest(first)
        second = await Sessions(database).scheduled()
        unreliable.failures = 1  # the claim
        engine.dispatch.nudge(second)
        await engine.until(second, "chat_response")


@pytest.mark.behaviour("engine:cancel:reaches-the-run")
async def test_a_run_learns_of_its_cancellation_and_of_no_other_news(database: Database) -> None:
    begun, stopped = asyncio.Event(), asyncio.Event()

    async def until_cancelled(run: Run) -> None:
        begun.set()
        await run.cancel_requested()
        stopped.set()
        await answer_all(run)

    engine = Engine(database, until_cancelled)
    async with engine.working():
        id = await engine.start()
        await begun.wait()
        await engine.admission.admit(ANN, id, NewMessage("and", mode="steer"))
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        assert not stopped.is_set()
        await engine.admission.cancel(ANN, id)
        await stopped.wait()
        await engine.at_rest(id)
    assert engine.ran == [id]


@pytest.mark.behaviour("engine:end:reaches-the-run")
async def test_a_run_whose_session_is_ended_stops(database: Database) -> None:
    begun, fenced = asyncio.Event(), asyncio.Event()

    async def until_fenced(run: Run) -> None:
        begun.set()
        try:
            await run.cancel_requested()
        except Fenced:
            fenced.set()
            raise

    engine = Engine(database, until_fenced)
    async with engine.working():
        id = await engine.start()
        await begun.wait()
        await engine.admission.end(ANN, id)
        await fenced.wait()
    assert (await engine.row(id)).state == "ended"
    assert ChatResponse.__struct_config__.tag not in [frame.type for frame in await engine.until(id, "session_end")]


@pytest.mark.behaviour("engine:dispatch:drains")
async def test_a_run_hands_over_as_soon_as_the_process_begins_to_leave(database: Database) -> None:
    begun = asyncio.Event()

    async def hands_over(run: Run) -> None:
        begun.set()
        await run.draining.wait()
        run.start_nothing_while_draining()

    engine = Engine(database, hands_over)
    async with engine.working():  # and a long grace
        id = await engine.start()
        await begun.wait()
    row = await engine.row(id)
    assert (row.state, row.worker, row.failures, row.epoch) == ("scheduled", None, 0, 2)


@pytest.mark.behaviour("engine:dispatch:drains")
async def test_a_run_that_was_just_claimed_does_not_begin_when_the_process_leaves(database: Database) -> None:
    held = Held(database, "_claim")
    engine = Engine(held)
    async with engine.working():
        id = await engine.start()
        await held.reached.wait()
        held.go_on.set()
    row = await engine.row(id)
    assert (row.epoch, row.state, row.failures, engine.ran) == (2, "scheduled", 0, [])


@pytest.mark.behaviour("engine:dispatch:leaves-without-database")
@pytest.mark.parametrize("grace", [0, 5])
async def test_a_process_leaves_while_the_database_is_away(
    database: Database, grace: float, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("flux.engine.running.runner.HAND_BACK_SECONDS", 0.05)
    begun = asyncio.Event()

    async def hands_over(run: Run) -> None:
        begun.set()
        if grace:
            await run.draining.wait()
            run.start_nothing_while_draining()
        await asyncio.Event().wait()

    held = Held(database, "_hand_back")
    engine = Engine(held, hands_over)
    async with engine.working(grace=grace):
        id = await engine.start()
        await begun.wait()
    assert (await engine.row(id)).state == "running"
    assert f"cannot hand back {id} now: no answer in time" in caplog.messages


@pytest.mark.behaviour("engine:dispatch:leaves-without-database")
async def test_whatever_a_hand_back_meets_is_told(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    unreliable = Unreliable(database)
    unreliable.only, unreliable.error = "_hand_back", ZeroDivisionError("a bug")
    begun = asyncio.Event()

    async def endless(run: Run) -> None:
        begun.set()
        await asyncio.Event().wait()

    engine = Engine(unreliable, endless)
    async with engine.working(grace=0):
        id = await engine.start()
        await begun.wait()
        unreliable.failures = 1
    (told,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert told.message == f"cannot hand back {id} now"
    assert told.exc_info is not None


@pytest.mark.behaviour("engine:dispatch:survives")
@pytest.mark.parametrize("broken", ["sweep", "_claim"])
@pytest.mark.parametrize("error", [ZeroDivisionError("a bug"), asyncio.CancelledError()])
async def test_dispatch_outlives_what_breaks_in_it(
    database: Database,
    broken: str,
    error: BaseException,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for module in ("dispatching.upkeep", "running.runner"):
        monkeypatch.setattr(f"flux.engine.{module}.PAUSE_SECONDS", 0)
    unreliable = Unreliable(database)
    unreliable.only, unreliable.error, unreliable.failures = broken, error, 2
    engine = Engine(unreliable)
    id = await engine.start()
    async with engine.working():
        await engine.at_rest(id)
    assert (unreliable.failures, engine.ran) == (0, [id])
    assert len([record for record in caplog.records if record.exc_info]) == 2
