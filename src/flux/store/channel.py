"""The recent frames of one execution, and how far each of its readers is.

A channel is bounded: beyond MAX_FRAMES or MAX_BYTES it lets go of the text of entries, which is in the
log, and then of its oldest frames. A reader that has not seen them goes on behind them: it reads the
entries from the log, and the deltas are lost to it.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import msgspec

from flux import redaction
from flux.errors import InvalidInput
from flux.events import decode, encode
from flux.store.database import Row, Scope
from flux.store.deltas import Piece, Pulled, settled_in
from flux.store.log import LogRow

MAX_FRAMES = 8_000
"""Frames that a channel holds at most."""

MAX_BYTES = 8_000_000
"""Bytes of JSON that a channel holds at most."""

_LEAST_WORTH = 64


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
    """One event as readers get it; `data` is its JSON. `entry`: durable, else a delta of `subject`.

    In a channel, an entry without data is one to be read from the log.
    """

    cursor: Cursor
    type: str
    data: bytes
    entry: bool
    subject: str = ""


def entry_frame(row: LogRow, n: int = 0) -> Frame:
    """The frame of an entry: its stored JSON with its place in front."""
    return entry_of(n, row.seq, row.type, row.run, row.epoch, row.at, row.body)


def entry_of(n: int, seq: int, type: str, run: str | None, epoch: int, at: float, body: str) -> Frame:
    """The same, of the columns of a row."""
    quoted = "null" if run is None else f'"{run}"'
    data = f'{{"seq":{seq},"epoch":{epoch},"run_id":{quoted},"at":{at:.3f},{body[1:]}'.encode()
    if redaction.active() and redaction.holds(data):  # it was kept before this process knew the secret
        cleaned = encode(redaction.struct(decode(body))).decode()
        data = f'{{"seq":{seq},"epoch":{epoch},"run_id":{quoted},"at":{at:.3f},{cleaned[1:]}'.encode()
    # Opening a long session makes thousands of these; this is twice as fast as calling the classes.
    return _made(Frame, (_made(Cursor, (seq, epoch, n)), type, data, True, ""))


_made = tuple.__new__
_pieces = msgspec.json.Decoder(list[msgspec.Raw])


class Reader:
    """How far one reader is: its index among the frames ever held, last entry, last delta."""

    def __init__(self, index: int, born: int, after: Cursor) -> None:
        self.index = index
        self.place = after
        self.born = born  # the index of the first frame that is newer than the reader
        self.seq = after.seq
        self.delta = (after.epoch, after.n)
        self.behind = True  # the log may hold entries that the channel does not

    def within(self, head: int, epoch: int) -> None:
        """Who comes from a place that the log has not reached begins at its head."""
        if self.seq > head or self.delta[0] > epoch:
            self.seq, self.delta = min(self.seq, head), (0, 0)


class Channel:
    """The recent frames of one execution. `start` counts those dropped from the front."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.start = 0
        self.size = 0
        self.head = 0
        self.known = False  # whether `head` is a place in the log, from which others' work is pulled
        self.gone = False  # whether the execution was deleted
        self.epoch = 0
        self.n = 0
        self.runs = 0
        self.scope: Scope | None = None  # of one who reads
        self.readers: set[Reader] = set()
        self._unsettled: dict[str, int] = {}  # the number of the first delta of each subject in flight
        self._settled: dict[str, int] = {}  # the entry that replaced the deltas of a subject
        self._worth = _LEAST_WORTH
        self._waiting: set[asyncio.Future[None]] = set()

    @property
    def end(self) -> int:
        """The index of the next frame."""
        return self.start + len(self.frames)

    @property
    def pulled(self) -> bool:
        """Whether nothing runs in this process that would fill it."""
        return self.runs <= 0

    @property
    def floor(self) -> int:
        """The entry behind which all that are known are held."""
        return next((frame.cursor.seq - 1 for frame in self.frames if frame.entry), self.head)

    def join(self, scope: Scope, after: Cursor) -> Reader:
        """A new reader; it sees what comes, and of what is held the deltas in flight."""
        self.scope = scope
        reader = Reader(self.start, self.end, after)
        self.readers.add(reader)
        return reader

    def begin(self, epoch: int, head: int) -> None:
        """A run begins in this process."""
        self.runs += 1
        self.known = True
        self._turn(epoch)
        self.trim()
        if head > self.head:
            self.head = head
            self.look_again()

    def _turn(self, epoch: int) -> None:
        """Another epoch: what earlier ones streamed stays with who saw it."""
        self._unsettled.clear()
        self.epoch, self.n = epoch, 0

    def absorb(self, pulled: Pulled | None) -> None:
        """Hold what another process wrote, in the order in which it came; None: the execution was deleted."""
        if not self.pulled:
            return  # a run has begun here meanwhile
        if pulled is None:
            self.gone = True
            self.wake()
            return
        if not self.known:
            self.known, self.head = True, pulled.place
        for item in pulled.items:
            if isinstance(item, Piece):
                self._hold(item)
            elif item.seq > self.head:
                self.enter(item)
                self.settle(settled_in(item), item.seq)
        if pulled.epoch > self.epoch:
            self._turn(pulled.epoch)
        self.trim()

    def _hold(self, piece: Piece) -> None:
        if piece.epoch > self.epoch:
            self._turn(piece.epoch)
        for n, data in enumerate(_pieces.decode(piece.frames), piece.n):
            if n > self.n:
                self.n = n
                # Its writer may not have known all entries that are held here, and shown, by now.
                cursor = Cursor(self.head, piece.epoch, n)
                self.put(Frame(cursor, piece.type, bytes(data), False, piece.subject))

    def enter(self, row: LogRow) -> None:
        """Hold an entry."""
        self.head = max(self.head, row.seq)
        self.put(entry_frame(row, self.n if row.epoch == self.epoch else 0))

    def put(self, frame: Frame) -> None:
        """Hold a frame, and tell who waits."""
        if not frame.entry:
            self._unsettled.setdefault(frame.subject, frame.cursor.n)
        self.frames.append(frame)
        self.size += len(frame.data)
        if len(self.frames) > MAX_FRAMES or self.size > MAX_BYTES:
            self._make_room()
        self.wake()

    def look_again(self) -> None:
        """Somebody else may have written to the log."""
        for reader in self.readers:
            reader.behind = True
        self.wake()

    def wake(self) -> None:
        """Let waiting readers look."""
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
        self._waiting.clear()

    async def news(self, reader: Reader) -> None:
        """Wait for frames, or for a reason to read the log."""
        if reader.index < self.end:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await future
        finally:
            self._waiting.discard(future)

    def take(self, reader: Reader) -> tuple[list[Frame], bool]:
        """What a reader has not seen yet, up to the first gap in the entries; whether there is a gap."""
        batch: list[Frame] = []
        reader.index = max(reader.index, self.start)
        for frame in self.frames[reader.index - self.start :]:
            if frame.cursor.seq > reader.seq + frame.entry:
                return batch, True
            if frame.entry:
                if frame.cursor.seq == reader.seq + 1:
                    if not frame.data:
                        return batch, True
                    reader.seq += 1
                    batch.append(frame)
            elif self._is_news(frame, reader):
                reader.delta = (frame.cursor.epoch, frame.cursor.n)
                # A reader may have other entries behind it than there were when the delta was made.
                own = frame.cursor.seq == reader.seq
                batch.append(frame if own else frame._replace(cursor=Cursor(reader.seq, *reader.delta)))
            reader.index += 1
        return batch, False

    def reading(self, reader: Reader, rows: list[Row], new: bool) -> list[Frame]:
        """What a reader sees who has read these entries in the log.

        To who was here before, what is held comes first: the log may have entries whose pieces it has not seen yet.
        """
        batch: list[Frame] = []
        for row in rows:
            if not (new or self.lost(reader)):
                batch += self.take(reader)[0]
            if row[0] > reader.seq:
                reader.seq = row[0]
                epoch, n = reader.delta
                batch.append(entry_of(n if row[3] == epoch else 0, *row))
        return batch

    def lost(self, reader: Reader) -> bool:
        """Whether frames were dropped before the reader saw them."""
        return reader.index < self.start

    def _is_news(self, frame: Frame, reader: Reader) -> bool:
        """Whether a delta was not shown before, and is not replaced by an entry already shown."""
        if (frame.cursor.epoch, frame.cursor.n) <= reader.delta:
            return False
        replaced = max(self._settled.get(frame.subject, 0), frame.cursor.seq + 1)
        return self._in_flight(frame) or (reader.index >= reader.born and replaced > reader.seq)

    def _in_flight(self, frame: Frame) -> bool:
        """Whether this is a delta whose entry is still to come."""
        _, epoch, n = frame.cursor
        return not frame.entry and epoch == self.epoch and self._unsettled.get(frame.subject, n + 1) <= n

    def settle(self, subjects: tuple[str, ...], seq: int) -> None:
        """The entries of these deltas, `seq` or later, are durable: only those who were here still see the deltas."""
        for subject in subjects:
            self._unsettled.pop(subject, None)
            self._settled[subject] = seq

    def trim(self) -> None:
        """Drop what nobody needs any more, once there is so much of it that the look is worth it."""
        if self._passed() >= self._worth:
            self._drop_passed()

    def _passed(self) -> int:
        """How many frames every reader has behind it."""
        return max(min((reader.index for reader in self.readers), default=self.end) - self.start, 0)

    def _drop_passed(self) -> None:
        """Drop what every reader has passed, but for deltas that a new reader still needs."""
        passed = self.frames[: self._passed()]
        kept = [frame for frame in passed if self._in_flight(frame)]
        self.frames[: len(passed)] = kept
        self.start += len(passed) - len(kept)
        self.size -= _bytes(passed) - _bytes(kept)
        subjects = {frame.subject for frame in self.frames}
        self._settled = {subject: seq for subject, seq in self._settled.items() if subject in subjects}
        self._worth = 2 * len(kept) + _LEAST_WORTH

    def _make_room(self) -> None:
        """Let go of what nobody needs or what the log has, then of the oldest, until an eighth is free."""
        self._drop_passed()
        self.frames = [frame._replace(data=b"") if frame.entry else frame for frame in self.frames]
        drop, size = 0, _bytes(self.frames)
        while len(self.frames) - drop > MAX_FRAMES * 7 // 8 or size > MAX_BYTES * 7 // 8:
            size -= len(self.frames[drop].data)
            drop += 1
        del self.frames[:drop]
        self.start += drop
        self.size = size


def _bytes(frames: list[Frame]) -> int:
    return sum(len(frame.data) for frame in frames)
