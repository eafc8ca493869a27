"""The one writer of this process's deltas, and its bells: in order, and many in one statement."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Iterable, Sequence
from contextlib import suppress

from flux.errors import DatabaseLocked, DatabaseUnavailable, InvalidInput
from flux.store import deltas
from flux.store.channel import MAX_BYTES, MAX_FRAMES, Frame
from flux.store.database import Database, Steps
from flux.store.deltas import Piece, Settled

logger = logging.getLogger(__name__)

#: Seconds that deltas of an execution are gathered, behind the first ones, which go at once.
GATHER_SECONDS = 0.025
#: Seconds that deltas stay for readers who are slow, or on their way from one server to another.
KEEP_SECONDS = 5.0
#: Seconds before what the database did not take is offered again.
AGAIN_SECONDS = 0.5
#: Seconds that the database gets to take the last of it.
CLOSE_SECONDS = 1.0
#: Executions that one bell names; it holds 8,000 bytes.
NAMES = 100


class Stream:
    """Shows other processes what this one streams and commits."""

    def __init__(self, database: Database) -> None:
        self._database = database
        #: Under this name it rings: who rang need not listen.
        self.name = uuid.uuid4().hex[:12]
        self._frames: dict[str, list[Frame]] = {}
        self._bells: dict[str, None] = {}
        self._in_hand: frozenset[str] = frozenset()
        self._last: dict[str, float] = {}  # when deltas of an execution were last written
        self._shown: dict[tuple[str, int], set[str]] = {}  # the subjects of what an epoch has written
        self._old: list[tuple[float, Settled]] = []  # what is to be removed, and when
        self._hurry = asyncio.Event()
        self._ended: asyncio.Future[bool] | None = None
        self._writing: asyncio.Task[None] | None = None
        self._ringing: asyncio.Task[None] | None = None
        self._forgetting: asyncio.Task[None] | None = None

    def show(self, id: str, frame: Frame) -> None:
        """Write a delta soon."""
        frames = self._frames.setdefault(id, [])
        frames.append(frame)
        if len(frames) == 1:
            self._start()
            if self._last.get(id, 0.0) + GATHER_SECONDS <= time.monotonic():
                self._hurry.set()
        self._shown.setdefault((id, frame.cursor.epoch), set()).add(frame.subject)

    def ring(self, id: str) -> None:
        """Tell that something was committed."""
        self._bells[id] = None
        if self._ringing is None or self._ringing.done():
            self._ringing = asyncio.create_task(self._ring())

    async def flushed(self, id: str) -> None:
        """Return when the deltas of an execution are written, or the database is away."""
        while id in self._frames or id in self._in_hand:
            self._hurry.set()
            self._start()
            if self._ended is None:
                self._ended = asyncio.get_running_loop().create_future()
            if not await asyncio.shield(self._ended):
                return

    def settle(self, id: str, epoch: int, subjects: Sequence[str]) -> None:
        """Entries have replaced these deltas: nobody new needs them."""
        shown = self._shown.get((id, epoch))
        if not shown or shown.isdisjoint(subjects):
            return
        self._forget(Settled(id, epoch, subject) for subject in shown.intersection(subjects))
        shown.difference_update(subjects)
        if left := [frame for frame in self._frames.pop(id, ()) if frame.subject not in subjects]:
            self._frames[id] = left

    def over(self, id: str, epoch: int) -> None:
        """A run is over, and with it what it streamed."""
        self._last.pop(id, None)
        if self._shown.pop((id, epoch), None):
            self._forget((Settled(id, epoch),))

    async def close(self) -> None:
        """Write the last of it, and remove what this process has written."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                for task in (self._writing, self._ringing):
                    if task is not None:
                        await asyncio.wait((task,))
                left = [one for _, one in self._old] + [Settled(*place) for place in self._shown]
                if left:
                    await self._try(deltas.forget(left))
        for task in (self._writing, self._ringing, self._forgetting):
            if task is not None:
                task.cancel()
                await asyncio.wait((task,))

    # --- writing

    def _start(self) -> None:
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())

    async def _write(self) -> None:
        """Write for as long as there is something to write."""
        try:
            while self._frames:
                await self._gather()
                went_well = await self._write_once()
                self._tell(went_well)
                if not went_well:
                    await asyncio.sleep(AGAIN_SECONDS)
        finally:
            self._tell(False)

    def _tell(self, went_well: bool) -> None:
        """Let who waits for the end of what is written go on."""
        if self._ended is not None:
            self._ended.set_result(went_well)
            self._ended = None

    async def _gather(self) -> None:
        """Wait until the oldest of what waits has waited long enough, or somebody is in a hurry."""
        due = min((self._last.get(id, 0.0) for id in self._frames), default=0.0) + GATHER_SECONDS
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, due - time.monotonic())):
                await self._hurry.wait()

    async def _write_once(self) -> bool:
        self._hurry.clear()
        frames, self._frames = self._frames, {}
        self._in_hand = frozenset(frames)
        self._last.update(dict.fromkeys(frames, time.monotonic()))
        pieces = [piece for id, ones in frames.items() for piece in _pieces(id, ones)]
        for id in frames:
            self._bells.pop(id, None)
        went_well = await self._try(deltas.post(pieces, self._rung(list(frames))))
        self._in_hand = frozenset()
        if not went_well:
            for id, later in self._frames.items():
                frames.setdefault(id, []).extend(later)
            self._frames = {id: _newest(ones) for id, ones in frames.items()}
        return went_well

    async def _ring(self) -> None:
        """Ring for what was committed; a bell that is not heard is made up for by a look."""
        while self._bells:
            bells, self._bells = self._bells, {}
            await self._try(deltas.post((), self._rung(list(bells))))

    def _rung(self, ids: Sequence[str]) -> list[str]:
        return ["\n".join((self.name, *ids[at : at + NAMES])) for at in range(0, len(ids), NAMES)]

    async def _try(self, steps: Steps[None]) -> bool:
        try:
            await self._database.single(steps)
        except (DatabaseLocked, DatabaseUnavailable) as error:
            logger.warning("other processes cannot be shown what happens here: %s", error)
            return False
        except InvalidInput as error:
            logger.warning("other processes are not shown some pieces: %s", error)
        return True

    # --- removing

    def _forget(self, settled: Iterable[Settled]) -> None:
        self._old += [(time.monotonic() + KEEP_SECONDS, one) for one in settled]
        if self._forgetting is None or self._forgetting.done():
            self._forgetting = asyncio.create_task(self._forget_old())

    async def _forget_old(self) -> None:
        while self._old:
            await asyncio.sleep(max(KEEP_SECONDS / 5, self._old[0][0] - time.monotonic()))
            now = time.monotonic()
            due = [one for at, one in self._old if at <= now]
            if not due:
                continue
            if await self._try(deltas.forget(due)):
                del self._old[: len(due)]


def _newest(frames: list[Frame]) -> list[Frame]:
    """As many of the last frames as a channel would hold."""
    size = 0
    for index in range(len(frames) - 1, -1, -1):
        size += len(frames[index].data)
        if size > MAX_BYTES or len(frames) - index > MAX_FRAMES:
            return frames[index + 1 :]
    return frames


def _pieces(id: str, frames: Sequence[Frame]) -> list[Piece]:
    """Frames as rows: as long as they follow on one another and are of one kind, they share one."""
    rows: list[list[Frame]] = []
    for frame in frames:
        if rows and _follows(rows[-1][-1], frame):
            rows[-1].append(frame)
        else:
            rows.append([frame])
    return [_piece(id, row) for row in rows]


def _follows(one: Frame, other: Frame) -> bool:
    same = (one.type, one.subject) == (other.type, other.subject)
    return same and other.cursor == one.cursor._replace(n=one.cursor.n + 1)


def _piece(id: str, frames: Sequence[Frame]) -> Piece:
    seq, epoch, n = frames[0].cursor
    text = b"[" + b",".join(frame.data for frame in frames) + b"]"
    return Piece(id, epoch, n, frames[-1].cursor.n, seq, frames[0].type, frames[0].subject, text.decode())
