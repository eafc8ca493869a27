"""Running workflows inside a script: the engine in this process, on the configured database, without a server."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from flux.engine.configuration.configs import Configs
from flux.engine.configuration.key_source import KeySource
from flux.engine.configuration.secrets import Secrets
from flux.engine.dispatching.dispatch import Duty, Worker
from flux.engine.dispatching.pools import DEFAULT, Offer, resources_here
from flux.engine.dispatching.presence import presence
from flux.engine.encoding.values import encode_value
from flux.engine.intake.admission import Admission
from flux.engine.intake.answers import Decision
from flux.engine.intake.inputs import NewWorkflow
from flux.engine.running.recovery import Recovery, WorkerLock
from flux.engine.running.runner import Runner
from flux.engine.workflows import declared
from flux.engine.workflows.context import ExecutionContext
from flux.engine.workflows.declared import Declared
from flux.engine.workflows.execution import WorkflowExecutor
from flux.engine.workflows.journal import FOR_PEOPLE
from flux.engine.workflows.place import here
from flux.engine.workflows.services import Services
from flux.errors import ExecutionNotFound, InvalidInput, WorkflowNotFound
from flux.redaction import passwords_of
from flux.settings import Settings, load_settings
from flux.store import executions, interrupts, log
from flux.store.database import LOCAL, Database, Scope, Steps, one
from flux.store.executions import CALLER, Execution
from flux.store.feed import Feed
from flux.store.opening import open_database

logger = logging.getLogger(__name__)

#: What a script runs: what it has started itself, and what it is told to go on with.
POOLS = (CALLER, DEFAULT)


class LocalDispatch:
    """Runs what this process started, and nothing else."""

    def __init__(self) -> None:
        self.worker: Worker | None = None
        self.ids: set[str] = set()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()

    def hint(self, id: str, pool: str) -> Steps[None]:
        """Nothing: the process that admits is the process that works."""
        yield from ()

    def nudge(self, id: str) -> None:
        """Run an execution now, or tell its run that the log changed."""
        if self.worker is None:
            return
        self.ids.add(id)
        if id in self._tasks:
            self._again.add(id)
            self.worker.changed(id)
            return
        task = asyncio.create_task(self.worker.run(id), name=f"run {id}")
        self._tasks[id] = task
        task.add_done_callback(lambda _: self._finished(id))

    def timers_changed(self) -> None:
        """Who runs this looks at the timers whenever nothing runs."""

    async def work(self, worker: Worker, duty: Duty) -> None:
        """Nothing by itself."""

    async def until_nothing_runs(self) -> None:
        """Return when every execution rests."""
        while self._tasks:
            await asyncio.wait(list(self._tasks.values()))

    async def stop(self) -> None:
        """Hand back what still runs."""
        self.worker = None
        for task in self._tasks.values():
            task.cancel()
        await self.until_nothing_runs()

    def _finished(self, id: str) -> None:
        del self._tasks[id]
        if id in self._again:
            self._again.discard(id)
            self.nudge(id)


class Engine:
    """An open database and what runs workflows on it: `own` first of all, whatever else has its name by now."""

    def __init__(self, settings: Settings, database: Database, lock: WorkerLock, own: Declared) -> None:
        self._own = own
        self.database = database
        self.feed = Feed(database)
        self.dispatch = LocalDispatch()
        self.admission = Admission(database, self.feed, self.dispatch)
        secrets, configs = Secrets(database, KeySource.of(settings)), Configs(database)
        self.known = secrets.known
        self.known.add(settings.secret_key, *passwords_of(settings.database))
        self.services = Services(
            database, self._start_child, self._cancel_children, secrets.requested, configs.requested
        )
        executor = WorkflowExecutor(self._find_code, self.services, settings.run_failures)
        resources = resources_here()
        who = presence(lock.id, None, {}, resources, concurrency=1)
        offer = Offer(POOLS, resources)
        self.runner = Runner(database, self.feed, self.dispatch, {"workflow": executor}, who, offer)
        self.dispatch.worker = self.runner
        self.recovery = Recovery(
            database,
            self.dispatch,
            self.runner,
            lock,
            pools=POOLS,
            heartbeat=settings.heartbeat,
            dead_after=settings.dead_after,
        )

    async def start(self, workflow: Declared, input: Any) -> str:
        """Start an execution; returns its id."""
        new = NewWorkflow(workflow=workflow.qualified_name, input=encode_value(input), pool=CALLER)
        return (await self.admission.start_workflow(LOCAL, new)).id

    async def go_on(self, id: str, input: Any) -> None:
        """Answer the oldest open pause, if there is one."""
        asked = [one for one in await self.database.read(interrupts.list_open(LOCAL, id)) if one.kind == "pause"]
        if asked:
            decision = Decision("answer", content=encode_value(input))
            await self.admission.answer(LOCAL, id, asked[0].id, decision)

    async def row(self, id: str) -> Execution:
        """The row of an execution.

        :raises ExecutionNotFound: there is none
        """
        row = await self.database.read(executions.get(LOCAL, id))
        if row is None or row.kind != "workflow":
            raise ExecutionNotFound(f"there is no execution {id[:80]!r}")
        return row

    async def context(self, id: str) -> ExecutionContext[Any]:
        """An execution as it is now."""
        rows = await self.database.read(log.read(LOCAL, id))
        return ExecutionContext(await self.row(id), [row.stored() for row in rows])

    async def until_rest(self, id: str) -> ExecutionContext[Any]:
        """Run an execution, and those it starts or has started, until it ends or waits for a person."""
        await self._nudge_family(id)
        while True:
            await self.dispatch.until_nothing_runs()
            row = await self.row(id)
            if row.state == "ended" or (row.state == "waiting" and row.waiting_for in FOR_PEOPLE):
                return await self.context(id)
            if not await self._wake_next():
                return await self.context(id)

    async def _nudge_family(self, id: str) -> None:
        """Run an execution, and what its earlier process has started for it and left."""
        self.dispatch.nudge(id)
        for child in await self.database.read(executions.open_children(LOCAL, id)):
            if (await self.row(child)).pool == CALLER:
                await self._nudge_family(child)

    async def _wake_next(self) -> bool:
        """Wait for the next timer of ours; False: nothing will happen by itself."""
        rows = await self._rows()
        if any(row.state == "running" for row in rows):
            await self.recovery.sweep()  # a claim or a hand-back whose answer was lost
            rows = await self._rows()
        dues = [row.due for row in rows if row.state in ("waiting", "scheduled") and row.due is not None]
        if not dues:
            return False
        (now,), *_ = await self.database.read(one("select :now"))
        await asyncio.sleep(max(0.0, min(dues) - now))
        for row in rows:
            if row.due is not None and row.due <= min(dues):
                await self.database.write(executions.wake(row.id))
                self.dispatch.nudge(row.id)
        return True

    async def _rows(self) -> list[Execution]:
        return [await self.row(one) for one in self.dispatch.ids]

    async def _find_code(self, row: Execution) -> Declared:
        name = row.workflow or ""
        found = self._own if name == self._own.qualified_name else declared.find(name)
        if found is None:
            raise WorkflowNotFound(f"the workflow {name} is not in this program")
        return found

    async def _start_child(self, scope: Scope, workflow: str, input: Any, *, id: str, parent: str) -> None:
        if declared.find(workflow) is None:
            raise WorkflowNotFound(f"there is no workflow {workflow!r} in this program")
        new = NewWorkflow(workflow=workflow, input=input, pool=CALLER, id=id, parent=parent)
        await self.admission.start_workflow(scope, new)

    async def _cancel_children(self, scope: Scope, id: str) -> None:
        for child in await self.database.read(executions.open_children(scope, id)):
            await self.admission.cancel(scope, child)


@asynccontextmanager
async def _engine(own: Declared) -> AsyncIterator[Engine]:
    if here() is not None:
        raise InvalidInput("a workflow calls another one with `await call(workflow, input)`, not with run()")
    settings = load_settings(os.environ)
    database = await open_database(settings.database, synchronous=settings.synchronous)
    lock = WorkerLock(settings.home / "workers")
    engine = Engine(settings, database, lock, own)
    beating = asyncio.create_task(engine.recovery.keep_beating())
    try:
        await engine.recovery.sweep()  # what a dead process ran can go on here
        yield engine
    finally:
        await engine.dispatch.stop()
        beating.cancel()
        await asyncio.wait((beating,))
        await engine.recovery.leave()
        await engine.services.kept.close()
        await engine.feed.close()
        lock.release()
        await database.close()
        engine.known.forget()


async def run(workflow: Declared, input: Any, execution_id: str | None) -> ExecutionContext[Any]:
    """Run an execution of a workflow until it ends or pauses; see `workflow.run`."""
    async with _engine(workflow) as engine:
        if execution_id is None:
            return await engine.until_rest(await engine.start(workflow, input))
        row = await engine.row(execution_id)
        if row.state == "ended":
            return await engine.context(execution_id)
        if row.state == "waiting" and row.waiting_for == "pause":
            await engine.go_on(execution_id, input)
        return await engine.until_rest(execution_id)


async def resume(workflow: Declared, execution_id: str, input: Any, pause: str | None) -> ExecutionContext[Any]:
    """Answer a pause and run on; see `workflow.resume`."""
    async with _engine(workflow) as engine:
        row = await engine.row(execution_id)
        if row.state == "ended":
            return await engine.context(execution_id)
        await engine.admission.resume(LOCAL, execution_id, encode_value(input), pause)
        return await engine.until_rest(execution_id)
