"""Two connections on a real Postgres at the same moment: driving children, and whoever else locks the same tree."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import psycopg
import pytest

from flux.engine.dispatching.dispatch import EmbeddedDispatch
from flux.engine.intake.answers import Decision, answer_steps
from flux.errors import Fenced, InterruptDecided, SessionEnded
from flux.events import Cancelled, ChildDone, InputRequired, SessionStarted, UserSaid
from flux.messages import TextPart
from flux.store import driven, executions, interrupts, log, ownership, waits
from flux.store.database import Database, Steps, one
from flux.store.driven import Driver, Taken
from flux.store.log import Then
from flux.store.opening import open_database
from tests.integration.states import ANN, WORKER, Sessions

HELD = 4711
GUARD = 20


class Tree:
    """A root that runs, a child that it drives, and room for one below that."""

    def __init__(self, url: str, database: Database, root: str) -> None:
        self.url = url
        self.database = database
        self.root = root
        self.sessions = Sessions(database)

    async def drive(self, driver: Driver, id: str) -> Taken:
        """Drive a child."""
        return await self.database.write(driving(driver, id))

    async def held(self, program: Steps[Any], after: str) -> asyncio.Task[Any]:
        """Run a program that stops in the midst of its transaction, behind a statement with these words."""
        task = asyncio.create_task(self.database.write(paused(program, after)))
        await self.until_waiting(1, task)
        return task

    async def meet(self, first: asyncio.Task[Any], second: asyncio.Task[Any], letting: Any) -> list[Any]:
        """Let the first one go on when the second one waits for it, or has got through; what both came to."""
        await self.until_waiting(2, second)
        letting.set()
        with anyio.fail_after(GUARD):
            return list(await asyncio.gather(first, second, return_exceptions=True))

    async def until_waiting(self, count: int, task: asyncio.Task[Any]) -> None:
        """Return when so many wait for locks, or a task is done."""
        with anyio.fail_after(GUARD):
            while not task.done():
                rows = await self.database.read(one("select count(*) from pg_locks where not granted"))
                if rows[0][0] >= count:
                    return


def driving(driver: Driver, id: str) -> Steps[Taken]:
    """The program that drives a child which asks nothing."""
    started = SessionStarted(agent="helper", instance=id, name="default", definition_digest="d1")
    said = UserSaid(id=f"m-{id}", mode="queue", parts=(TextPart("go"),))
    return driven.drive(ANN, driver, id, started, said, f"r-{id}")


def paused(program: Steps[Any], after: str) -> Steps[Any]:
    """A program that waits behind its first statement with these words until the lock HELD is free."""
    sql, parameters = next(program)
    waited = False
    while True:
        rows = yield sql, parameters
        if after in sql and not waited:
            waited = True
            yield f"select pg_advisory_xact_lock({HELD})", {}
        try:
            sql, parameters = program.send(rows)
        except StopIteration as stop:
            return stop.value


@pytest.fixture
async def tree(postgres_url: str) -> AsyncIterator[Tree]:
    database = await open_database(postgres_url, synchronous="normal")
    yield Tree(postgres_url, database, await Sessions(database).running())
    await database.close()


@asynccontextmanager
async def holding(tree: Tree) -> AsyncIterator[asyncio.Event]:
    """Hold what `paused` waits for, until the event is set."""
    letting = asyncio.Event()
    async with await psycopg.AsyncConnection.connect(tree.url, autocommit=True) as connection:
        await connection.execute(f"select pg_advisory_lock({HELD})")

        async def let() -> None:
            await letting.wait()
            await connection.execute(f"select pg_advisory_unlock({HELD})")

        task = asyncio.create_task(let())
        try:
            yield letting
        finally:
            letting.set()
            await task


async def middle(tree: Tree) -> Driver:
    """The child of the root, as a driver."""
    root = await tree.sessions.row(tree.root)
    taken = await tree.drive(Driver(root.id, root.epoch, WORKER, root.id), "middle")
    return Driver("middle", taken.execution.epoch, WORKER, root.id)


@pytest.mark.behaviour("engine:driven:drive-end")
@pytest.mark.parametrize("deep", [False, True])
async def test_a_child_driven_while_its_root_is_ended_is_ended_too_or_never_there(tree: Tree, deep: bool) -> None:
    root = await tree.sessions.row(tree.root)
    driver = await middle(tree) if deep else Driver(root.id, root.epoch, WORKER, root.id)
    async with holding(tree) as letting:
        first = await tree.held(driving(driver, "low"), "insert into executions")
        second = asyncio.create_task(tree.sessions.admission.end(ANN, tree.root))
        drove, ended = await tree.meet(first, second, letting)
    assert not isinstance(ended, BaseException), ended
    low = await tree.database.read(executions.get(ANN, "low"))
    assert isinstance(drove, Taken | Fenced | SessionEnded), drove
    assert low is None or low.state == "ended"


@pytest.mark.behaviour("engine:driven:drive-reap")
@pytest.mark.parametrize("deep", [False, True])
async def test_a_child_driven_while_its_root_is_reaped_is_fenced(tree: Tree, deep: bool) -> None:
    root = await tree.sessions.row(tree.root)
    driver = await middle(tree) if deep else Driver(root.id, root.epoch, WORKER, root.id)
    async with holding(tree) as letting:
        first = await tree.held(driving(driver, "low"), "insert into executions")
        second = asyncio.create_task(tree.database.write(ownership.reap(WORKER, (0.0,))))
        drove, reaped = await tree.meet(first, second, letting)
    assert reaped == [tree.root]
    assert isinstance(drove, Taken | Fenced), drove
    if isinstance(drove, Taken):
        with pytest.raises(Fenced):
            await tree.sessions.append(drove.execution, Cancelled())
    with pytest.raises(Fenced):  # and so is who drove it
        await tree.drive(driver, "another")


@pytest.mark.behaviour("engine:driven:end-drive")
async def test_a_root_that_is_being_ended_or_reaped_drives_nothing_more(tree: Tree) -> None:
    driver = await middle(tree)
    async with holding(tree) as letting:
        first = await tree.held(ownership.reap(WORKER, (0.0,)), "update executions set state = 'scheduled'")
        second = asyncio.create_task(tree.drive(driver, "low"))
        _, drove = await tree.meet(first, second, letting)
    assert isinstance(drove, Fenced), drove
    assert await tree.database.read(executions.get(ANN, "low")) is None


@pytest.mark.behaviour("engine:driven:answer-end")
@pytest.mark.parametrize("answers_first", [False, True])
async def test_an_answer_and_the_end_of_the_run_that_asked_do_not_lock_each_other_out(
    tree: Tree, answers_first: bool
) -> None:
    child = await tree.sessions.row((await middle(tree)).id)
    opening = interrupts.open_interrupt(ANN, id="q", execution_id=child.id, call="c", kind="input", payload={})
    await tree.database.write(opening)
    await tree.sessions.append(child, InputRequired(id="q", call="c", question="Which?"))
    ending = log.append(ANN, child.id, child.epoch, child.run_id, (Cancelled(),), then=Then("idle"))
    async with holding(tree) as letting:
        if answers_first:
            program = answer_steps(ANN, tree.root, "q", Decision("answer"), EmbeddedDispatch(tree.database))
            first = await tree.held(program, "update interrupts")
            second: asyncio.Task[Any] = asyncio.create_task(tree.database.write(ending))
            answered, ended = await tree.meet(first, second, letting)
            assert not isinstance(answered, BaseException), answered
        else:
            first = await tree.held(ending, "update executions")
            second = asyncio.create_task(tree.sessions.admission.answer(ANN, tree.root, "q", Decision("answer")))
            ended, answered = await tree.meet(first, second, letting)
            assert isinstance(answered, InterruptDecided), answered
    assert not isinstance(ended, BaseException), ended


@pytest.mark.behaviour("engine:driven:wait-end")
async def test_who_waits_for_an_execution_that_ends_at_this_moment_sees_its_end_or_is_told(tree: Tree) -> None:
    target = await tree.sessions.row(await tree.sessions.running())
    waiter = await tree.sessions.row(tree.root)

    def ending() -> Steps[None]:
        yield from log.append(ANN, target.id, target.epoch, None, (Cancelled(),), then=Then("ended", outcome="x"))
        yield from waits.release(ANN.tenant, target.id, "x")

    async def waiting() -> bool:
        await tree.database.write(waits.wait_for(ANN, waiter.id, target.id))
        return await tree.database.write(waits.open_target(ANN, target.id))

    async with holding(tree) as letting:
        first = await tree.held(ending(), "delete from waits")
        second = asyncio.create_task(waiting())
        _, is_open = await tree.meet(first, second, letting)
    told = [entry for entry in await tree.sessions.entries(waiter.id) if isinstance(entry, ChildDone)]
    assert told or is_open is False
