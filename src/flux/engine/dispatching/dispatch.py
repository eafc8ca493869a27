"""Dispatch is a hint: it says which execution may have work. The row decides; the sweep repairs lost hints."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

from msgspec import Struct

from flux.engine.dispatching.upkeep import keep_up
from flux.store import ownership
from flux.store.database import Database, Steps
from flux.store.executions import CALLER

logger = logging.getLogger(__name__)

SWEEP_BATCH = 500


class Worker(Protocol):
    """What does the work in a process."""

    @property
    def id(self) -> str:
        """The id under which it owns executions."""
        ...

    async def run(self, id: str) -> None:
        """Claim an execution and run it until it rests; return at once when it is not to be had."""
        ...

    def changed(self, id: str) -> None:
        """Somebody else wrote to the log of an execution that may be running here."""
        ...

    def drain(self) -> None:
        """The process is about to leave: start nothing new in any run, and hand over."""
        ...


class Duty(Struct, frozen=True, kw_only=True):
    """What a process works on: executions of `pools`, so many at once.

    What `fits` says no to, by the text of its requests, is left to others. `grace`: seconds that runs get to
    finish when the process leaves.
    """

    pools: Sequence[str]
    concurrency: int
    grace: float
    fits: Callable[[str], bool] = bool


class Dispatch(Protocol):
    """Brings executions with work to workers."""

    def hint(self, id: str, pool: str) -> Steps[None]:
        """Leave a hint in the admitting transaction."""
        ...

    def nudge(self, id: str) -> None:
        """The transaction is committed: run this execution, or tell its run that the log changed.

        A request to stop travels this way too: it is an entry, and the run reads it.
        """
        ...

    def timers_changed(self) -> None:
        """An execution may be due, now or at a later time: look."""
        ...

    async def work(self, worker: Worker, duty: Duty) -> None:
        """Run what has work until cancelled, then let runs finish for a while."""
        ...


class CallerDispatch:
    """Dispatch of a process that runs sessions for its own code: others are told of theirs as by `inner`."""

    def __init__(self, inner: Dispatch) -> None:
        self._inner = inner
        self.worker: Worker | None = None

    def hint(self, id: str, pool: str) -> Steps[None]:
        """Nothing for what runs here."""
        if pool != CALLER:
            yield from self._inner.hint(id, pool)

    def nudge(self, id: str) -> None:
        """Tell a run of this process that its log changed, or others that there is work."""
        if self.worker is not None:
            self.worker.changed(id)
        self._inner.nudge(id)

    def timers_changed(self) -> None:
        """Others look at their timers; who runs something here looks by itself."""
        self._inner.timers_changed()

    async def work(self, worker: Worker, duty: Duty) -> None:
        """Nothing by itself."""


class EmbeddedDispatch:
    """Dispatch inside one process: a nudge is a function call, and idling costs nothing.

    `patience`: seconds that hints get which come by another way.
    """

    def __init__(self, database: Database, patience: float = 0.0) -> None:
        self._database = database
        self._patience = patience
        self._worker: Worker | None = None
        self._ready: dict[str, None] = {}
        self._again: set[str] = set()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._rests: dict[str, asyncio.Event] = {}
        self._concurrency = 0
        self._more = False
        self._sweep_due = asyncio.Event()

    def hint(self, id: str, pool: str) -> Steps[None]:
        """Nothing: the process that admits is the process that works."""
        yield from ()

    def timers_changed(self) -> None:
        """Look at the timers again."""
        self._sweep_due.set()

    def nudge(self, id: str) -> None:
        """Run an execution now, or tell its run that the log changed."""
        if self._worker is None:
            return
        if id in self._tasks:
            self._again.add(id)
            self._worker.changed(id)
        else:
            self._ready[id] = None
            self._start_ready()

    async def run(self, id: str) -> bool:
        """Run an execution and wait until it rests here; False when this process does not work (any more)."""
        if self._worker is None:
            return False
        rest = self._rests.setdefault(id, asyncio.Event())
        self.nudge(id)
        await rest.wait()
        return self._worker is not None

    async def work(self, worker: Worker, duty: Duty) -> None:
        """Run what has work until cancelled, then let runs finish for a while."""
        self._worker, self._concurrency = worker, duty.concurrency
        try:
            await keep_up("dispatch", functools.partial(self._look, duty, worker.id))
        finally:
            self._worker = None
            worker.drain()
            await self._drain(duty.grace)

    async def _look(self, duty: Duty, worker: str) -> None:
        """Start what may be claimed, then wait for the next timer or for news."""
        self._sweep_due.clear()
        found = ownership.sweep(duty.pools, SWEEP_BATCH, duty.fits, worker, self._patience)
        ids, seconds = await self._database.write(found)
        for id in ids:
            self.nudge(id)
        self._more = len(ids) == SWEEP_BATCH
        if self._more and not self._ready:
            # There is room for more: look again, behind the claims of those just started.
            await asyncio.sleep(0)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._sweep_due.wait()

    def _start_ready(self) -> None:
        while self._worker is not None and self._ready and len(self._tasks) < self._concurrency:
            id = next(iter(self._ready))
            del self._ready[id]
            task = asyncio.create_task(self._worker.run(id), name=f"run {id}")
            self._tasks[id] = task
            task.add_done_callback(functools.partial(self._finished, id))

    def _finished(self, id: str, task: asyncio.Task[None]) -> None:
        del self._tasks[id]
        if id in self._again:
            self._again.discard(id)
            self._ready[id] = None
        elif (rest := self._rests.pop(id, None)) is not None:
            rest.set()
        self._start_ready()
        if self._more and not self._ready:
            self._sweep_due.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("%s broke", task.get_name(), exc_info=error)

    async def _drain(self, grace: float) -> None:
        if not self._tasks:
            return
        try:
            await asyncio.wait(self._tasks.values(), timeout=grace)
        finally:  # also when told again to stop: the grace is over, but runs are handed back
            stopped: Sequence[asyncio.Task[None]] = list(self._tasks.values())
            for task in stopped:
                task.cancel()
        if stopped:
            await asyncio.wait(stopped)
