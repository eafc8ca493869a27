"""Deleting what ended long ago. Off unless an operator asks for it."""

from __future__ import annotations

import asyncio

from flux.engine.dispatching.upkeep import survive
from flux.store import retention
from flux.store.database import Database

#: Seconds between two looks.
LOOK_SECONDS = 60.0
#: Executions deleted in one transaction, so that nobody waits long for it.
BATCH = 20


class Retention:
    """Deletes executions that ended more than `seconds` ago, with all they left behind; 0: keeps them for good."""

    def __init__(self, database: Database, seconds: float) -> None:
        self._database = database
        self._seconds = seconds

    async def watch(self) -> None:
        """Delete at once, and again now and then."""
        while self._seconds:
            await survive("cannot delete what ended", self.delete())
            await asyncio.sleep(LOOK_SECONDS)

    async def delete(self) -> int:
        """Delete what ended too long ago; returns how many went."""
        deleted = 0
        while self._seconds:
            found = await self._database.write(retention.delete_expired(self._seconds, BATCH))
            deleted += found
            if found < BATCH:
                break
        return deleted
