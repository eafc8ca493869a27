"""What readers see of a run in another process, on Postgres: every delta once, in order, then the entry."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from flux.engine.dispatching.dispatch import EmbeddedDispatch
from flux.engine.intake.admission import Admission
from flux.engine.intake.inputs import NewMessage
from flux.engine.running.run import Run
from flux.errors import DatabaseUnavailable
from flux.events import AssistantSaid, Token, UsageCounted
from flux.messages import Usage
from flux.store import executions, log, ownership
from flux.store.database import Database, Steps, one
from flux.store.feed import START, Cursor, Feed, Frame, entry_frame
from flux.store.log import Then
from flux.store.opening import open_database
from tests.integration.states import ANN, HELLO, WORKER, Sessions, a_session

GUARD = 20
SERVERS = 2
Op = tuple[str, int]

ops = st.lists(
    st.tuples(
        st.sampled_from(["token", "token", "token", "note", "settle", "said", "end", "hand_back", "hop", "look"]),
        st.integers(0, SERVERS - 1),
    ),
    max_size=40,
)

LENIENT = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture
async def databases(postgres_url: str) -> AsyncIterator[list[Database]]:
    """One for the worker, and one for each server."""
    async with contextlib.AsyncExitStack() as stack:
        opened = []
        for _ in range(1 + SERVERS):
            database = await open_database(postgres_url)
            stack.push_async_callback(database.close)
            opened.append(database)
        yield opened


class Person:
    """Somebody who reads on one server, and goes on at another where they were."""

    def __init__(self, id: str, after: Cursor = START) -> None:
        self.id = id
        self.after = after
        self.seen: list[Frame] = []
        self.more = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def read(self, feed: Feed) -> None:
        self._task = asyncio.create_task(self._read(feed))

    async def _read(self, feed: Feed) -> None:
        async with contextlib.aclosing(feed.follow(ANN, self.id, self.cursor)) as batches:
            async for batch in batches:
                self.seen += batch
                self.more.set()

    async def leave(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    @property
    def cursor(self) -> Cursor:
        return self.seen[-1].cursor if self.seen else self.after

    @property
    def deltas(self) -> list[tuple[int, int]]:
        return [frame.cursor[1:] for frame in self.seen if not frame.entry]

    async def until(self, seq: int) -> None:
        with anyio.fail_after(GUARD):
            while self.cursor.seq < seq:
                self.more.clear()
                await self.more.wait()

    async def until_delta(self, n: int) -> None:
        with anyio.fail_after(GUARD):
            while not self.deltas or self.deltas[-1][1] < n:
                self.more.clear()
                await self.more.wait()


class Story:
    """A session that runs in one process, and a person who reads it on others."""

    def __init__(self, databases: list[Database], id: str) -> None:
        self.worker, *self.others = [Feed(database) for database in databases]
        self.database, self.id = databases[0], id
        self.admission = Admission(databases[1], self.others[0], EmbeddedDispatch(databases[1]))
        self.person = Person(id)
        self.run: Run | None = None
        self.count = 0
        self.emitted: list[tuple[int, int]] = []
        self.in_flight: dict[tuple[int, int], str] = {}
        self.given_up: set[tuple[int, int]] = set()

    async def begun(self) -> Run:
        if self.run is None:
            row = await self.database.read(executions.get(ANN, self.id))
            assert row is not None
            if row.state == "idle":
                await self.admission.admit(ANN, self.id, HELLO)
            claimed = await self.database.write(ownership.claim(self.id, WORKER))
            assert claimed is not None
            self.run, self.count = Run(claimed, self.database, self.worker, EmbeddedDispatch(self.database)), 0
            self.worker.begin(self.id, claimed.epoch, claimed.head)
        return self.run

    async def token(self, subject: int) -> None:
        run = await self.begun()
        self.count += 1
        self.emitted.append((run.epoch, self.count))
        self.in_flight[run.epoch, self.count] = f"m{subject}"
        run.emit(Token(f"m{subject}", 1, f"{run.epoch}.{self.count}"))

    async def note(self, _: int) -> None:
        await (await self.begun()).append(UsageCounted(tokens=Usage(1, 1)))

    async def settle(self, subject: int) -> None:
        await (await self.begun()).append(AssistantSaid(message_id=f"m{subject}", parts=()))
        self.in_flight = {place: of for place, of in self.in_flight.items() if of != f"m{subject}"}

    async def said(self, _: int) -> None:
        await self.admission.admit(ANN, self.id, NewMessage("and", mode="steer"))

    async def end(self, _: int) -> None:
        run = await self.begun()
        await run.append(then=Then("idle"))
        self.stopped()

    async def hand_back(self, _: int) -> None:
        run = await self.begun()
        await self.worker.flushed(self.id)
        await self.database.write(ownership.hand_back(self.id, run.epoch, failed=False, backoff=0))
        self.stopped()

    def stopped(self) -> None:
        self.worker.end(self.id)
        self.run = None
        self.given_up |= self.in_flight.keys()
        self.in_flight.clear()

    async def hop(self, server: int) -> None:
        await self.person.leave()
        self.person.read(self.others[server])

    async def look(self, _: int) -> None:
        """Let everybody do something: also those that wait for the database."""
        await self.database.read(one("select 1"))

    async def finish(self) -> None:
        await (await self.begun()).append(UsageCounted(tokens=Usage(9, 9)))
        rows = await self.database.read(log.read(ANN, self.id))
        await self.person.until(rows[-1].seq)
        self.check({row.seq: entry_frame(row).data for row in rows})
        await self.person.leave()
        self.stopped()
        for feed in (self.worker, *self.others):
            await feed.close()

    def check(self, log: dict[int, bytes]) -> None:
        """Entries and deltas once and in order, and what an entry replaces before it."""
        entries = [frame for frame in self.person.seen if frame.entry]
        assert {frame.cursor.seq: frame.data for frame in entries} == log
        assert [frame.cursor.seq for frame in entries] == sorted(log)
        got = set(self.person.deltas)
        # Pieces of what was never finished are not shown to who comes after the next run has begun.
        assert self.person.deltas == [place for place in self.emitted if place in got or place not in self.given_up]
        last, done = 0, set[str]()
        for frame in self.person.seen:
            body = json.loads(frame.data)
            if frame.entry:
                last = frame.cursor.seq
                done |= {body["message_id"]} if frame.type == "assistant_message" else set()
            else:
                assert frame.cursor.seq == last
                assert (body["n"], body["text"]) == (frame.cursor.n, f"{frame.cursor.epoch}.{frame.cursor.n}")


async def told(databases: list[Database], script: list[Op]) -> Story:
    id = (await Sessions(databases[0]).admission.start(ANN, a_session())).id
    story = Story(databases, id)
    story.person.read(story.others[0])
    await story.person.until(1)
    for name, n in script:
        await getattr(story, name)(n)
    await story.finish()
    return story


@pytest.mark.behaviour("feed:elsewhere:exactly-once", "feed:elsewhere:moves")
@LENIENT
@given(script=ops)
@example(script=[("token", 0), ("settle", 0)])
@example(script=[("token", 0), ("look", 0), ("hop", 1), ("token", 0), ("settle", 0), ("hop", 0)])
@example(script=[("token", 0), ("said", 0), ("look", 0), ("token", 0), ("settle", 0), ("end", 0), ("token", 0)])
@example(script=[("token", 0), ("hop", 1), ("settle", 0), ("end", 0), ("token", 1), ("hop", 0), ("settle", 1)])
async def test_each_delta_is_seen_once_and_in_order_on_whatever_server(
    databases: list[Database], script: list[Op]
) -> None:
    await told(databases, script)


@pytest.mark.behaviour("feed:elsewhere:exactly-once")
@LENIENT
@given(script=ops.map(lambda script: [op for op in script if op[0] != "hop"]))
async def test_who_stays_also_sees_what_is_never_finished(databases: list[Database], script: list[Op]) -> None:
    story = await told(databases, script)
    assert story.person.deltas == story.emitted


@pytest.mark.behaviour("feed:elsewhere:moves")
@pytest.mark.parametrize("cut", range(1, 8))
async def test_a_reader_may_be_cut_off_after_any_frame(databases: list[Database], cut: int) -> None:
    id = (await Sessions(databases[0]).admission.start(ANN, a_session())).id
    story = Story(databases, id)
    for _ in range(5):
        await story.token(0)
    await story.worker.flushed(id)
    story.person.read(story.others[0])
    await story.person.until_delta(5)
    await story.person.leave()
    del story.person.seen[cut:]
    story.person.read(story.others[1])
    await story.token(0)
    await story.settle(0)
    await story.finish()


LISTENING = (
    "select pg_terminate_backend(pid) from pg_stat_activity"
    " where query = 'listen \"flux-' || md5(current_schema()) || '\"'"
)


async def reading(databases: list[Database]) -> Story:
    """A session that runs, and a person who has read it up to its first delta."""
    story = Story(databases, (await Sessions(databases[0]).admission.start(ANN, a_session())).id)
    story.person.read(story.others[0])
    await story.token(0)
    await story.person.until_delta(1)
    return story


@pytest.mark.behaviour("feed:elsewhere:recovers")
async def test_a_lost_connection_for_bells_is_made_again(
    databases: list[Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flux.store._listen.LOOK_SECONDS", 1_000)
    story = await reading(databases)
    for n in range(2, 5):
        with anyio.fail_after(GUARD):
            while not await databases[2].single(one(LISTENING)):
                pass
        await story.token(0)
        await story.person.until_delta(n)
    await story.settle(0)
    await story.finish()


@pytest.mark.behaviour("feed:elsewhere:recovers")
async def test_what_no_bell_tells_of_is_found_by_a_look(
    databases: list[Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flux.store._listen.LOOK_SECONDS", 0.1)
    story = await reading(databases)
    monkeypatch.setattr(story.worker, "_stream", None)
    await story.note(0)
    await story.finish()


class Away:
    """A database that does not always answer."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.is_away = False

    async def single(self, steps: Steps[Any]) -> Any:
        if self.is_away:
            raise DatabaseUnavailable("it is away")
        return await self._database.single(steps)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)


@pytest.mark.behaviour("feed:elsewhere:recovers")
async def test_deltas_that_a_database_did_not_take_are_offered_again(
    databases: list[Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flux.store.stream.AGAIN_SECONDS", 0.01)
    away = Away(databases[0])
    story = await reading([away, *databases[1:]])
    away.is_away = True
    for _ in range(3):
        await story.token(0)
    await story.worker.flushed(story.id)
    away.is_away = False
    await story.token(0)
    await story.person.until_delta(5)
    await story.settle(0)
    await story.finish()


async def held(database: Database) -> list[tuple[str, int]]:
    return [(id, epoch) for id, epoch in await database.single(one("select execution_id, epoch from deltas"))]


async def until_held(database: Database, expected: list[tuple[str, int]]) -> None:
    with anyio.fail_after(GUARD):
        while await held(database) != expected:
            pass


@pytest.mark.behaviour("feed:elsewhere:leaves-nothing")
async def test_what_is_replaced_is_removed_soon(databases: list[Database], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flux.store.stream.KEEP_SECONDS", 0.1)
    story = await reading(databases)
    await story.token(1)
    await story.settle(0)
    await until_held(databases[1], [(story.id, 1)])  # the other message is in flight
    await story.settle(1)
    await until_held(databases[1], [])
    await story.token(0)  # never finished
    await story.end(0)
    await until_held(databases[1], [])
    await story.finish()


@pytest.mark.behaviour("feed:elsewhere:leaves-nothing")
async def test_a_process_that_leaves_takes_its_deltas_along(databases: list[Database]) -> None:
    story = await reading(databases)
    await story.settle(0)
    await story.token(1)
    await story.finish()
    assert await held(databases[1]) == []


@pytest.mark.behaviour("feed:elsewhere:leaves-nothing")
async def test_what_a_dead_writer_left_behind_is_removed_and_not_shown(
    databases: list[Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flux.store.feed.LEFT_SECONDS", 0.0)
    story = await reading(databases)
    await story.others[1].tidy()
    assert await held(databases[1]) == [(story.id, 1)]  # its writer lives
    await databases[1].write(ownership.reap(WORKER, (0.0,)))
    late = Person(story.id)
    late.read(story.others[1])
    await late.until(2)
    await story.others[1].tidy()
    assert await held(databases[1]) == []
    story.stopped()
    await (await story.begun()).append(UsageCounted(tokens=Usage(1, 1)))
    await late.until(3)
    assert late.deltas == []
    await late.leave()
    await story.finish()


@pytest.mark.behaviour("feed:elsewhere:fenced")
async def test_who_lost_an_execution_shows_nothing_more_of_it(databases: list[Database]) -> None:
    story = await reading(databases)
    await databases[1].write(ownership.reap(WORKER, (0.0,)))
    await story.token(0)
    await story.worker.flushed(story.id)
    assert await databases[1].single(one("select max(last) from deltas")) == [(1,)]
    story.stopped()
    await story.finish()
