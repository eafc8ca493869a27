"""How much may be waiting or under way at once: what is more is refused, and the caller told when to come again."""

from __future__ import annotations

import time

from msgspec import Struct

from flux.errors import TooManyRequests
from flux.settings import Settings
from flux.store import executions
from flux.store.database import Database, Scope, Steps

#: Seconds between two looks at how many executions wait for a worker.
LOOK_SECONDS = 1.0
#: Seconds after which to come again.
SOON, LATER = 1.0, 5.0


class Limits(Struct, frozen=True):
    """`session`: waiting messages of one. `queue`: executions without a worker. `runs`: of a principal. 0: no limit."""

    session: int = 0
    queue: int = 0
    runs: int = 0

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """Those of the settings."""
        return cls(settings.max_queued_messages, settings.max_queued_runs, settings.runs)


UNLIMITED = Limits()


class Crowd:
    """How many executions wait for a worker, as of a moment ago."""

    def __init__(self, database: Database, limits: Limits) -> None:
        self._database = database
        self._limits = limits
        self._looked = -LOOK_SECONDS
        self._waiting = 0

    async def check(self) -> None:
        """Let nothing more in while too many wait.

        :raises TooManyRequests: they do
        """
        limit = self._limits.queue
        if not limit:
            return
        now = time.monotonic()
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            self._waiting = await self._database.read(executions.waiting(limit))
        if self._waiting >= limit:
            raise TooManyRequests(f"{limit:,} executions wait for a worker already; try again later", retry_after=LATER)


def check_runs(scope: Scope, limit: int) -> Steps[None]:
    """In the transaction that starts a run: refuse it when its principal has more than `limit` under way.

    :raises TooManyRequests: so it is
    """
    if limit and (yield from executions.under_way(scope, limit + 1)) > limit:
        raise TooManyRequests(f"you have {limit:,} runs under way already; wait until one has ended", retry_after=SOON)


def full(limit: int) -> TooManyRequests:
    """The error of a session that takes no more messages for now."""
    return TooManyRequests(
        f"{limit:,} messages wait in this session already; wait until some are answered", retry_after=SOON
    )
