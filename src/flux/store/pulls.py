"""Bringing what other processes wrote into channels: one look at a time for each, however many bells ring."""

from __future__ import annotations

import asyncio

from flux.store import deltas
from flux.store.channel import Channel
from flux.store.database import Database


class Pulls:
    """The looks that are under way."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._looks: dict[str, _Look] = {}

    async def now(self, id: str, channel: Channel, since: int) -> None:
        """Bring what is committed now, for one who has seen entry `since`.

        A channel in which this process runs something has it already.

        :raises DatabaseUnavailable: the database does not answer
        """
        await asyncio.shield(self._look(id, channel, since))

    def soon(self, id: str, channel: Channel) -> None:
        """The same, while the caller goes on; a database that is away is looked at again by who watches it."""
        self._look(id, channel)

    def _look(self, id: str, channel: Channel, since: int = 0) -> asyncio.Task[None]:
        look = self._looks.get(id)
        if look is None or look.channel is not channel or look.task.done():
            look = self._looks[id] = _Look(self._database, id, channel, since)
            look.task.add_done_callback(lambda _: self._done(id, look))
        look.again = True
        return look.task

    def _done(self, id: str, look: _Look) -> None:
        if self._looks.get(id) is look:
            del self._looks[id]
        if not look.task.cancelled():
            look.task.exception()  # who waits for it hears of it

    async def close(self) -> None:
        """Stop looking."""
        tasks = [look.task for look in self._looks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Look:
    """Pulls into one channel for as long as there is a reason to look again."""

    def __init__(self, database: Database, id: str, channel: Channel, since: int) -> None:
        self.channel = channel
        self.again = True
        self._database, self._id, self._since = database, id, since
        self.task = asyncio.create_task(self._work())

    async def _work(self) -> None:
        channel = self.channel
        while self.again and channel.pulled and channel.scope is not None:
            self.again = False
            after = channel.head if channel.known else None
            place = (after, channel.epoch, channel.n, self._since)
            found = await self._database.single(deltas.pull(channel.scope, self._id, *place))
            channel.absorb(found)
