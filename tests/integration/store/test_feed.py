"""What readers of a running session see, whenever they come and go: property-tested, and the cases behind it."""

import asyncio
import contextlib
import json

import anyio
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from flux.engine.dispatching.dispatch import EmbeddedDispatch
from flux.engine.intake.admission import Admission
from flux.engine.intake.inputs import NewMessage
from flux.engine.running.run import Run
from flux.errors import InvalidInput
from flux.events import AssistantSaid, Token, UsageCounted
from flux.messages import Usage
from flux.store import executions, log, ownership
from flux.store.database import Database
from flux.store.feed import START, Cursor, Feed, Frame, entry_frame
from flux.store.log import Then
from tests.integration.states import ANN, HELLO, WORKER, Sessions, a_session

GUARD = 10

Op = tuple[str, int]
READERS = 3
SUBJECTS = 3

RUN_OPS = ("token", "note", "settle", "said", "foreign", "swapped", "end", "hand_back")
READER_OPS = ("join", "leave", "rejoin", "hold", "resume", "look")

ops = st.lists(
    st.tuples(
        st.sampled_from(
            ["token", "token", *RUN_OPS, *READER_OPS],
        ),
        st.integers(0, READERS - 1),
    ),
    max_size=40,
)


class Reader:
    """One person who reads, leaves, and comes back with the last cursor."""

    def __init__(self, story: "Story", after: Cursor) -> None:
        self.story = story
        self.after = after
        self.seen: list[Frame] = []
        self.joins: list[int] = []  # how much had happened when it came (again)
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.scope = anyio.CancelScope()

    async def read(self) -> None:
        with self.scope:
            self.joins.append(len(self.story.deltas))
            async with contextlib.aclosing(self.story.feed.follow(ANN, self.story.id, self.cursor)) as batches:
                async for batch in batches:
                    self.seen += batch
                    await self.flowing.wait()

    @property
    def cursor(self) -> Cursor:
        return self.seen[-1].cursor if self.seen else self.after

    def check(self) -> None:
        """Every entry once and in order, no delta twice, every place where one may come back is right."""
        last, delta = self.after.seq, (self.after.epoch, self.after.n)
        for frame in self.seen:
            if frame.entry:
                assert frame.cursor.seq == last + 1
                last += 1
                assert frame.data == self.story.data[last]
            else:
                assert (frame.cursor.epoch, frame.cursor.n) > delta
                delta = (frame.cursor.epoch, frame.cursor.n)
                assert frame.cursor.seq == last
                assert json.loads(frame.data)["text"] == self.story.text(delta)
        assert last == self.story.head

    def missed(self) -> list[tuple[int, int]]:
        got = {(frame.cursor.epoch, frame.cursor.n) for frame in self.seen if not frame.entry}
        return [place for place in self.story.deltas if place not in got]


class Story:
    """A session whose run does what the operations say, and readers who come and go."""

    def __init__(self, database: Database, other: Database, id: str, group: anyio.abc.TaskGroup) -> None:
        self.feed = Feed(database)
        self.admission = Admission(database, self.feed, EmbeddedDispatch(database))
        self.database, self.other, self.id, self.group = database, Sessions(other), id, group
        self.run: Run | None = None
        self.readers: dict[int, Reader] = {}
        self.gone: list[Reader] = []
        self.deltas: dict[tuple[int, int], str] = {}  # place -> subject, for all that was emitted
        self.in_flight: set[tuple[int, int]] = set()
        self.count = 0
        self.data: dict[int, bytes] = {}
        self.head = 0

    def text(self, place: tuple[int, int]) -> str:
        return f"text {place}"

    async def begun(self) -> Run:
        if self.run is None:
            row = await self.database.read(executions.get(ANN, self.id))
            assert row is not None
            if row.state == "idle":
                await self.admission.admit(ANN, self.id, HELLO)
            claimed = await self.database.write(ownership.claim(self.id, WORKER))
            assert claimed is not None
            self.run, self.count = Run(claimed, self.database, self.feed, EmbeddedDispatch(self.database)), 0
            self.feed.begin(self.id, claimed.epoch, claimed.head)
            self.in_flight.clear()
        return self.run

    # --- what the run does

    async def token(self, subject: int) -> None:
        run = await self.begun()
        self.count += 1
        place = (run.epoch, self.count)
        self.deltas[place] = f"m{subject}"
        self.in_flight.add(place)
        run.emit(Token(f"m{subject}", 1, self.text(place)))

    async def note(self, _: int) -> None:
        await (await self.begun()).append(UsageCounted(tokens=Usage(1, 1)))

    async def settle(self, subject: int) -> None:
        await (await self.begun()).append(AssistantSaid(message_id=f"m{subject}", parts=()))
        self.in_flight = {place for place in self.in_flight if self.deltas[place] != f"m{subject}"}

    async def swapped(self, _: int) -> None:
        """Two commits whose tasks get to publish them in the wrong order."""
        run = await self.begun()
        written = [
            await self.database.write(log.append(ANN, self.id, run.epoch, run.run_id, [UsageCounted(tokens=Usage())]))
            for _ in range(2)
        ]
        for done in reversed(written):
            self.feed.publish(self.id, done.rows)

    async def end(self, _: int) -> None:
        run = await self.begun()
        await run.append(then=Then("idle"))
        self.stopped()

    async def hand_back(self, _: int) -> None:
        run = await self.begun()
        await self.database.write(ownership.hand_back(self.id, run.epoch, failed=False, backoff=0))
        self.stopped()

    def stopped(self) -> None:
        self.feed.end(self.id)
        self.run = None

    async def said(self, _: int) -> None:
        await self.admission.admit(ANN, self.id, NewMessage("and", mode="steer"))

    async def foreign(self, _: int) -> None:
        await self.other.admission.admit(ANN, self.id, NewMessage("from elsewhere"))

    # --- what the readers do

    async def join(self, n: int) -> None:
        if n not in self.readers:
            self.start(n, Reader(self, START))

    def start(self, n: int, reader: Reader) -> None:
        self.readers[n] = reader
        reader.scope = anyio.CancelScope()
        self.group.start_soon(reader.read)

    async def leave(self, n: int) -> None:
        if n in self.readers:
            reader = self.readers.pop(n)
            reader.scope.cancel()
            self.gone.append(reader)
            await self.look(n)

    async def rejoin(self, n: int) -> None:
        if n not in self.readers and self.gone:
            reader = self.gone.pop(n % len(self.gone))
            reader.flowing.set()
            self.start(n, reader)

    async def hold(self, n: int) -> None:
        if n in self.readers:
            self.readers[n].flowing.clear()

    async def resume(self, n: int) -> None:
        if n in self.readers:
            self.readers[n].flowing.set()

    async def look(self, _: int) -> None:
        """Let everybody who can go on do so."""
        for _ in range(3):
            await anyio.lowlevel.checkpoint()

    # --- the end

    async def finish(self) -> None:
        """A last entry, and everybody reads up to it."""
        for n in range(READERS):
            await self.resume(n)
        for reader in self.gone:
            self.start(100 + len(self.readers), reader)
        await self.look(0)
        await (await self.begun()).append(UsageCounted(tokens=Usage(9, 9)))
        rows = await self.database.read(log.read(ANN, self.id))
        self.head = rows[-1].seq
        self.data = {row.seq: entry_frame(row).data for row in rows}
        with anyio.fail_after(GUARD):
            for reader in self.readers.values():
                reader.flowing.set()
                while reader.cursor.seq < self.head:
                    await anyio.lowlevel.checkpoint()
        for reader in self.readers.values():
            reader.scope.cancel()
        self.stopped()
        await self.feed.close()


async def told(database: Database, other: Database, script: list[Op]) -> Story:
    sessions = Sessions(database)
    id = (await sessions.admission.start(ANN, a_session())).id
    async with anyio.create_task_group() as group:
        story = Story(database, other, id, group)
        for name, n in script:
            await getattr(story, name)(n)
        await story.finish()
    return story


LENIENT = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.mark.behaviour("events:feed:exactly-once", "events:feed:resume-anywhere")
@LENIENT
@given(script=ops)
@example(script=[("token", 0), ("said", 0), ("join", 0), ("look", 0), ("leave", 0), ("rejoin", 0)])
@example(script=[("join", 0), ("look", 0), ("hold", 0), ("token", 0), ("foreign", 0), ("hand_back", 0), ("token", 1)])
async def test_each_reader_sees_each_entry_once_and_no_delta_twice(
    database: Database, other_database: Database, script: list[Op]
) -> None:
    story = await told(database, other_database, script)
    for reader in story.readers.values():
        reader.check()


@pytest.mark.behaviour("events:feed:slow-readers")
@LENIENT
@given(script=ops)
async def test_a_reader_too_slow_for_what_is_held_misses_no_entry_and_sees_nothing_twice(
    database: Database, other_database: Database, script: list[Op]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flux.store.channel.MAX_FRAMES", 4)
        story = await told(database, other_database, [("join", 0), ("look", 0), ("hold", 0), *script])
    for reader in story.readers.values():
        reader.check()


@pytest.mark.behaviour("events:feed:live-readers-see-all")
@LENIENT
@given(script=ops.map(lambda script: [op for op in script if op[0] not in ("foreign", "swapped")]))
@example(script=[("hold", 0), ("token", 0), ("look", 0), ("token", 0), ("settle", 0), ("resume", 0)])
async def test_a_reader_that_never_leaves_sees_every_delta(database: Database, script: list[Op]) -> None:
    script = [(name, n or 1) if name in ("leave", "rejoin") else (name, n) for name, n in script]
    story = await told(database, database, [("join", 0), ("look", 0), *script])
    story.readers[0].check()
    assert story.readers[0].missed() == []


@pytest.mark.behaviour("events:feed:late-joiner")
@LENIENT
@given(script=ops)
@example(
    script=[
        ("join", 1),
        ("look", 0),
        ("hold", 1),
        ("token", 0),
        ("look", 0),
        ("token", 0),
        ("hand_back", 0),
        ("token", 0),
    ]
)
async def test_a_late_reader_gets_what_is_in_flight_and_nothing_that_is_done(
    database: Database, other_database: Database, script: list[Op]
) -> None:
    sessions = Sessions(database)
    id = (await sessions.admission.start(ANN, a_session())).id
    async with anyio.create_task_group() as group:
        story = Story(database, other_database, id, group)
        for name, n in script:
            await getattr(story, name)(n)
        await story.begun()
        expected, before = set(story.in_flight), set(story.deltas)
        late = Reader(story, START)
        story.start(99, late)
        await story.look(0)
        await story.finish()
    late.check()
    got = {(frame.cursor.epoch, frame.cursor.n) for frame in late.seen if not frame.entry}
    assert got & before == expected


@pytest.mark.behaviour("events:feed:cursor")
@given(st.tuples(*[st.integers(0, 10**18 - 1)] * 3))
def test_a_cursor_comes_back_from_its_text(places: tuple[int, int, int]) -> None:
    assert Cursor.parse(str(Cursor(*places))) == places
    assert Cursor.parse(str(places[0])) == (places[0], 0, 0)


@pytest.mark.behaviour("events:feed:cursor")
@given(st.one_of(st.text(), st.lists(st.integers(-5, 10**20).map(str)).map(".".join)))
def test_text_that_is_no_cursor_is_invalid_input(text: str) -> None:
    try:
        cursor = Cursor.parse(text)
    except InvalidInput:
        return
    assert all(0 <= place < 10**18 for place in cursor)
