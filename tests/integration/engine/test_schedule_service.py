"""Schedules as they are made, changed, refused and deleted."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from flux.engine.schedules import cron, encode_spec, interval, once
from flux.engine.service.scheduling import NewSchedule, put_from_options
from flux.errors import (
    AgentNotFound,
    Conflict,
    InvalidInput,
    ScheduleExists,
    ScheduleNotFound,
    TooLarge,
    WorkflowNotFound,
)
from flux.store import schedules
from flux.store.database import one
from tests.integration.engine.test_schedules import HOURLY, TALK, World, until_next, world
from tests.integration.states import ANN, BOB

__all__ = ["world"]


@pytest.mark.behaviour("schedules:change:keeps-time")
async def test_a_change_keeps_the_next_time_unless_the_times_are_others(world: World) -> None:
    made = await world.create()
    changed = await world.schedules.replace(BOB, "nightly", NewSchedule(workflow="default/hello", interval="60m"))
    assert (changed.next_at, changed.owner, changed.input, changed.id) == (made.next_at, "bob", "null", made.id)
    moved = await world.schedules.replace(ANN, "nightly", NewSchedule(workflow="default/hello", interval="2h"))
    assert until_next(moved) == 7_200
    paused = await world.schedules.pause(ANN, "nightly")
    assert (paused.state, paused.next_at) == ("paused", None)
    still = await world.schedules.replace(ANN, "nightly", HOURLY)
    assert (still.state, still.next_at) == ("paused", None)
    again = await world.schedules.resume(ANN, "nightly")
    assert (again.state, until_next(again)) == ("active", 3_600)
    assert await world.schedules.resume(ANN, "nightly") == again


@pytest.mark.behaviour("schedules:spec:refused")
@pytest.mark.parametrize(
    ("new", "error", "said"),
    [
        (NewSchedule(interval="1h"), InvalidInput, "give workflow or agent"),
        (NewSchedule(workflow="default/hello", agent="helper", interval="1h"), InvalidInput, "give workflow or agent"),
        (NewSchedule(agent="helper", interval="1h"), InvalidInput, "give message"),
        (NewSchedule(agent="helper", message="x", input=1, interval="1h"), InvalidInput, "input is for a workflow"),
        (NewSchedule(workflow="default/hello", message="x", interval="1h"), InvalidInput, "are for an agent"),
        (NewSchedule(workflow="default/hello"), InvalidInput, "give cron, interval or once"),
        (NewSchedule(workflow="default/hello", interval="1h", cron="* * * * *"), InvalidInput, "one of them"),
        (NewSchedule(workflow="default/hello", cron="0 0 30 2 *"), InvalidInput, "never fires"),
        (NewSchedule(workflow="default/hello", once="2001-01-01T00:00"), InvalidInput, "is in the past"),
        (NewSchedule(workflow="default/other", interval="1h"), WorkflowNotFound, "no workflow 'default/other'"),
        (NewSchedule(agent="nobody", message="x", interval="1h"), AgentNotFound, "no agent 'nobody'"),
        (NewSchedule(agent="helper", message="x" * 1001, interval="1h"), TooLarge, "1,001 bytes"),
    ],
)
async def test_what_cannot_be_scheduled_is_refused(
    world: World, new: NewSchedule, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        await world.schedules.create(ANN, "nightly", new)
    made = await world.create()
    with pytest.raises(error, match=said):
        await world.schedules.replace(ANN, "nightly", new)
    assert await world.get() == made
    for name in ("", "a/b", "-x", "x" * 129, "x y"):
        with pytest.raises(InvalidInput, match="name"):
            await world.create(name)


@pytest.mark.behaviour("schedules:change:states")
async def test_a_name_is_taken_once_and_a_deleted_schedule_leaves_nothing(world: World) -> None:
    await world.create()
    with pytest.raises(ScheduleExists, match="'nightly' exists already"):
        await world.create()
    await world.fire()
    await world.schedules.delete(ANN, "nightly")
    assert await world.database.read(one("select 1 from schedule_runs")) == []
    calls: list[Callable[..., Any]] = [world.schedules.get, world.schedules.pause, world.schedules.resume]
    for call in (*calls, world.schedules.delete):
        with pytest.raises(ScheduleNotFound, match="no schedule 'nightly'"):
            await call(ANN, "nightly")


@pytest.mark.behaviour("schedules:history:bounded")
async def test_the_history_keeps_the_newest_runs(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedules, "KEPT_RUNS", 3)
    made = await world.create()
    for n in range(6):
        await world.database.write(schedules.record(made.id, float(n), "skipped", missed=0))
    assert [run.due for run in await world.history()] == [5.0, 4.0, 3.0]


@pytest.mark.behaviour("schedules:options:registered")
async def test_a_schedule_in_the_options_is_made_then_kept_then_changed(world: World) -> None:
    def put(spec: str) -> Any:
        return put_from_options(ANN, "default", "hello", spec)

    made = await world.database.write(put(encode_spec(interval(hours=6))))
    assert (made.name, made.workflow, made.owner) == ("default.hello", "default/hello", "ann")
    assert until_next(made) == 6 * 3_600
    same = await world.database.write(put('{"type":"interval","seconds":21600}'))
    assert (same.id, same.next_at) == (made.id, made.next_at)
    await world.schedules.pause(ANN, made.name)
    assert (await world.database.write(put(encode_spec(cron("0 9 * * *"))))).state == "paused"
    with pytest.raises(InvalidInput, match="never fires"):
        await world.database.write(put(encode_spec(once(datetime(2001, 1, 1)))))
    await world.schedules.replace(ANN, made.name, TALK)
    with pytest.raises(Conflict, match="starts something else"):
        await world.database.write(put(encode_spec(interval(hours=6))))
