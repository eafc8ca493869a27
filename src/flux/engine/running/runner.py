"""The runner: claims an execution, runs it by its kind, and hands it back when that fails."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, cast

from flux.engine.dispatching.dispatch import Dispatch
from flux.engine.dispatching.pools import DEFAULT_OFFER, Offer
from flux.engine.dispatching.upkeep import PAUSE_SECONDS, being_cancelled, survive, to_the_end
from flux.engine.running.run import SHORT_LOG, Executor, HandOver, Refused, Run
from flux.errors import DatabaseLocked, DatabaseUnavailable, Fenced, FluxError, describe
from flux.events import Stored
from flux.store import callers, log, ownership, refusals, workers
from flux.store.database import Database, Steps, together
from flux.store.executions import Execution
from flux.store.feed import Feed
from flux.store.ownership import Owned
from flux.store.workers import Presence

logger = logging.getLogger(__name__)

#: Seconds that the database gets to take a run back; the sweep repairs what it did not take.
HAND_BACK_SECONDS = 3.0
#: Seconds to wait after the n-th failure of a run.
BACKOFFS = (0.0, 1.0, 5.0, 30.0, 60.0)


class Runner:
    """Runs executions in this process, those that `offer` takes. It owns them under the id of `who`."""

    def __init__(
        self,
        database: Database,
        feed: Feed,
        dispatch: Dispatch,
        executors: Mapping[str, Executor],
        who: Presence,
        offer: Offer = DEFAULT_OFFER,
        settle: Executor | None = None,
    ) -> None:
        self._settle = settle
        self._database = database
        self._feed = feed
        self._dispatch = dispatch
        self._executors = executors
        self.who = who
        self._offer = offer
        self._runs: dict[str, Run] = {}
        self._settling: set[str] = set()
        #: Executions that are run or being claimed here, each with what tells it that the process leaves.
        self._held: dict[str, asyncio.Event] = {}
        #: Logs that came with a claim; not there any more: somebody has written since.
        self._brought: dict[str, Sequence[Stored]] = {}
        #: Claims whose answer was lost, each with the looks since then: they may have been made.
        self._unanswered: dict[str, int] = {}
        #: When its heartbeat was last looked at by a claim.
        self._seen = -math.inf
        self._seeing = asyncio.Lock()
        self.busy = asyncio.Event()

    @property
    def id(self) -> str:
        """The id under which it owns executions."""
        return self.who.id

    def changed(self, id: str) -> None:
        """Tell a run that somebody else wrote to its log."""
        run = self._runs.get(id)
        if run is not None:
            run.others_wrote()
        else:
            self._brought.pop(id, None)

    def all_changed(self) -> None:
        """Another process wrote something: let every run look."""
        for id in list(self._held):
            self.changed(id)

    def changed_elsewhere(self, id: str | None) -> None:
        """Another process wrote to the log of an execution; None: to any."""
        if id is None:
            self.all_changed()
        else:
            self.changed(id)

    def drain(self) -> None:
        """Tell every run to start nothing new, and to hand over."""
        for draining in self._held.values():
            draining.set()

    async def run(self, id: str) -> None:
        """Claim an execution and run it until it rests; return at once when it is not to be had."""
        draining = self._held[id] = asyncio.Event()
        try:
            went_well = await survive(f"cannot run {id}", self._claim_and_run(id, draining))
        finally:
            del self._held[id]
            self._brought.pop(id, None)
        if not went_well:
            await asyncio.sleep(PAUSE_SECONDS)
            self._dispatch.timers_changed()

    async def run_taken(self, execution: Execution) -> None:
        """Run an execution that is taken for this worker already, until it rests or is handed back."""
        draining = self._held[execution.id] = asyncio.Event()
        try:
            await survive(f"cannot run {execution.id}", self._run(execution, draining))
        finally:
            del self._held[execution.id]

    async def settle(self, dead: str) -> int:
        """End what a process that is gone has run in sessions for itself; returns how many were its."""
        if self._settle is None:
            return 0
        ids = await self._database.read(callers.lost(dead))
        for id in ids:
            execution = await self._database.write(callers.take_over(id, dead, self.who))
            if execution is not None:
                self._settling.add(id)
                await self.run_taken(execution)
                self._settling.discard(id)
        return len(ids)

    async def hand_back_strays(self, owned: Sequence[Owned]) -> None:
        """Hand back what the database calls ours and is not run here.

        Such are claims and hand-backs whose answer was lost. A run that ended meanwhile is not touched: its
        row has left `running`, or this epoch.
        """
        for row in owned:
            if row.id not in self._held:
                failed = row.id not in self._unanswered
                backoff = _backoff(row.failures, failed)
                given_up = ownership.hand_back(row.id, row.epoch, failed=failed, backoff=backoff)
                await self._give_back(row.id, row.pool, _telling(row.id, given_up), backoff)
        # This look may have been before a claim was made: one that it did not see is remembered for one look more.
        seen = {row.id for row in owned}
        self._unanswered = {id: 1 for id, looks in self._unanswered.items() if id not in seen and not looks}

    async def _claim_and_run(self, id: str, draining: asyncio.Event) -> None:
        execution = await self._claim(id)
        if execution is not None:
            await self._run(execution, draining)

    async def _run(self, execution: Execution, draining: asyncio.Event) -> None:
        id = execution.id
        given = self._brought.pop(id, ())
        run = Run(execution, self._database, self._feed, self._dispatch, draining, given=given)
        self._runs[id] = run
        self.busy.set()
        try:
            await self._execute(run)
        finally:
            del self._runs[id]
            if not self._runs:
                self.busy.clear()
        if run.left is not None and run.left.due is not None:
            self._dispatch.timers_changed()

    async def _take(self, id: str) -> Execution | None:
        """Claim by one statement where that is enough: the worker was seen just now, and the work asks for nothing."""
        if await self._was_seen():
            plain = ownership.claim_plain(id, self.id, self._offer.pools)
            self._brought[id] = ()
            brought = log.load_claimed(id, self.id, SHORT_LOG)
            taken: tuple[Execution | None, list[Stored]]
            taken = cast(Any, await self._database.write_one(together(plain, brought)))
            if id in self._brought:
                self._brought[id] = taken[1]
            if taken[0] is not None:
                return taken[0]
            if not await self._database.single(ownership.is_scheduled(id)):
                return None
        began = time.monotonic()
        execution = await self._database.write(_claim(id, self.who, self._offer))
        if execution is not None:
            self._seen = began
        return execution

    async def _was_seen(self) -> bool:
        """Whether the heartbeat is fresh; where others look at it, one claim renews it for all that come meanwhile."""
        async with self._seeing:
            now = time.monotonic()
            fresh = now - self._seen < workers.JUST_NOW
            if not fresh and self._database.shared:
                fresh = await self._database.write_one(workers.renew(self.id))
                self._seen = now if fresh else self._seen
            return fresh

    async def _claim(self, id: str) -> Execution | None:
        claiming = asyncio.ensure_future(self._take(id))
        try:
            execution = await asyncio.shield(claiming)
        except asyncio.CancelledError:
            if being_cancelled():
                await to_the_end(survive(f"cannot give up the claim of {id}", self._unclaim(claiming)))
            raise
        except (DatabaseLocked, DatabaseUnavailable):
            self._unanswered[id] = 0
            raise
        except _NotForUs:
            return None
        self._unanswered.pop(id, None)
        return execution

    async def _unclaim(self, claiming: asyncio.Future[Execution | None]) -> None:
        """What was claimed although we leave must not stay ours."""
        async with asyncio.timeout(HAND_BACK_SECONDS):
            execution = await asyncio.shield(claiming)
        if execution is not None:
            await self._hand_back(execution.id, execution.pool, execution.epoch, execution.failures, failed=False)

    async def _execute(self, run: Run) -> None:
        """The outermost handler: whatever happens, an execution we own is never just dropped."""
        try:
            await self._work(run)
            if run.left is None:
                raise FluxError(debug=f"the executor of {run.id} returned without leaving it at rest")
        except Fenced as error:
            logger.info("run of %s stops: %s %s", run.id, error, error.debug)
        except Refused as refusal:
            logger.warning("%s is left to other workers: %s", run.id, refusal)
            refused = refusals.refuse(run.id, run.epoch, self.id, str(refusal))
            await self._give_back(run.id, run.execution.pool, refused, 0.0)
        except HandOver:
            await self._hand_back(run.id, run.execution.pool, run.epoch, run.failures, failed=False)
        except asyncio.CancelledError:
            stopped = being_cancelled()
            if not stopped:
                logger.exception("run of %s failed: it was cancelled by itself", run.id)
            await self._hand_back(run.id, run.execution.pool, run.epoch, run.failures, failed=not stopped)
            if stopped:
                raise
        except Exception as error:  # noqa: BLE001 - the run is handed back and tried again, then failed in the log
            logger.exception("run of %s failed", run.id)
            await self._hand_back(
                run.id, run.execution.pool, run.epoch, run.failures, failed=True, reason=describe(error)
            )

    async def _work(self, run: Run) -> None:
        run.start_nothing_while_draining()
        await self._feed.catch_up(run.id)
        self._feed.begin(run.id, run.epoch, run.execution.head)
        try:
            settle = self._settle if run.id in self._settling else None
            await (settle or self._executors[run.execution.kind])(run)
        finally:
            self._feed.end(run.id)

    async def _hand_back(
        self, id: str, pool: str, epoch: int, failures: int, *, failed: bool, reason: str | None = None
    ) -> None:
        """Try once: what a database that is away does not take back is found by the sweep, here or elsewhere."""
        backoff = _backoff(failures, failed)
        given_up = ownership.hand_back(id, epoch, failed=failed, backoff=backoff, error=reason)
        await self._give_back(id, pool, given_up, backoff)

    async def _give_back(self, id: str, pool: str, given_up: Steps[bool], backoff: float) -> None:
        program = _hand_back(id, pool, given_up, backoff, self._dispatch)
        await to_the_end(survive(f"cannot hand back {id} now", self._within_time(program)))
        self._dispatch.timers_changed()

    async def _within_time(self, program: Steps[bool]) -> None:
        async with asyncio.timeout(HAND_BACK_SECONDS):
            await self._database.write(program)


def _backoff(failures: int, failed: bool) -> float:
    return BACKOFFS[min(failures + 1, len(BACKOFFS) - 1)] if failed else 0.0


def _telling(id: str, given_up: Steps[bool]) -> Steps[bool]:
    """A run that was just ending is no stray, and nothing to tell of."""
    done = yield from given_up
    if done:
        logger.warning("%s is called ours and does not run here; handed back", id)
    return done


def _hand_back(id: str, pool: str, given_up: Steps[bool], backoff: float, dispatch: Dispatch) -> Steps[bool]:
    """Hand back; who may go on at once is given a hint."""
    done = yield from given_up
    if done and not backoff:
        yield from dispatch.hint(id, pool)
    return done


class _NotForUs(Exception):
    """The execution is one for other workers; raised to undo its claim."""


def _claim(id: str, who: Presence, offer: Offer) -> Steps[Execution | None]:
    """Claim with a heartbeat in the same transaction, so that a fresh owner is not taken for a silent one."""
    execution = yield from ownership.claim(id, who.id)
    if execution is not None and not offer.takes(execution.pool, execution.requests):
        raise _NotForUs
    if execution is not None:
        yield from workers.stay(who)
    return execution
