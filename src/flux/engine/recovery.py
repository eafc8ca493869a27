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
from pathlib import Path

from flux.engine.dispatch import Dispatch
from flux.engine.runner import BACKOFFS, Runner
from flux.errors import DatabaseLocked, DatabaseUnavailable
from flux.store import executions, workers
from flux.store.database import Database
from flux.store.feed import Feed

logger = logging.getLogger(__name__)

TICK_SECONDS = 0.5


class WorkerLock:
    """This process's id and the locked file that proves it alive."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.id = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._folder = folder
        self._path = folder / self.id
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def is_free(self, worker: str) -> bool:
        """Whether another worker's file exists and nobody holds its lock."""
        return _is_locked(self._folder / worker) is False

    def forget(self, worker: str) -> None:
        """Remove the file of a dead worker."""
        (self._folder / worker).unlink(missing_ok=True)

    def release(self) -> None:
        """Leave in good order."""
        self._path.unlink(missing_ok=True)
        os.close(self._file)


def is_alive(folder: Path, worker: str) -> bool:
    """Whether a worker of this folder of locks is alive."""
    return _is_locked(folder / worker) is True


def _is_locked(path: Path) -> bool | None:
    """Whether somebody holds the lock of a file; None when there is no such file."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(file)
    return False


class Recovery:
    """Keeps the heartbeat while runs are owned, and hands back what dead workers were running."""

    def __init__(
        self,
        database: Database,
        dispatch: Dispatch,
        lock: WorkerLock,
        *,
        heartbeat: float,
        dead_after: float,
    ) -> None:
        self._database = database
        self._dispatch = dispatch
        self._lock = lock
        self._heartbeat = heartbeat
        self._dead_after = dead_after

    async def sweep(self) -> int:
        """Hand back the executions of dead workers; returns how many."""
        taken = 0
        for worker in await self._database.read(executions.owners()):
            if worker != self._lock.id and await self._is_dead(worker):
                ids = await self._database.write(executions.reap(worker, BACKOFFS))
                self._lock.forget(worker)
                taken += len(ids)
        if taken:
            self._dispatch.timers_changed()
        return taken

    async def beat_while_busy(self, runner: Runner) -> None:
        """Show that this process lives, as long as it owns runs."""
        while True:
            await runner.busy.wait()
            try:
                await self._database.write(workers.beat(self._lock.id))
            except (DatabaseLocked, DatabaseUnavailable) as error:
                logger.warning("no heartbeat: %s", error)
            await asyncio.sleep(self._heartbeat)

    async def watch(self, feed: Feed) -> None:
        """Look for dead workers at once, and then while somebody here waits for news."""
        while True:
            try:
                await self.sweep()
            except (DatabaseLocked, DatabaseUnavailable) as error:
                logger.warning("no sweep: %s", error)
            await asyncio.sleep(TICK_SECONDS)
            await feed.reading.wait()

    async def _is_dead(self, worker: str) -> bool:
        if self._lock.is_free(worker):
            return True
        return await self._database.read(workers.silent(worker, self._dead_after))
