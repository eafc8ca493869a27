"""What readers of an execution see: its entries, and the deltas of entries to come, each exactly once.

While somebody runs or reads an execution, a channel holds its recent frames in one list; each reader
has its own index into it, so none holds up another. Entries are the truth: where a reader finds a gap
(another process wrote, commits were published out of order, or it was so slow that the channel had to
drop frames), it reads the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import Any

from flux.errors import DatabaseLocked, DatabaseUnavailable
from flux.events import DeltaEvent, Reasoning, Token, encode, type_of
from flux.store import executions, log
from flux.store.channel import START, Channel, Cursor, Frame, Reader
from flux.store.database import Database, Scope, Steps
from flux.store.log import LogRow

__all__ = ["START", "Cursor", "Feed", "Frame", "entry_frame"]

POLL_SECONDS = 0.1
PAGE = 500


class Feed:
    """Publishes entries and deltas of executions to readers in this process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._channels: dict[str, Channel] = {}
        self._ids = 0
        self._readers = 0
        self._poller: asyncio.Task[None] | None = None
        #: Set while somebody reads.
        self.reading = asyncio.Event()
        #: Called when another process has written to the database.
        self.on_foreign_write: Callable[[], None] = _nothing

    def begin(self, id: str, epoch: int, head: int) -> None:
        """A run of this process begins in `epoch`; what earlier epochs streamed stays with who saw it."""
        channel = self._channels.setdefault(id, Channel())
        channel.begin(epoch, head)
        self._watch()

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
        """Batches of frames behind a cursor, for as long as the caller reads.

        A cursor ahead of the log (its log was replaced by an older backup) means the log's head. Who
        reads so slowly that the channel has to drop frames misses deltas, never an entry.
        """
        channel = self._channels.setdefault(id, Channel())
        reader = channel.join(after)
        self._readers += 1
        self.reading.set()
        self._watch()
        try:
            if after != START:
                await self._within_log(scope, id, reader)
            gap, new = False, True
            while True:
                known, before = gap, reader.seq
                if reader.behind:
                    reader.behind = False
                    # To who was here, what is held comes first: pieces of entries that the log may have by now.
                    held, _ = ([], True) if new or channel.lost(reader) else channel.take(reader)
                    new = False
                    if held:
                        yield held
                    async for batch in self._missing(scope, id, reader):
                        yield batch
                lost = channel.lost(reader)
                batch, gap = channel.take(reader)
                if gap and known and not lost and reader.seq == before:
                    return  # deleted: what the channel speaks of is not in the log any more
                reader.behind |= gap or lost
                if batch:
                    yield batch
                elif not reader.behind:
                    await channel.news(reader)
        finally:
            channel.readers.discard(reader)
            self._readers -= 1
            if not self._readers:
                self.reading.clear()
            self._drop_unused(id, channel)

    async def _within_log(self, scope: Scope, id: str, reader: Reader) -> None:
        row = await self._database.read(executions.get(scope, id))
        if row is not None and (reader.seq > row.head or reader.delta[0] > row.epoch):
            reader.seq, reader.delta = min(reader.seq, row.head), (0, 0)

    async def _missing(self, scope: Scope, id: str, reader: Reader) -> AsyncGenerator[list[Frame], None]:
        while True:
            rows = await self._database.read(_rows(scope, id, reader.seq))
            if rows:
                reader.seq = rows[-1][0]
                epoch, n = reader.delta
                yield [_entry(n if row[3] == epoch else 0, *row) for row in rows]
            if len(rows) < PAGE:
                return

    def _drop_unused(self, id: str, channel: Channel) -> None:
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
    return _entry(n, row.seq, row.type, row.run, row.epoch, row.at, row.body)


def _entry(n: int, seq: int, type: str, run: str | None, epoch: int, at: float, body: str) -> Frame:
    quoted = "null" if run is None else f'"{run}"'
    data = f'{{"seq":{seq},"epoch":{epoch},"run_id":{quoted},"at":{at:.3f},{body[1:]}'.encode()
    # Opening a long session makes thousands of these; this is twice as fast as calling the classes.
    return _made(Frame, (_made(Cursor, (seq, epoch, n)), type, data, True, ""))


_made = tuple.__new__


def _rows(scope: Scope, id: str, after: int) -> Steps[list[tuple[Any, ...]]]:
    """A page of the log as it is stored."""
    return (yield log.READ, {"id": id, "tenant": scope.tenant, "after": after, "limit": PAGE})


def _nothing() -> None:
    pass


def _numbered(body: bytes, n: int) -> bytes:
    return b'{"n":%d,' % n + body[1:]
