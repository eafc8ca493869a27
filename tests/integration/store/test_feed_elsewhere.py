"""Readers of what another process writes."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import pytest

from flux.engine.dispatching.dispatch import EmbeddedDispatch
from flux.engine.intake.admission import Admission
from flux.store import configs, executions
from flux.store.database import Database, Heard, Steps
from flux.store.feed import Feed, Frame
from tests.integration.states import ANN, HELLO, Sessions
from tests.integration.store.test_feed import GUARD


async def next_of(batches: AsyncGenerator[list[Frame], None]) -> list[Frame]:
    with anyio.fail_after(GUARD):
        return await anext(batches)


@pytest.mark.behaviour("events:feed:other-processes")
async def test_what_another_process_writes_is_seen(database: Database, other_database: Database) -> None:
    here, there = Sessions(database), Sessions(other_database)
    id = await here.idle()
    feed = Feed(database)
    async with contextlib.aclosing(feed.follow(ANN, id)) as batches:
        assert [frame.type for frame in await next_of(batches)] == ["session_started"]
        await there.admission.admit(ANN, id, HELLO)
        assert [frame.type for frame in await next_of(batches)] == ["user_message"]


@pytest.mark.behaviour("events:feed:other-processes")
async def test_a_reader_that_is_busy_while_another_process_writes_misses_nothing(
    database: Database, other_database: Database
) -> None:
    here, there = Sessions(database), Sessions(other_database)
    id = await here.idle()
    feed, noticed = Feed(database), asyncio.Event()
    feed.on_foreign_write = lambda _: noticed.set()
    async with contextlib.aclosing(feed.follow(ANN, id)) as batches:
        await next_of(batches)
        with anyio.fail_after(GUARD):
            await noticed.wait()  # the first look
            await there.admission.admit(ANN, id, HELLO)
            noticed.clear()
            await noticed.wait()
        assert [frame.type for frame in await next_of(batches)] == ["user_message"]


class LateLook:
    """A database whose first answer about other writers comes late."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.go = asyncio.Event()

    async def listen(self, heard: Heard) -> None:
        await self.go.wait()
        await self._database.listen(heard)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)


@pytest.mark.behaviour("events:feed:other-processes")
async def test_what_another_process_writes_before_the_first_look_is_seen(
    database: Database, other_database: Database
) -> None:
    here, there = Sessions(database), Sessions(other_database)
    id = await here.idle()
    late = LateLook(database)
    async with contextlib.aclosing(Feed(late).follow(ANN, id)) as batches:
        await next_of(batches)
        await there.admission.admit(ANN, id, HELLO)
        late.go.set()
        assert [frame.type for frame in await next_of(batches)] == ["user_message"]


class LateRead:
    """A database whose answers were right when they were made, but come late."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.asked, self.go = asyncio.Event(), asyncio.Event()
        self.go.set()

    async def single(self, steps: Steps[Any]) -> Any:
        rows = await self._database.single(steps)
        self.asked.set()
        await self.go.wait()
        return rows

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)


@pytest.mark.behaviour("events:feed:other-processes")
async def test_entries_that_come_while_the_log_is_being_read_are_seen(
    database: Database, other_database: Database
) -> None:
    """The read is older than what is published meanwhile: that is no sign that the log is gone."""
    here = Sessions(database)
    id = await here.idle()
    late = LateRead(database)
    feed = Feed(late)
    with anyio.fail_after(GUARD):
        async with contextlib.aclosing(feed.follow(ANN, id)) as batches:
            await anext(batches)
            seen = asyncio.create_task(anext(batches))
            late.asked.clear()
            late.go.clear()
            while not late.asked.is_set():
                await other_database.write(configs.put(ANN, "a", "something else"))
                await anyio.lowlevel.checkpoint()
            await here.admission.admit(ANN, id, HELLO)
            await Admission(database, feed, EmbeddedDispatch(database)).admit(ANN, id, HELLO)
            late.go.set()
            assert [frame.cursor.seq for frame in await seen] == [2, 3]


@pytest.mark.behaviour("events:feed:deleted-session")
async def test_the_stream_of_a_session_that_is_deleted_ends(database: Database, other_database: Database) -> None:
    sessions, there = Sessions(database), Sessions(other_database)
    id = await sessions.idle()
    feed = Feed(database)
    admission = Admission(database, feed, EmbeddedDispatch(database))
    async with contextlib.aclosing(feed.follow(ANN, id)) as batches:
        await next_of(batches)
        await there.admission.admit(ANN, id, HELLO)
        await admission.end(ANN, id)
        await database.write(executions.delete(ANN, id))
        with anyio.fail_after(GUARD):
            seen = [frame.type async for batch in batches for frame in batch]
        # Whether it was looked for before it was gone is a matter of luck, but not where only this process looks.
        assert not seen or database.shared
