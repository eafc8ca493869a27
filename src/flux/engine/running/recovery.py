"""Who is alive, and taking over from who is not.

Every process holds a lock on a file of its own. A worker whose lock is free is dead at once; one whose
lock is held (frozen, or on a file system without locks) is dead when its heartbeat has been silent.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from flux.engine.dispatching.dispatch import Dispatch
from flux.engine.dispatching.upkeep import keep_up, survive
from flux.engine.running.runner import BACKOFFS, Runner
from flux.store import ownership, workers
from flux.store.database import Database

logger = logging.getLogger(__name__)

TICK_SECONDS = 1.0
#: Ticks between two looks for what dead workers have left behind.
TIDY_TICKS = 60
#: Seconds that a worker which is gone is still shown.
GONE_SECONDS = 3600.0
#: Seconds that the database gets to forget a worker which leaves.
LEAVE_SECONDS = 2.0


class WorkerLock:
    """This process's id and the locked file that proves it alive."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.id = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._folder = folder
        self._path = folder / self.id
        self._file = _locked(self._path)

    def is_free(self, worker: str) -> bool:
        """Whether another worker's file exists and nobody holds its lock."""
        return _is_locked(self._folder / worker) is False

    def is_held(self, worker: str) -> bool:
        """Whether another worker's file exists and somebody holds its lock."""
        return _is_locked(self._folder / worker) is True

    def free(self) -> list[str]:
        """The workers whose files are here, and whose locks nobody holds."""
        return [path.name for path in self._folder.iterdir() if self.is_free(path.name)]

    def forget(self, worker: str) -> None:
        """Remove the file of a dead worker; that of one which lives, frozen or not, stays."""
        path = self._folder / worker
        with _opened(path) as file:
            # Held while the name goes, so that nobody takes a lock on a file without a name unawares.
            if file is not None and _take(file, fcntl.LOCK_EX):
                path.unlink(missing_ok=True)

    def release(self) -> None:
        """Leave in good order."""
        self._path.unlink(missing_ok=True)
        os.close(self._file)


def is_alive(folder: Path, worker: str) -> bool:
    """Whether a worker of this folder of locks is alive."""
    return _is_locked(folder / worker) is True


def _is_locked(path: Path) -> bool | None:
    """Whether somebody holds the lock of a file; None when there is no such file."""
    with _opened(path) as file:
        # A shared lock: two that look at once are not taken for the owner.
        return None if file is None else not _take(file, fcntl.LOCK_SH)


@contextmanager
def _opened(path: Path) -> Iterator[int | None]:
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        yield None
        return
    try:
        yield file
    finally:
        os.close(file)


def _take(file: int, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _locked(path: Path) -> int:
    """A new file, locked. Who tidies up may remove it before it is locked: then it is made again."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            if os.path.samestat(os.fstat(file), os.stat(path)):
                return file
        except FileNotFoundError:
            pass
        os.close(file)


class Recovery:
    """Keeps the heartbeat, hands back what nobody runs, and finds work nobody told of.

    Times in seconds; `tick` is between two looks. `always`: beat also while no runs are owned.
    """

    def __init__(  # noqa: PLR0913 - whom it serves, and its times
        self,
        database: Database,
        dispatch: Dispatch,
        runner: Runner,
        lock: WorkerLock,
        *,
        pools: Sequence[str],
        heartbeat: float,
        dead_after: float,
        tick: float = TICK_SECONDS,
        always: bool = False,
    ) -> None:
        self._database = database
        self._dispatch = dispatch
        self._runner = runner
        self._lock = lock
        self._pools = pools
        self._heartbeat = heartbeat
        self._dead_after = dead_after
        self._tick = tick
        self._always = always
        #: Somebody asked this worker to stop.
        self.draining = asyncio.Event()

    async def sweep(self) -> int:
        """Hand back what dead workers were running, and what is ours by mistake; returns how many of the first."""
        look = await self._database.read(ownership.look(self._pools, self._lock.id, self._dead_after))
        if look.draining:
            self.draining.set()
        taken = 0
        for worker, silent in look.owners.items():
            if silent or self._lock.is_free(worker):
                taken += await self._take_over(worker)
        await self._runner.hand_back_strays(look.own)
        if taken or look.work:
            self._dispatch.timers_changed()
        return taken

    async def tidy(self) -> None:
        """Remove what dead workers that own nothing have left behind: files of locks, and in the end rows."""
        for worker in self._lock.free():
            await self._take_over(worker)
        for worker in await self._database.read(workers.idle(GONE_SECONDS)):
            if not self._lock.is_held(worker):  # on SQLite who has nothing to do is not heard of
                await self._database.write(workers.forget(worker))

    async def show(self) -> None:
        """Be seen in the list of workers from the start."""
        await survive("cannot sign on", self._beat())

    async def keep_beating(self) -> None:
        """Show that this process lives: always where its lock tells others nothing, else as long as it owns runs."""
        await keep_up("no heartbeat", self._beat_in_time)

    async def watch(self) -> None:
        """Sweep at once and at every tick; tidy up at once and now and then."""
        while True:
            await survive("cannot tidy up", self.tidy())
            for _ in range(TIDY_TICKS):
                await survive("no sweep", self.sweep())
                await asyncio.sleep(self._tick)

    async def leave(self) -> None:
        """This worker has left; what it may still own is to be taken over at once."""
        await survive("cannot sign off", self._forget())

    async def _take_over(self, worker: str) -> int:
        ids = await self._database.write(ownership.reap(worker, BACKOFFS))
        settled = await self._runner.settle(worker)
        if ids or settled:
            logger.info("took over %d runs from %s, and ended %d of code that it ran", len(ids), worker, settled)
        if self._lock.is_free(worker):
            await self._database.write(workers.mark_gone(worker))
            self._lock.forget(worker)
        return len(ids)

    async def _beat_in_time(self) -> None:
        if not self._always:
            await self._runner.busy.wait()
        await self._beat()
        await asyncio.sleep(self._heartbeat)

    async def _beat(self) -> None:
        """Only who has no row makes one, in a second step: a heartbeat under way must not bring back who has left."""
        if not await self._database.write(workers.renew(self._runner.id)):
            await self._database.write(workers.beat(self._runner.who))

    async def _forget(self) -> None:
        async with asyncio.timeout(LEAVE_SECONDS):
            await self._database.write(workers.forget(self._lock.id))
