"""One run from claim to rest, and what becomes of it when it breaks."""

import asyncio
import json
import logging

import pytest

from flux.engine.running.run import Run
from flux.errors import Fenced
from flux.events import AssistantSaid, ChatResponse, ModelFailed, RunStarted, Token, ToolDone, ToolOutput, UsageCounted
from flux.messages import TextPart, Usage
from flux.store import configs
from flux.store.database import Database, Steps, one
from flux.store.executions import Spent
from flux.store.log import Then
from tests.integration.engine.engines import Engine, answer_all
from tests.integration.states import ANN, Sessions


@pytest.mark.behaviour("engine:runner:failure-is-tried-again")
@pytest.mark.parametrize("kind", ["raises", "leaves nothing"])
async def test_a_run_that_breaks_is_handed_back_counted_and_tried_again(database: Database, kind: str) -> None:
    failures: list[int] = []

    async def broken_once(run: Run) -> None:
        failures.append(run.failures)
        if len(failures) > 1:
            await answer_all(run)
        elif kind == "raises":
            raise ZeroDivisionError("a bug")

    engine = Engine(database, broken_once)
    async with engine.working():
        id = await engine.start()
        row = await engine.row_when(id, lambda row: row.failures == 1)
        assert (row.state, row.worker) == ("scheduled", None)
        assert row.due is not None
        assert round(row.due - row.updated, 3) == 1.0  # the first back-off
        await engine.until(id, "chat_response")
        row = await engine.at_rest(id)
    assert failures == [0, 1]
    assert row.failures == 0


@pytest.mark.behaviour("engine:runner:failure-is-tried-again")
async def test_a_kind_nobody_here_can_run_is_handed_back(database: Database) -> None:
    engine = Engine(database)
    id = await engine.start()
    await database.write(one("update executions set kind = 'other' where id = :id", id=id))
    async with engine.working():
        row = await engine.row_when(id, lambda row: row.failures == 1)
    assert (row.state, row.worker, engine.ran) == ("scheduled", None, [])


@pytest.mark.behaviour("engine:runner:fenced-stops")
async def test_a_fenced_run_stops_silently_and_touches_nothing(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    begun, go_on, over = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def overtaken(run: Run) -> None:
        begun.set()
        await go_on.wait()
        try:
            await run.append(UsageCounted(tokens=Usage()))
        finally:
            over.set()

    engine = Engine(database, overtaken)
    async with engine.working():
        id = await engine.start()
        await begun.wait()
        await engine.admission.end(ANN, id)
        before = await engine.row(id)
        go_on.set()
        await over.wait()
    assert await engine.row(id) == before
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


@pytest.mark.behaviour("engine:runner:leaving-twice")
async def test_a_run_that_breaks_after_it_left_is_not_taken_back(database: Database) -> None:
    async def careless(run: Run) -> None:
        await answer_all(run)
        raise ZeroDivisionError("too late to matter")

    engine = Engine(database, careless)
    async with engine.working():
        id = await engine.start()
        await engine.until(id, "chat_response")
        await engine.at_rest(id)
    row = await engine.row(id)
    assert (row.state, row.failures, row.epoch) == ("idle", 0, 1)


@pytest.mark.behaviour("engine:run:deltas")
async def test_readers_see_the_deltas_of_a_run_before_the_entry_that_replaces_them(database: Database) -> None:
    async def talk(run: Run) -> None:
        for text in ("Hel", "lo"):
            run.emit(Token("m1", 1, text))
        run.emit(ToolOutput("c1", "$ ls"))
        await run.append(AssistantSaid(message_id="m1", parts=(TextPart("Hello"),)))
        await answer_all(run)

    engine = Engine(database, talk)
    id = await engine.start()
    seen = asyncio.create_task(engine.until(id, "chat_response"))
    async with engine.working():
        frames = await seen
    types = [frame.type for frame in frames]
    assert types[2:6] == ["token", "token", "tool_output", "assistant_message"]
    assert [json.loads(frame.data)["n"] for frame in frames[2:5]] == [1, 2, 3]
    assert [str(frame.cursor) for frame in frames[1:6]] == ["2.0.0", "2.1.1", "2.1.2", "2.1.3", "3.1.3"]


async def _claimed(database: Database) -> tuple[Engine, Run]:
    engine = Engine(database)
    row = await Sessions(database).claim(await Sessions(database).backed_off_now())
    return engine, Run(row, database, engine.feed, engine.dispatch)


@pytest.mark.behaviour("engine:run:append")
async def test_what_a_run_knows_of_itself_follows_its_entries(database: Database) -> None:
    engine, run = await _claimed(database)
    assert run.failures == 1
    await run.append(RunStarted(run="r2", inputs=()))
    assert (run.run_id, run.failures) == ("r2", 1)
    await run.append(ModelFailed(message_id="m", attempt=1, error="busy", kind="transient", transient=True))
    assert run.failures == 1
    await run.append(ToolDone(call="c", name="t", status="success", outcome="success", content=""))
    assert run.failures == 0
    await run.append(AssistantSaid(message_id="m", parts=(), usage=Usage(10, 5), cost=0.5))
    await run.append(UsageCounted(tokens=Usage(1, 1)), ChatResponse(content="", turn=1))
    row = await engine.row(run.id)
    assert run.spent == row.spent == Spent(Usage(11, 6), 0.5)
    assert (run.run_id, row.run_id, row.failures, row.turns) == (None, None, 0, 1)


@pytest.mark.behaviour("engine:run:append")
async def test_what_is_written_beside_an_append_stands_or_falls_with_it(database: Database) -> None:
    engine, run = await _claimed(database)
    await run.append(UsageCounted(tokens=Usage()), also=configs.put(ANN, "a", "1"))
    before = await engine.row(run.id)

    def breaks() -> Steps[None]:
        yield from configs.put(ANN, "a", "2")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await run.append(AssistantSaid(message_id="m", parts=(), usage=Usage(7, 7)), also=breaks())
    assert (await engine.row(run.id), run.spent) == (before, before.spent)
    await engine.admission.end(ANN, run.id)
    with pytest.raises(Fenced):
        await run.append(UsageCounted(tokens=Usage()), also=configs.put(ANN, "a", "3"))
    assert await database.read(configs.get(ANN, "a")) == "1"


@pytest.mark.behaviour("engine:run:append")
async def test_appending_with_an_outdated_head_writes_the_entry_but_does_not_leave(database: Database) -> None:
    _, run = await _claimed(database)
    head = run.execution.head
    await run.append(UsageCounted(tokens=Usage()))
    assert not await run.append(ChatResponse(content="", turn=1), seen=head, then=Then("idle"))
    assert run.left is None
    assert await run.append(seen=head + 2, then=Then("idle"))
    assert run.left == Then("idle")


@pytest.mark.behaviour("engine:runner:cancelled-by-itself")
async def test_a_run_that_is_cancelled_by_itself_has_failed(database: Database) -> None:
    """SIGTERM cancels the task; a library that raises CancelledError does not."""
    failures: list[int] = []

    async def broken_once(run: Run) -> None:
        failures.append(run.failures)
        if len(failures) == 1:
            raise asyncio.CancelledError
        await answer_all(run)

    engine = Engine(database, broken_once)
    async with engine.working():
        id = await engine.start()
        await engine.until(id, "chat_response")
    assert failures == [0, 1]


@pytest.mark.behaviour("engine:run:append")
async def test_what_was_read_is_not_read_again_until_somebody_else_wrote(database: Database) -> None:
    _, run = await _claimed(database)
    head = (await run.read(0))[-1].seq
    assert await run.read(head) == []
    await run.append(UsageCounted(tokens=Usage()))
    assert [stored.seq for stored in await run.read(head)] == [head + 1]
    assert [stored.seq for stored in await run.read(0)] == list(range(1, head + 2))
    assert await run.read(head + 1) == []


@pytest.mark.behaviour("engine:run:append")
async def test_failures_do_not_outlive_the_run_that_had_them(database: Database) -> None:
    """It was taken away between its end and its rest: the next claim finds nothing to do."""
    engine, run = await _claimed(database)
    assert (await engine.row(run.id)).failures == 1
    await run.append(then=Then("waiting"), seen=0)
    assert (await engine.row(run.id)).failures == 1
    await run.append(then=Then("idle"))
    assert (await engine.row(run.id)).failures == 0
