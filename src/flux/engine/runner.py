"""The runner: claims an execution, runs it by its kind, and hands it back when that fails."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from flux.engine.dispatch import Dispatch
from flux.engine.run import Executor, Run
from flux.errors import DatabaseLocked, DatabaseUnavailable, Fenced, FluxError
from flux.store import executions, workers
from flux.store.database import Database, Steps
from flux.store.executions import Execution
from flux.store.feed import Feed

logger = logging.getLogger(__name__)

#: Seconds between attempts while the database does not answer.
RETRY_SECONDS = 1.0
#: Seconds to wait after the n-th failure of a run.
BACKOFFS = (0.0, 1.0, 5.0, 30.0, 60.0)


class Runner:
    """Runs executions in this process. `worker` is the id under which it owns them."""

    def __init__(
        self,
        database: Database,
        feed: Feed,
        dispatch: Dispatch,
        executors: Mapping[str, Executor],
        worker: str,
    ) -> None:
        self._database = database
        self._feed = feed
        self._dispatch = dispatch
        self._executors = executors
        self._worker = worker
        self._runs: dict[str, Run] = {}
        self.busy = asyncio.Event()

    def changed(self, id: str) -> None:
        """Tell a run that somebody else wrote to its log."""
        run = self._runs.get(id)
        if run is not None:
            run.others_wrote()

    def all_changed(self) -> None:
        """Another process wrote something: let every run look."""
        for run in self._runs.values():
            run.others_wrote()

    async def run(self, id: str) -> None:
        """Claim an execution and run it until it rests; return at once when it is not to be had."""
        try:
            execution = await self._claim(id)
        except (DatabaseLocked, DatabaseUnavailable) as error:
            logger.warning("cannot claim %s yet: %s", id, error)
            await asyncio.sleep(RETRY_SECONDS)
            self._dispatch.timers_changed()
            return
        if execution is None:
            return
        run = Run(execution, self._database, self._feed)
        self._runs[id] = run
        self.busy.set()
        self._feed.begin(id, run.epoch, execution.head)
        try:
            await self._execute(run)
        finally:
            self._feed.end(id)
            del self._runs[id]
            if not self._runs:
                self.busy.clear()
        if run.left is not None and run.left.due is not None:
            self._dispatch.timers_changed()

    async def _claim(self, id: str) -> Execution | None:
        claiming = asyncio.ensure_future(self._database.write(_claim(id, self._worker)))
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:
            await asyncio.wait((claiming,))
            # What was claimed nevertheless must not stay ours.
            if claiming.exception() is None and (execution := claiming.result()) is not None:
                await asyncio.shield(self._hand_back(Run(execution, self._database, self._feed), failed=False))
            raise

    async def _execute(self, run: Run) -> None:
        """The outermost handler: whatever happens, an execution we own is never just dropped."""
        try:
            await self._executors[run.execution.kind](run)
            if run.left is None:
                raise FluxError(debug=f"the executor of {run.id} returned without leaving it at rest")
        except Fenced as error:
            logger.info("run of %s stops: %s %s", run.id, error, error.debug)
        except asyncio.CancelledError:
            await asyncio.shield(self._hand_back(run, failed=False))
            raise
        except Exception:  # noqa: BLE001 - the run is handed back and tried again, then failed in the log
            logger.exception("run of %s failed", run.id)
            await self._hand_back(run, failed=True)

    async def _hand_back(self, run: Run, *, failed: bool) -> None:
        backoff = BACKOFFS[min(run.failures + 1, len(BACKOFFS) - 1)] if failed else 0.0
        while True:
            try:
                await self._database.write(executions.hand_back(run.id, run.epoch, failed=failed, backoff=backoff))
                break
            except (DatabaseLocked, DatabaseUnavailable) as error:
                logger.warning("cannot hand back %s yet: %s", run.id, error)
                await asyncio.sleep(RETRY_SECONDS)
        self._dispatch.timers_changed()


def _claim(id: str, worker: str) -> Steps[Execution | None]:
    """Claim with a heartbeat in the same transaction, so that a fresh owner is not taken for a silent one."""
    execution = yield from executions.claim(id, worker)
    if execution is not None:
        yield from workers.beat(worker)
    return execution
