"""Dispatch between processes on Postgres: hints are jobs of procrastinate, written in our own transactions.

A job is no more than a hint: the row decides who runs what, a lost job is found by the sweep, and a job
too many finds nothing to claim. Therefore no locks, and every job that fails is put back at once.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import re
from collections.abc import Sequence
from typing import Any

import procrastinate
from procrastinate.jobs import Job

from flux.engine.dispatching.dispatch import Duty, EmbeddedDispatch, Worker
from flux.engine.dispatching.upkeep import keep_up, to_the_end
from flux.errors import DatabaseUnavailable
from flux.store._postgres import conninfo, unchecked_pool
from flux.store.database import Database, Steps, one
from flux.store.executions import CALLER

#: The lock under which the first process makes procrastinate's tables.
SCHEMA_LOCK = 0x666C7579
POLL_SECONDS = 0.5
#: A job that has not come after so many seconds is lost.
LOST_SECONDS = 3.0
#: Seconds that jobs get to notice that their worker leaves; their runs have a grace of their own.
LEAVE_SECONDS = 0.5
CONNECTIONS = 4
HEARD_SECONDS = 1.0
STOP_SECONDS = 5.0

HINT = """
select procrastinate_defer_jobs_v1(array[cast(
  row(cast(:pool as varchar), 'run', 0, null, null, jsonb_build_object('id', cast(:id as text)), null)
  as procrastinate_job_to_defer_v1)])"""

#: What a dead worker had fetched; its runs are found by the sweep.
TIDY = """
delete from procrastinate_jobs
where status not in ('todo', 'doing') or (status = 'doing' and worker_id is null)"""

logging.getLogger("procrastinate").setLevel(logging.CRITICAL)  # a put-back job is no error to it or to us


class _Leaving(Exception):
    """This process does not work any more; raised to put a job back."""


class _AtOnce(procrastinate.BaseRetryStrategy):
    """Put a job back without delay, as often as it takes."""

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> procrastinate.RetryDecision:
        """Now."""
        return procrastinate.RetryDecision(retry_in={"seconds": 0})


class ProcrastinateDispatch:
    """Dispatch between processes. What is admitted here runs here at once, if this process works too."""

    def __init__(self, database: Database, *, heartbeat: float, dead_after: float) -> None:
        self._database = database
        self._heartbeat = heartbeat
        self._dead_after = dead_after
        self._local = EmbeddedDispatch(database, LOST_SECONDS)

    async def open(self) -> ProcrastinateDispatch:
        """Make procrastinate's tables beside ours, if they are not there.

        :raises DatabaseUnavailable: the database does not answer
        """
        await self._database.write(_make_tables())
        return self

    def hint(self, id: str, pool: str) -> Steps[None]:
        """Write a job in the admitting transaction."""
        if pool != CALLER:  # nobody takes those but the process whose code it is
            yield HINT, {"id": id, "pool": pool}

    def nudge(self, id: str) -> None:
        """Run an execution here now, if this process works; else its job brings it to a worker."""
        self._local.nudge(id)

    def timers_changed(self) -> None:
        """Look at the timers again."""
        self._local.timers_changed()

    async def work(self, worker: Worker, duty: Duty) -> None:
        """Run what has work until cancelled, then let runs finish for a while."""
        local = asyncio.create_task(self._local.work(worker, duty), name="dispatch")
        fetching = asyncio.create_task(
            keep_up("no jobs are fetched", functools.partial(self._fetch, duty.pools, duty.concurrency)), name="jobs"
        )
        try:
            await asyncio.wait((local, fetching), return_when=asyncio.FIRST_COMPLETED)
        finally:
            local.cancel()  # first: what is put back by the other must not start here
            fetching.cancel()
            await asyncio.wait((local,))
            await _stop(fetching)

    async def _fetch(self, pools: Sequence[str], concurrency: int) -> None:
        """Run jobs until procrastinate's worker exits, as it does when its connection is lost."""
        app = self._app()
        try:
            await app.open_async()
            await self._database.write(one(TIDY))
            await app.run_worker_async(
                queues=[*pools, _QUEUE],
                concurrency=concurrency,
                fetch_job_polling_interval=POLL_SECONDS,
                shutdown_graceful_timeout=LEAVE_SECONDS,
                update_heartbeat_interval=self._heartbeat,
                stalled_worker_timeout=self._dead_after,
                delete_jobs="always",
                install_signal_handlers=False,
            )
        except procrastinate.exceptions.ProcrastinateException as error:
            raise DatabaseUnavailable(f"no jobs can be fetched: {error}", debug=repr(error)) from error
        finally:
            await to_the_end(app.close_async())  # also when it was stopped while it opened
        raise DatabaseUnavailable("the connection that brings jobs was lost")

    def _app(self) -> procrastinate.App:
        connector = procrastinate.PsycopgConnector(
            pool_factory=unchecked_pool, conninfo=conninfo(self._database.url), min_size=1, max_size=CONNECTIONS,
            configure=_configure,
        )  # fmt: skip
        app = procrastinate.App(connector=connector)

        @app.task(name="run", retry=_AtOnce())
        async def run(id: str) -> None:
            if not await self._local.run(id):
                raise _Leaving

        @app.periodic(cron="* * * * *")  # without a periodic task, nobody notices that LISTEN is dead
        @app.task(name="tidy", queue=_QUEUE)
        async def tidy(timestamp: int) -> None:
            await self._database.write(one(TIDY))

        return app


_QUEUE = "flux-upkeep"


async def _configure(connection: Any) -> None:
    """What becomes of a job is one statement, and need not be on disk: a job is a hint."""
    await connection.set_autocommit(True)
    await connection.execute("set synchronous_commit = off")


async def _stop(task: asyncio.Task[None]) -> None:
    """Wait for what was cancelled; again until it is heard: on Python 3.11 the pool's wait_for may lose a cancellation.

    Not again at once: that would cut off jobs which are just being finished.
    """
    await asyncio.wait((task,), timeout=HEARD_SECONDS)
    while not task.done():
        await asyncio.wait((task,), timeout=STOP_SECONDS)
        task.cancel()


def _make_tables() -> Steps[None]:
    yield "select pg_advisory_xact_lock(:lock)", {"lock": SCHEMA_LOCK}
    rows = yield "select to_regclass('procrastinate_jobs') is not null", {}
    if not rows[0][0]:
        for statement in _statements(procrastinate.schema.SchemaManager.get_schema()):
            yield statement, {}


def _statements(script: str) -> list[str]:
    """The statements of a script: text in dollars holds semicolons of its own."""
    parts = re.split(r"(\$\$.*?\$\$|--[^\n]*)", script, flags=re.DOTALL)
    whole = "".join(part.replace(";", "\0") if not part.startswith(("$$", "--")) else part for part in parts)
    return [text for text in map(str.strip, whole.split("\0")) if text]
