"""What readers of an execution see: its entries, and the deltas of entries to come, each exactly once.

While somebody runs or reads an execution, a channel holds its recent frames in one list; each reader
has its own index into it, so none can lose a frame or hold up another. Entries are the truth: where a
reader finds a gap (another process wrote, or commits were published out of order), it reads the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import NamedTuple

from flux.errors import DatabaseLocked, DatabaseUnavailable, InvalidInput
from flux.events import DeltaEvent, Reasoning, Token, encode, type_of
from flux.store import log
from flux.store.database import Database, Scope
from flux.store.log import LogRow

POLL_SECONDS = 0.1
PAGE = 500


class Cursor(NamedTuple):
    """A place in what a reader sees: last entry, epoch, and the number of the last delta of that epoch."""

    seq: int = 0
    epoch: int = 0
    n: int = 0

    def __str__(self) -> str:
        return f"{self.seq}.{self.epoch}.{self.n}"

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """The cursor of an SSE id; a bare SEQ is accepted.

        :raises InvalidInput: it is not a cursor
        """
        parts = text.split(".")
        if 1 <= len(parts) <= 3 and all(part.isascii() and part.isdigit() and len(part) < 19 for part in parts):
            return cls(*map(int, parts))
        raise InvalidInput(f"{text[:40]!r} is not a cursor; use the id of an event (SEQ.EPOCH.N) or a seq")


START = Cursor()


class Frame(NamedTuple):
    """One event as readers get it; `data` is its JSON. `entry`: durable, else a delta of `subject`."""

    cursor: Cursor
    type: str
    data: bytes
    entry: bool
    subject: str = ""


class _Reader:
    """How far one reader is: its index among the frames ever held, last entry, last delta."""

    def __init__(self, index: int, after: Cursor) -> None:
        self.index = index
        self.seq = after.seq
        self.delta = (after.epoch, after.n)
        self.behind = True  # the log may hold entries that the channel does not

    def stamp(self, frame: Frame) -> Frame:
        """An entry from the log, with what this reader knows of the deltas in its cursor."""
        epoch, n = self.delta
        return frame._replace(cursor=frame.cursor._replace(n=n)) if frame.cursor.epoch == epoch else frame

    def wants(self, frame: Frame) -> bool:
        """Whether a delta is news: not shown before, and not replaced by an entry already shown."""
        new = (frame.cursor.epoch, frame.cursor.n) > self.delta
        return new and (bool(frame.subject) or frame.cursor.seq >= self.seq)


class _Channel:
    """The recent frames of one execution. `start` counts those dropped from the front."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.start = 0
        self.fresh = 0  # the index from which a new reader needs frames
        self.head = 0
        self.epoch = 0
        self.n = 0
        self.runs = 0
        self.readers: set[_Reader] = set()
        self.waiting: set[asyncio.Future[None]] = set()

    def put(self, frame: Frame) -> None:
        self.frames.append(frame)
        self.wake()

    def wake(self) -> None:
        for future in self.waiting:
            if not future.done():
                future.set_result(None)
        self.waiting.clear()

    def look_again(self) -> None:
        """Somebody else may have written to the log."""
        for reader in self.readers:
            reader.behind = True
        self.wake()

    def has_more(self, reader: _Reader) -> bool:
        return reader.index < self.start + len(self.frames)

    def take(self, reader: _Reader) -> tuple[list[Frame], bool]:
        """What a reader has not seen yet, up to the first gap in the entries; whether there is a gap."""
        batch: list[Frame] = []
        for frame in self.frames[reader.index - self.start :]:
            if frame.cursor.seq > reader.seq + frame.entry:
                return batch, True
            if frame.entry:
                if frame.cursor.seq == reader.seq + 1:
                    reader.seq += 1
                    batch.append(frame)
            elif reader.wants(frame):
                reader.delta = (frame.cursor.epoch, frame.cursor.n)
                # A reader may have other entries behind it than there were when the delta was made.
                own = frame.cursor.seq == reader.seq
                batch.append(frame if own else frame._replace(cursor=Cursor(reader.seq, *reader.delta)))
            reader.index += 1
        return batch, False

    def settle(self, subjects: tuple[str, ...]) -> None:
        """The entries of these deltas are durable: from now on only those who were here see the deltas."""
        if subjects:
            self.frames = [f._replace(subject="") if f.subject in subjects else f for f in self.frames]

    def trim(self) -> None:
        """Drop what every reader has passed, but for deltas that a new reader still needs."""
        end = self.start + len(self.frames)
        passed = min((reader.index for reader in self.readers), default=end) - self.start
        kept = [frame for frame in self.frames[:passed] if frame.subject]
        self.frames[:passed] = kept
        self.start += passed - len(kept)


class Feed:
    """Publishes entries and deltas of executions to readers in this process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._channels: dict[str, _Channel] = {}
        self._ids = 0
        self._readers = 0
        self._poller: asyncio.Task[None] | None = None
        #: Set while somebody reads.
        self.reading = asyncio.Event()
        #: Called when another process has written to the database.
        self.on_foreign_write: Callable[[], None] = _nothing

    def begin(self, id: str, epoch: int, head: int) -> None:
        """A run of this process begins in `epoch`; what earlier epochs streamed stays with who saw it."""
        channel = self._channels.setdefault(id, _Channel())
        channel.runs += 1
        self._watch()
        channel.settle(tuple({frame.subject for frame in channel.frames}))
        channel.trim()
        channel.fresh = channel.start + len(channel.frames)
        channel.epoch, channel.n, channel.head = epoch, 0, max(head, channel.head)

    def end(self, id: str) -> None:
        """The run is over in this process."""
        channel = self._channels.get(id)
        if channel is not None:
            channel.runs -= 1
            self._drop_unused(id, channel)

    def emit(self, id: str, delta: DeltaEvent) -> None:
        """Show a delta to the readers."""
        channel = self._channels.get(id)
        if channel is None:
            return
        channel.n += 1
        subject = delta.message_id if isinstance(delta, (Token, Reasoning)) else delta.call
        cursor = Cursor(channel.head, channel.epoch, channel.n)
        channel.put(Frame(cursor, type_of(delta), _numbered(encode(delta), channel.n), False, subject))

    def publish(self, id: str, rows: tuple[LogRow, ...], settled: tuple[str, ...] = ()) -> None:
        """Show committed entries; `settled` names the messages and calls whose deltas they replace."""
        channel = self._channels.get(id)
        if channel is None:
            return
        for row in rows:
            channel.head = max(channel.head, row.seq)
            channel.put(entry_frame(row, channel.n if row.epoch == channel.epoch else 0))
        channel.settle(settled)
        channel.trim()

    async def follow(self, scope: Scope, id: str, after: Cursor = START) -> AsyncGenerator[list[Frame], None]:
        """Batches of frames behind a cursor, for as long as the caller reads."""
        channel = self._channels.setdefault(id, _Channel())
        reader = _Reader(max(channel.start, channel.fresh), after)
        channel.readers.add(reader)
        self._readers += 1
        self.reading.set()
        self._watch()
        try:
            while True:
                looked, before = reader.behind, reader.seq
                if looked:
                    reader.behind = False
                    async for batch in self._missing(scope, id, reader):
                        yield batch
                batch, gap = channel.take(reader)
                if gap and looked and reader.seq == before:
                    return  # deleted: what the channel speaks of is not in the log any more
                reader.behind |= gap
                if batch:
                    yield batch
                elif not reader.behind:
                    await _news(channel, reader)
        finally:
            channel.readers.discard(reader)
            self._readers -= 1
            if not self._readers:
                self.reading.clear()
            self._drop_unused(id, channel)

    async def _missing(self, scope: Scope, id: str, reader: _Reader) -> AsyncGenerator[list[Frame], None]:
        while True:
            rows = await self._database.read(log.read(scope, id, reader.seq, PAGE))
            if rows:
                reader.seq = rows[-1].seq
                yield [reader.stamp(entry_frame(row)) for row in rows]
            if len(rows) < PAGE:
                return

    def _drop_unused(self, id: str, channel: _Channel) -> None:
        if channel.runs <= 0 and not channel.readers and self._channels.get(id) is channel:
            del self._channels[id]
        if not self._channels and self._poller is not None:
            self._poller.cancel()
            self._poller = None

    def _watch(self) -> None:
        if self._poller is None:
            self._poller = asyncio.create_task(self._poll())

    async def _poll(self) -> None:
        """Notice what other processes write, while somebody reads."""
        seen: int | None = None
        while True:
            now = seen
            with suppress(DatabaseLocked, DatabaseUnavailable):
                now = await self._database.version()
            foreign, seen = now != seen, now  # at first too: something may have come before this look
            if foreign:
                for channel in self._channels.values():
                    channel.look_again()
                self.on_foreign_write()
            await asyncio.sleep(POLL_SECONDS)

    async def close(self) -> None:
        """Stop watching."""
        if self._poller is not None:
            self._poller.cancel()
            with suppress(asyncio.CancelledError):
                await self._poller
            self._poller = None


def entry_frame(row: LogRow, n: int = 0) -> Frame:
    """The frame of an entry: its stored JSON with its place in front."""
    place = f'{{"seq":{row.seq},"epoch":{row.epoch},"run_id":{_quoted(row.run)},"at":{row.at:.3f},'
    return Frame(Cursor(row.seq, row.epoch, n), row.type, place.encode() + row.body[1:].encode(), True)


async def _news(channel: _Channel, reader: _Reader) -> None:
    """Wait for frames, or for a reason to read the log."""
    if channel.has_more(reader):
        return
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    channel.waiting.add(future)
    try:
        await future
    finally:
        channel.waiting.discard(future)


def _nothing() -> None:
    pass


def _numbered(body: bytes, n: int) -> bytes:
    return b'{"n":%d,' % n + body[1:]


def _quoted(text: str | None) -> str:
    return "null" if text is None else f'"{text}"'
