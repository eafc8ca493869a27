"""Processes that run workflows of the test's own code on one database."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from flux.engine.dispatching.dispatch import Duty, EmbeddedDispatch
from flux.engine.encoding.values import encode_value
from flux.engine.intake.admission import Admission
from flux.engine.intake.answers import Decision
from flux.engine.intake.inputs import NewWorkflow
from flux.engine.running.runner import Runner
from flux.engine.service.executions import Executions, Found
from flux.engine.workflows import declared
from flux.engine.workflows.context import ExecutionContext
from flux.engine.workflows.execution import WorkflowExecutor
from flux.engine.workflows.services import Services
from flux.errors import FluxError, WorkflowNotFound
from flux.events import Entry, Stored
from flux.store import executions, log
from flux.store.database import LOCAL, Database, Scope
from flux.store.executions import Execution
from flux.store.feed import Feed
from flux.store.workers import Presence

GUARD = 20
RESTS = ("ended", "waiting")


class Machine:
    """One process. `values` are its secrets and configs."""

    def __init__(self, database: Database, values: dict[str, Any] | None = None) -> None:
        self.database = database
        self.feed = Feed(database)
        self.dispatch = EmbeddedDispatch(database)
        self.admission = Admission(database, self.feed, self.dispatch)
        self.executions = Executions(database, self.feed, self.admission, _find)
        self._values = values or {}
        self.services = services = Services(
            database, self.executions.start_child, self.executions.cancel_children, self._lookup, self._lookup
        )
        self.executor = WorkflowExecutor(_code, services, 3)
        self.runner = Runner(
            database, self.feed, self.dispatch, {"workflow": self.executor}, Presence(f"w-{uuid.uuid4()}")
        )

    async def _lookup(self, scope: Scope, names: Sequence[str]) -> dict[str, Any]:
        return {name: self._values[name] for name in names}

    async def start(self, workflow: Any, input: Any = None, **more: Any) -> str:
        """Start an execution; returns its id."""
        new = NewWorkflow(workflow=workflow.qualified_name, input=encode_value(input), **more)
        return (await self.admission.start_workflow(LOCAL, new)).id

    async def row(self, id: str) -> Execution:
        """The row of an execution."""
        row = await self.database.read(executions.get(LOCAL, id))
        assert row is not None
        return row

    async def entries(self, id: str) -> list[Stored]:
        """Its log."""
        return [row.stored() for row in await self.database.read(log.read(LOCAL, id))]

    async def context(self, id: str) -> ExecutionContext[Any]:
        """The execution as its starter sees it."""
        return ExecutionContext(await self.row(id), await self.entries(id))

    async def until(self, id: str, *states: str) -> ExecutionContext[Any]:
        """The execution once its row is in one of the states (default: at rest)."""
        async with asyncio.timeout(GUARD):
            async for _ in self.feed.follow(LOCAL, id):
                if (await self.row(id)).state in (states or RESTS):
                    return await self.context(id)
        raise AssertionError(id)

    async def run(self, workflow: Any, input: Any = None) -> ExecutionContext[Any]:
        """Run a workflow until it rests."""
        return await self.until(await self.start(workflow, input))

    async def resume(self, id: str, input: Any = None, pause: str | None = None) -> None:
        """Answer a pause."""
        await self.executions.resume(LOCAL, id, input, pause)

    async def decide(self, id: str, word: str, **more: Any) -> None:
        """Decide the oldest open approval."""
        asked = await self.executions.approvals(LOCAL, id, state="open", after=None, limit=50)
        await self.executions.decide(LOCAL, id, asked[-1].id, Decision(word, **more))

    async def copy(self, id: str, entries: Sequence[Entry], copy: str) -> str:
        """A new execution that has come as far as these entries, and lost its worker then."""
        row = await self.row(id)
        made = executions.create_workflow(
            LOCAL, id=copy, workflow=row.workflow or "", source_version=None, pool="default"
        )
        await self.database.write(made)
        await self.database.write(_written(copy, entries))
        return copy


def _written(id: str, entries: Sequence[Entry]) -> Any:
    yield "update executions set head = :head where id = :id", {"id": id, "head": len(entries)}
    yield from log.insert(id, entries, len(entries), id, 1)


async def _find(scope: Scope, workflow: str, version: int | None) -> Found:
    if declared.find(workflow) is None:
        raise WorkflowNotFound(f"there is no workflow {workflow!r}")
    return Found(workflow, None)


async def _code(row: Execution) -> Any:
    found = declared.find(row.workflow or "")
    if found is None:
        raise FluxError(f"the workflow {row.workflow} is not here")
    return found


@asynccontextmanager
async def working(database: Database, **more: Any) -> AsyncIterator[Machine]:
    """A process that works, until the context ends; then it leaves as at SIGTERM."""
    machine = Machine(database, **more)
    work = asyncio.create_task(machine.dispatch.work(machine.runner, Duty(pools=("default",), concurrency=64, grace=2)))
    try:
        yield machine
    finally:
        work.cancel()
        await asyncio.wait((work,))
        await machine.feed.close()
