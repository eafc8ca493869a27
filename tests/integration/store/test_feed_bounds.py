"""How much a feed holds: whatever is emitted and however slowly it is read."""

import contextlib
from collections.abc import AsyncGenerator
from unittest import mock

import anyio
import pytest
from hypothesis import given

from flux.engine.dispatching.dispatch import EmbeddedDispatch
from flux.engine.running.run import Run
from flux.events import AssistantSaid, Token, ToolOutput, UsageCounted
from flux.messages import TextPart, Usage
from flux.store import channel, log, ownership
from flux.store.channel import MAX_BYTES, MAX_FRAMES, Channel
from flux.store.database import Database
from flux.store.feed import Cursor, Feed, Frame
from tests.integration.states import ANN, HELLO, WORKER, Sessions
from tests.integration.store.test_feed import GUARD, LENIENT, Op, ops, told


async def running(database: Database) -> tuple[Run, Feed]:
    """A session whose run streams into a feed of its own."""
    here = Sessions(database)
    id = await here.idle()
    await here.admission.admit(ANN, id, HELLO)
    claimed = await database.write(ownership.claim(id, WORKER))
    assert claimed is not None
    feed = Feed(database)
    feed.begin(id, claimed.epoch, claimed.head)
    return Run(claimed, database, feed, EmbeddedDispatch(database)), feed


def held(feed: Feed, id: str) -> Channel:
    return feed._channels[id]


async def until(batches: AsyncGenerator[list[Frame], None], seq: int) -> list[Frame]:
    """What comes up to an entry."""
    seen: list[Frame] = []
    with anyio.fail_after(GUARD):
        while not (seen and seen[-1].cursor.seq >= seq):
            seen += await anext(batches)
    return seen


def entries(frames: list[Frame]) -> list[int]:
    return [frame.cursor.seq for frame in frames if frame.entry]


def deltas(frames: list[Frame]) -> list[int]:
    return [frame.cursor.n for frame in frames if not frame.entry]


@pytest.mark.behaviour("events:feed:bounded")
async def test_a_tool_that_never_stops_talking_leaves_no_more_than_the_bound(database: Database) -> None:
    run, feed = await running(database)
    for _ in range(200_000):
        run.emit(ToolOutput("call", "x"))
    kept = held(feed, run.id)
    assert MAX_FRAMES * 7 // 8 <= len(kept.frames) <= MAX_FRAMES
    async with contextlib.aclosing(feed.follow(ANN, run.id)) as batches:
        seen = [*await anext(batches), *await anext(batches)]
    assert entries(seen) == [1, 2]
    assert deltas(seen) == list(range(200_001 - len(kept.frames), 200_001))
    await feed.close()


@pytest.mark.behaviour("events:feed:bounded")
async def test_long_pieces_count_by_their_bytes(database: Database) -> None:
    run, feed = await running(database)
    for _ in range(100):
        run.emit(ToolOutput("call", "x" * 1_000_000))
    kept = held(feed, run.id)
    assert kept.size == sum(len(frame.data) for frame in kept.frames) <= MAX_BYTES
    assert len(kept.frames) == 6
    await feed.close()


@pytest.mark.behaviour("events:feed:bounded", "events:feed:stalled")
async def test_a_stalled_reader_holds_up_no_memory_and_misses_no_entry(database: Database) -> None:
    run, feed = await running(database)
    async with contextlib.aclosing(feed.follow(ANN, run.id)) as batches:
        await anext(batches)
        for index in range(20):
            for _ in range(1_000):
                run.emit(Token(f"m{index}", 1, "x"))
            await run.append(AssistantSaid(message_id=f"m{index}", parts=(TextPart("x" * 1_000_000),)))
            assert len(held(feed, run.id).frames) <= MAX_FRAMES
            assert held(feed, run.id).size <= MAX_BYTES
        seen = await until(batches, 22)
    assert entries(seen) == list(range(3, 23))
    assert all(frame.data for frame in seen)
    assert deltas(seen) == sorted(set(deltas(seen)))
    await feed.close()


@pytest.mark.behaviour("events:feed:stalled")
async def test_a_reader_that_lost_frames_goes_on_with_those_that_are_held(database: Database) -> None:
    run, feed = await running(database)
    async with contextlib.aclosing(feed.follow(ANN, run.id)) as batches:
        await anext(batches)
        for _ in range(3 * MAX_FRAMES):
            run.emit(Token("m", 1, "x"))
        kept = len(held(feed, run.id).frames)
        await run.append(AssistantSaid(message_id="m", parts=()))
        seen = await until(batches, 3)
    assert deltas(seen) == list(range(3 * MAX_FRAMES + 1 - kept, 3 * MAX_FRAMES + 1))
    assert entries(seen) == [3]
    await feed.close()


@pytest.mark.behaviour("events:feed:bounded")
@LENIENT
@given(script=ops)
async def test_entries_come_once_and_in_order_however_little_is_held(
    database: Database, other_database: Database, script: list[Op]
) -> None:
    with mock.patch.object(channel, "MAX_FRAMES", 4):
        story = await told(database, other_database, script)
    for reader in story.readers.values():
        reader.check()


@pytest.mark.behaviour("events:feed:bounded")
@LENIENT
@given(script=ops)
async def test_entries_come_once_and_in_order_when_none_fits(
    database: Database, other_database: Database, script: list[Op]
) -> None:
    with mock.patch.object(channel, "MAX_BYTES", 100):
        story = await told(database, other_database, script)
    for reader in story.readers.values():
        reader.check()


@pytest.mark.behaviour("events:feed:cheap-commits")
async def test_a_commit_does_not_look_at_all_that_is_in_flight(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, feed = await running(database)
    looks = 0
    in_flight = Channel._in_flight

    def counted(self: Channel, frame: Frame) -> bool:
        nonlocal looks
        looks += 1
        return in_flight(self, frame)

    for _ in range(5_000):
        run.emit(Token("long", 1, "x"))
    monkeypatch.setattr(Channel, "_in_flight", counted)
    for _ in range(200):
        run.emit(Token("short", 1, "x"))
        await run.append(AssistantSaid(message_id="short", parts=()))
    assert looks < 10_000
    await feed.close()


AHEAD = [Cursor(1_000), Cursor(1_000, 9, 9), Cursor(2, 9, 9)]


@pytest.mark.behaviour("events:feed:ahead")
@pytest.mark.parametrize("after", AHEAD, ids=str)
async def test_a_cursor_ahead_of_the_log_means_its_head(database: Database, after: Cursor) -> None:
    run, feed = await running(database)
    run.emit(Token("m", 1, "x"))
    async with contextlib.aclosing(feed.follow(ANN, run.id, after)) as batches:
        seen = await until(batches, 2)
        await run.append(UsageCounted(tokens=Usage(1, 1)))
        seen += await until(batches, 3)
    assert [frame.type for frame in seen] == ["token", "usage"]
    assert [frame.cursor.seq for frame in seen] == [2, 3]
    await feed.close()


@pytest.mark.behaviour("events:feed:ahead")
async def test_a_cursor_at_the_head_stays_where_it_is(database: Database) -> None:
    run, feed = await running(database)
    for _ in range(3):
        run.emit(Token("m", 1, "x"))
    head = (await database.read(log.read(ANN, run.id)))[-1].seq
    async with contextlib.aclosing(feed.follow(ANN, run.id, Cursor(head, run.epoch, 2))) as batches:
        assert [frame.cursor for frame in await anext(batches)] == [Cursor(head, run.epoch, 3)]
    await feed.close()
