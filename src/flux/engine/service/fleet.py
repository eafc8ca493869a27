"""The workers of a database, as an operator sees them: the service behind every surface."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from flux.engine.dispatching.pools import Offer, Resources, pools_of
from flux.engine.dispatching.presence import check_name
from flux.engine.running.recovery import WorkerLock
from flux.errors import WorkerNotFound
from flux.store import refusals, workers
from flux.store.database import Database
from flux.store.executions import Execution
from flux.store.workers import Presence, WorkerRow

_labels = msgspec.json.Decoder(dict[str, str]).decode
_resources = msgspec.json.Decoder(Resources).decode


class Fleet:
    """The workers of a database, seen from one process; times in seconds.

    `always`: a worker is heard of also while it has nothing to do. Otherwise its lock tells that it lives.
    """

    def __init__(
        self, database: Database, lock: WorkerLock, dead_after: float, *, always: bool, drain_here: Callable[[], None]
    ) -> None:
        self._database = database
        self._lock = lock
        self._dead_after = dead_after
        self._always = always
        self._drain_here = drain_here

    async def join(self, who: Presence) -> None:
        """Be there under a name that a person has chosen.

        :raises WorkerExists: a living worker has it
        :raises InvalidInput: it is no name
        """
        check_name(who.name)
        await self._database.write(workers.join(who, self._dead_after, self._lock.is_free))

    async def page(self, after: str, limit: int) -> list[WorkerRow]:
        """Workers by name."""
        found = await self._database.read(workers.page(after, limit))
        return [self._as_it_is(row) for row in found]

    async def get(self, name: str) -> WorkerRow:
        """A worker.

        :raises WorkerNotFound: there is none
        """
        row = await self._database.read(workers.get(name))
        if row is None:
            raise WorkerNotFound(f"there is no worker {name[:80]!r}; `flux worker list` shows those that exist")
        return self._as_it_is(row)

    async def drain(self, name: str) -> WorkerRow:
        """Let a worker take nothing new, finish or hand over what it runs, and leave. One that is gone stays so.

        :raises WorkerNotFound: there is none
        """
        row = await self.get(name)
        await self._database.write(workers.drain(row.id))
        if row.id == self._lock.id:
            self._drain_here()
        return await self.get(name)

    async def has_others(self, row: Execution) -> bool:
        """Whether another worker lives that may run an execution and has not refused it."""
        found = await self._database.read(refusals.others(row.id, self._lock.id, self._dead_after))
        offers = (Offer(pools_of(_labels(one.labels)), _resources(one.resources)) for one in found)
        return any(offer.takes(row.pool, row.requests) for offer in offers)

    def _as_it_is(self, row: WorkerRow) -> WorkerRow:
        """With the state that follows from when it was heard of."""
        unheard = row.silent >= self._dead_after
        resting = not self._always and not row.running and self._lock.is_held(row.id)
        if (unheard and not resting) or self._lock.is_free(row.id):
            return replace(row, state="gone")
        return row


def resources_of(row: WorkerRow) -> Resources:
    """What a worker has."""
    return _resources(row.resources)


def labels_of(row: WorkerRow) -> dict[str, str]:
    """What a worker is."""
    return _labels(row.labels)
