"""Programs of steps: atomic, apart from each other, on both databases."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import anyio
import pytest

from flux.errors import DatabaseUnavailable, InvalidInput
from flux.store import configs, deltas, executions
from flux.store._sqlite import SqliteDatabase
from flux.store.database import Database, Steps, one
from flux.store.opening import open_database
from tests.integration.states import ANN
from tests.integration.store.raw import run

T = TypeVar("T")
GUARD = 20


def put_then_raise(name: str) -> Steps[None]:
    yield from configs.put(ANN, name, "never")
    raise ZeroDivisionError(name)


@contextlib.asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    database = await open_database(url)
    try:
        yield database
    finally:
        await database.close()


async def value(database: Database, name: str) -> str | None:
    return await database.read(configs.get(ANN, name))


@pytest.mark.behaviour("store:database:atomic")
async def test_a_program_that_raises_leaves_nothing_and_harms_no_other(database: Database) -> None:
    programs = [configs.put(ANN, f"n{n}", "x") if n % 3 else put_then_raise(f"n{n}") for n in range(30)]
    results = await asyncio.gather(*map(database.write, programs), return_exceptions=True)
    assert [str(result) for result in results if result is not None] == [f"n{n}" for n in range(0, 30, 3)]
    assert {name for name in await database.read(configs.names(ANN))} == {f"n{n}" for n in range(30) if n % 3}


@pytest.mark.behaviour("store:database:atomic")
async def test_increments_at_the_same_time_are_all_counted(database: Database, other_database: Database) -> None:
    await database.write(one("insert into grants values ('', 't', '0')"))
    add = "update grants set by = cast(cast(by as integer) + 1 as text)"
    async with anyio.create_task_group() as group:
        for n in range(40):
            group.start_soon((database, other_database)[n % 2].write, one(add))
    assert await database.read(one("select by from grants")) == [("40",)]


@pytest.mark.behaviour("store:database:atomic")
async def test_a_read_is_one_snapshot(database: Database) -> None:
    await database.write(configs.put(ANN, "a", "1"))

    def twice() -> Steps[list[str | None]]:
        first = yield from configs.get(ANN, "a")
        run(database.url, "update configs set value = '2'")
        return [first, (yield from configs.get(ANN, "a"))]

    assert await database.read(twice()) == ["1", "1"]
    assert await database.scan(configs.get(ANN, "a")) == "2"


@pytest.mark.behaviour("store:database:cancelled-caller")
async def test_a_caller_that_leaves_takes_back_all_or_nothing(database: Database) -> None:
    def both(n: int) -> Steps[None]:
        yield from configs.put(ANN, f"a{n}", "x")
        yield from configs.put(ANN, f"b{n}", "x")

    for n in range(10):
        task = asyncio.create_task(database.write(both(n)))
        for _ in range(n):
            await anyio.lowlevel.checkpoint()
        task.cancel()
        await asyncio.wait((task,))
    await database.write(configs.put(ANN, "last", "x"))
    names = set(await database.read(configs.names(ANN)))
    assert {name[1:] for name in names if name[0] == "a"} == {name[1:] for name in names if name[0] == "b"}


@pytest.mark.behaviour("store:database:cancelled-caller")
async def test_a_caller_that_is_told_to_leave_once_leaves(database: Database) -> None:
    async def ask_for_ever() -> None:
        while True:
            await database.scan(configs.get(ANN, "a"))
            await database.write(configs.put(ANN, "a", "1"))

    with anyio.fail_after(GUARD):
        for n in range(20):
            callers = [asyncio.create_task(ask_for_ever()) for _ in range(12)]
            for _ in range(20 + n):
                await anyio.lowlevel.checkpoint()
            for caller in callers:
                caller.cancel()
            await asyncio.wait(callers)


@pytest.mark.behaviour("store:database:closed")
async def test_closing_finishes_what_is_under_way(database_url: str) -> None:
    database = await open_database(database_url)
    writes = [asyncio.create_task(database.write(configs.put(ANN, f"n{n}", "x"))) for n in range(5)]
    await anyio.lowlevel.checkpoint()
    await database.close()
    await asyncio.gather(*writes)
    database = await open_database(database_url)
    assert len(await database.read(configs.names(ANN))) == 5
    await database.close()


@pytest.mark.behaviour("store:database:closed")
async def test_a_closed_database_says_so(database_url: str) -> None:
    database = await open_database(database_url)
    last = asyncio.gather(*(database.write(configs.put(ANN, f"n{n}", "x")) for n in range(5)))
    await last
    await database.close()
    await database.close()
    for use in (database.read, database.scan, database.write):
        with pytest.raises(DatabaseUnavailable):
            await use(configs.get(ANN, "n1"))
    database = await open_database(database_url)
    assert len(await database.read(configs.names(ANN))) == 5
    await database.close()


class Observer:
    """Writes down what the database says about its commits."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def before(self) -> None:
        self.told.append("before")

    def after(self) -> None:
        self.told.append("after")


@pytest.mark.behaviour("store:database:observed")
async def test_an_observer_is_told_before_and_after_each_commit_and_of_no_read(database_url: str) -> None:
    observer = Observer()
    database = await open_database(database_url, observer=observer)
    for n in range(2):
        await database.write(configs.put(ANN, "a", str(n)))
        await database.read(configs.get(ANN, "a"))
    assert observer.told == ["before", "after"] * 2
    await database.close()


@pytest.mark.behaviour("store:database:foreign-writes")
async def test_it_is_heard_when_another_process_wrote(database: Database, other_database: Database) -> None:
    heard: asyncio.Queue[str | None] = asyncio.Queue()
    listening = asyncio.create_task(database.listen(heard.put_nowait))
    async with asyncio.timeout(GUARD):
        assert await heard.get() is None  # whatever was before
        await other_database.write(configs.put(ANN, "a", "1"))
        if database.shared:
            await other_database.write(deltas.post([], ["a bell"]))
            assert await heard.get() == "a bell"
        else:
            assert await heard.get() is None
    while not listening.done():
        listening.cancel()
        await asyncio.wait((listening,), timeout=1)


@pytest.mark.behaviour("store:database:foreign-writes")
async def test_sqlite_counts_what_others_wrote(sqlite_url: str) -> None:
    database = await SqliteDatabase(Path(sqlite_url.removeprefix("sqlite:///"))).open()
    async with opened(sqlite_url) as other:
        seen = {await database.version()}
        for n in range(5):
            await other.write(configs.put(ANN, "a", str(n)))
            seen.add(await database.version())
    await database.close()
    assert len(seen) == 6


@pytest.mark.behaviour("store:database:connection-lost")
async def test_lost_connections_are_made_anew(postgres_url: str) -> None:
    """Those who meet a lost connection are told so; those after them are served."""

    async def in_the_end(call: Callable[[], Awaitable[T]]) -> T:
        while True:
            with contextlib.suppress(DatabaseUnavailable):
                return await call()

    async with opened(postgres_url) as database:
        await database.write(configs.put(ANN, "a", "1"))
        pids = await asyncio.gather(*(database.read(one("select pg_backend_pid()")) for _ in range(5)))
        for ((pid,),) in pids:
            run(postgres_url, f"select pg_terminate_backend({pid})")
        with anyio.fail_after(GUARD):
            assert await in_the_end(lambda: value(database, "a")) == "1"
            await in_the_end(lambda: database.write(configs.put(ANN, "a", "2")))
            assert await in_the_end(lambda: value(database, "a")) == "2"


@pytest.mark.behaviour("store:database:unstorable")
async def test_text_postgres_cannot_hold_is_the_callers_mistake(postgres_url: str) -> None:
    async with opened(postgres_url) as database:
        with pytest.raises(InvalidInput):
            await database.write(configs.put(ANN, "a\x00b", "1"))
        with pytest.raises(InvalidInput):
            await database.read(executions.get(ANN, "\x00"))
        await database.write(configs.put(ANN, "a", "1"))
