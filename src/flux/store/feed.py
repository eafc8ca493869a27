"""What readers of an execution see: its entries, and the deltas of entries to come, each exactly once.

While somebody runs or reads an execution, a channel holds its recent frames in one list; each reader
has its own index into it, so none holds up another. Entries are the truth: where a reader finds a gap
(another process wrote, commits were published out of order, or it was so slow that the channel had to
drop frames), it reads the log.

A channel is filled by the run in this process. Where processes share a database and none runs here, it
is filled with what is pulled from there when a bell rings: entries and deltas of one moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from flux.errors import DatabaseLocked, DatabaseUnavailable
from flux.events import DeltaEvent, encode, type_of
from flux.store import deltas, executions, log
from flux.store.channel import START, Channel, Cursor, Frame, Reader, entry_frame
from flux.store.database import Database, Scope, Steps
from flux.store.log import NO_LIMIT, LogRow
from flux.store.pulls import Pulls
from flux.store.stream import Stream

__all__ = ["START", "Cursor", "Feed", "Frame", "entry_frame"]

PAGE = 500
#: Seconds that a process goes on listening when nobody reads or runs anything any more.
LINGER_SECONDS = 60.0
#: Seconds between two requests to stop listening.
STOP_SECONDS = 0.5
#: Seconds after which the deltas of dead writers are removed.
LEFT_SECONDS = 30.0
#: New executions that are remembered until somebody reads them.
FRESH = 1000


class Feed:
    """Publishes entries and deltas of executions to readers in this process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._channels: dict[str, Channel] = {}
        self._readers = 0
        self._listener: asyncio.Task[None] | None = None
        self._lingering: asyncio.TimerHandle | None = None
        self._stream = Stream(database) if database.shared else None
        self._pulls = Pulls(database)
        #: Executions that are made here, with their first entries once they are; nobody else has written to them.
        self._fresh: dict[str, tuple[LogRow, ...]] = {}
        #: Set while somebody reads.
        self.reading = asyncio.Event()
        #: Called when another process has written: with the execution, or None where that is not known.
        self.on_foreign_write: Callable[[str | None], None] = _nothing
        #: Called when something was written here that webhooks are to be told.
        self.on_hooked: Callable[[], None] = lambda: None

    def expect(self, id: str) -> None:
        """An execution is about to be made: whoever reads it first need not look for what others write before that."""
        if self._stream is not None:
            self._fresh[id] = ()
            if len(self._fresh) > FRESH:
                del self._fresh[next(iter(self._fresh))]

    async def catch_up(self, id: str) -> None:
        """Before a run begins here: take up what other processes have streamed to who reads it here."""
        channel = self._channels.get(id)
        if channel is not None and channel.readers and self._pulled(channel):
            with suppress(DatabaseLocked, DatabaseUnavailable):
                await self._pulls.now(id, channel, channel.head)

    def begin(self, id: str, epoch: int, head: int) -> None:
        """A run of this process begins in `epoch`; what earlier epochs streamed stays with who saw it."""
        self._fresh.pop(id, None)
        channel = self._channels.setdefault(id, Channel())
        channel.begin(epoch, head)
        self._listen()

    def end(self, id: str) -> None:
        """The run is over in this process."""
        channel = self._channels.get(id)
        if channel is not None:
            channel.runs -= 1
            if self._stream is not None:
                self._stream.over(id, channel.epoch)
                if channel.readers and channel.pulled:
                    self._pulls.soon(id, channel)
            self._drop_unused(id, channel)

    def emit(self, id: str, delta: DeltaEvent) -> None:
        """Show a delta to the readers."""
        channel = self._channels.get(id)
        if channel is None:
            return
        channel.n += 1
        cursor = Cursor(channel.head, channel.epoch, channel.n)
        frame = Frame(cursor, type_of(delta), _numbered(encode(delta), channel.n), False, deltas.subject_of(delta))
        channel.put(frame)
        if self._stream is not None:
            self._stream.show(id, frame)

    async def flushed(self, id: str) -> None:
        """Return when what was emitted is there for other processes: an entry must not come before its deltas."""
        if self._stream is not None:
            await self._stream.flushed(id)

    def publish(self, id: str, rows: tuple[LogRow, ...], settled: tuple[str, ...] = ()) -> None:
        """Show committed entries; `settled` names the messages and calls whose deltas they replace."""
        channel = self._channels.get(id)
        if self._fresh.pop(id, None) is not None and rows and rows[0].seq == 1:
            self._fresh[id] = rows
        if self._stream is not None and rows and rows[0].seq > 1:  # nobody can know of a new one yet
            self._stream.ring(id)
            self._stream.settle(id, rows[0].epoch, settled)
        if channel is None or not rows:
            return
        if self._pulled(channel) and not (channel.known and rows[0].seq == channel.head + 1):
            self._pulls.soon(id, channel)
            return
        for row in rows:
            channel.enter(row)
        channel.settle(settled, rows[0].seq)
        channel.trim()

    async def follow(self, scope: Scope, id: str, after: Cursor = START) -> AsyncGenerator[list[Frame], None]:
        """Batches of frames behind a cursor, for as long as the caller reads.

        A cursor ahead of the log (its log was replaced by an older backup) means the log's head. Who
        reads so slowly that the channel has to drop frames misses deltas, never an entry.
        """
        with self._joined(scope, id, after) as (channel, reader):
            if self._pulled(channel):
                await self._look_first(id, channel, reader)
            elif after != START:
                await self._within_log(scope, id, reader)
            gap, new = False, True
            while not channel.gone:
                known, before = gap, reader.seq
                if reader.behind:
                    reader.behind = False
                    async for batch in self._missing(scope, id, channel, reader, self._upto(channel, gap), new):
                        yield batch
                    new = False
                lost = channel.lost(reader)
                batch, gap = channel.take(reader)
                if gap and known and not lost and reader.seq == before:
                    return  # deleted: what the channel speaks of is not in the log any more
                reader.behind |= gap or lost
                if batch:
                    yield batch
                elif not reader.behind:
                    await channel.news(reader)

    @contextmanager
    def _joined(self, scope: Scope, id: str, after: Cursor) -> Iterator[tuple[Channel, Reader]]:
        channel = self._channels.setdefault(id, Channel())
        reader = channel.join(scope, after)
        self._readers += 1
        self.reading.set()
        self._listen()
        try:
            yield channel, reader
        finally:
            channel.readers.discard(reader)
            self._readers -= 1
            if not self._readers:
                self.reading.clear()
            self._drop_unused(id, channel)

    def _pulled(self, channel: Channel) -> bool:
        """Whether a channel is filled with what other processes write."""
        return self._stream is not None and channel.pulled

    async def _look_first(self, id: str, channel: Channel, reader: Reader) -> None:
        """Fill the channel up to now. Who comes back to a place is shown what was streamed since, done or not."""
        fresh = not channel.known
        rows = self._fresh.pop(id, ())
        if rows and fresh and reader.place == START:
            channel.known, reader.born = True, channel.end
            for row in rows:
                channel.enter(row)
            return
        await self._pulls.now(id, channel, reader.seq)
        if self._pulled(channel):
            if reader.place != START:
                reader.within(channel.head, channel.epoch)
                reader.born = channel.start
            elif fresh:
                reader.born = channel.end

    def _upto(self, channel: Channel, gap: bool) -> int:
        """How far a reader reads the log: what is pulled into a channel comes from there."""
        if not self._pulled(channel):
            return NO_LIMIT
        return channel.head if gap else channel.floor

    async def _within_log(self, scope: Scope, id: str, reader: Reader) -> None:
        row = await self._database.single(executions.get(scope, id))
        if row is not None:
            reader.within(row.head, row.epoch)

    async def _missing(
        self, scope: Scope, id: str, channel: Channel, reader: Reader, upto: int, new: bool
    ) -> AsyncGenerator[list[Frame], None]:
        while reader.seq < upto:
            limit = min(PAGE, upto - reader.seq)
            rows = await self._database.single(_rows(scope, id, reader.seq, limit))
            if batch := channel.reading(reader, rows, new):
                yield batch
            if len(rows) < limit:
                return

    def _drop_unused(self, id: str, channel: Channel) -> None:
        if channel.runs <= 0 and not channel.readers and self._channels.get(id) is channel:
            del self._channels[id]
        if not self._channels and self._listener is not None:
            if self._stream is None:
                self._stop_listening()
            elif self._lingering is None:
                loop = asyncio.get_running_loop()
                self._lingering = loop.call_later(LINGER_SECONDS, self._stop_listening)

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.cancel()
            self._listener = None

    def _listen(self) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        if self._listener is None:
            self._listener = asyncio.create_task(self._database.listen(self._hear))

    def _hear(self, bell: str | None) -> None:
        """Another process has written: look at what its bell names, or at everything."""
        if bell is None:
            self._fresh.clear()
            for id in list(self._channels):
                self._look(id)
            self.on_foreign_write(None)
            return
        who, *ids = bell.split("\n")
        if self._stream is not None and who != self._stream.name:
            for id in ids:
                self._fresh.pop(id, None)
                self._look(id)
                self.on_foreign_write(id)

    def _look(self, id: str) -> None:
        channel = self._channels.get(id)
        if channel is None:
            return
        if not self._pulled(channel):
            channel.look_again()
        elif channel.readers:
            self._pulls.soon(id, channel)

    async def tidy(self) -> None:
        """Remove deltas whose writers are gone; takes its time."""
        if self._stream is not None:
            await self._database.write(deltas.tidy(LEFT_SECONDS))
        await asyncio.sleep(LEFT_SECONDS)

    async def close(self) -> None:
        """Stop listening, and leave nothing behind."""
        if self._stream is not None:
            await self._stream.close()
        await self._pulls.close()
        if self._lingering is not None:
            self._lingering.cancel()
        while self._listener is not None and not self._listener.done():
            self._listener.cancel()  # until it is heard: on Python 3.11 wait_for may lose a cancellation
            await asyncio.wait((self._listener,), timeout=STOP_SECONDS)
        self._listener = None


def _rows(scope: Scope, id: str, after: int, limit: int) -> Steps[list[tuple[Any, ...]]]:
    """A page of the log as it is stored."""
    return (yield log.READ, {"id": id, "tenant": scope.tenant, "after": after, "limit": limit})


def _nothing(id: str | None) -> None:
    pass


def _numbered(body: bytes, n: int) -> bytes:
    return b'{"n":%d,' % n + body[1:]
