"""Several tasks: side by side, one after the other, and other workflows."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from flux.engine.encoding.values import decode_value, encode_value, json_value, reference_of
from flux.engine.workflows.calls import failed_entry, failure_of
from flux.engine.workflows.elsewhere import elsewhere
from flux.engine.workflows.journal import Journal, journal_here
from flux.engine.workflows.pause import has_ended
from flux.engine.workflows.place import Place, here
from flux.engine.workflows.storage import load_output
from flux.entries.workflows import TaskCompleted, TaskStarted, WorkflowCompleted, WorkflowFailed
from flux.errors import ExecutionSuspended, InvalidInput, WorkflowFailedError
from flux.store import log, waits


async def parallel(*awaitables: Awaitable[Any], max_concurrent: int | None = None) -> list[Any]:
    """Run awaitables side by side, at most `max_concurrent` at once; returns their results in order.

    The first failure cancels the others and comes out.
    """
    slots = asyncio.Semaphore(max_concurrent or len(awaitables) or 1)

    async def one(awaitable: Awaitable[Any]) -> Any:
        async with slots:
            return await awaitable

    tasks: list[asyncio.Task[Any]] = []
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(awaitable)) for awaitable in awaitables]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from failures.exceptions[0].__cause__
    return [task.result() for task in tasks]


async def pipeline(*tasks: Callable[[Any], Awaitable[Any]], input: Any) -> Any:
    """Give `input` to the first task, its result to the second, and so on; returns the last result."""
    value = input
    for step in tasks:
        value = await step(value)
    return value


async def call(workflow: Any, input: Any = None, mode: Literal["sync", "async"] = "sync") -> Any:
    """Run another workflow, given as "namespace/name" or as itself, as an execution of its own.

    Returns its output, or with mode "async" at once the id of its execution. An output that is kept elsewhere
    (`output_storage=`) is read from there when the workflow is given as itself; by name it is the reference.

    :raises WorkflowNotFound: there is no such workflow
    :raises WorkflowFailedError: it did not complete
    """
    journal, place = journal_here(), here()
    name = workflow if isinstance(workflow, str) else getattr(workflow, "qualified_name", None)
    if name is None:
        raise InvalidInput(f"call() takes a workflow or its name, not {type(workflow).__name__}")
    name = name if "/" in name else f"default/{name}"
    if mode not in ("sync", "async"):
        raise InvalidInput(f"the mode of call() must be sync or async, not {mode!r}")
    if (way := elsewhere()) is not None:
        return await way.ask("call", workflow=name, input=json_value(input), mode=mode)
    if journal is None or place is None:
        raise InvalidInput("call() works inside a workflow only; outside, use .run() of the workflow")
    encoded = await _Child(journal, place, name, input, mode).result()
    storage = getattr(workflow, "output_storage", None)
    if storage is None or reference_of(encoded) is None:
        return decode_value(encoded)
    return await journal.outside(load_output(storage, encoded))


class _Child:
    """A workflow that another one started. Its id comes from the call: it is started once."""

    def __init__(self, journal: Journal, place: Place, workflow: str, input: Any, mode: str) -> None:
        self._journal = journal
        self._place = place
        self._workflow = workflow
        self._input = input
        self._wait = mode == "sync"
        self._call = place.mint(f"call:{workflow}", (input, mode), {})
        self.id = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{journal.run.id}/{self._call}"))

    async def result(self) -> Any:
        """The form in the log of its output, or of its id where nobody waits."""
        journal = self._journal
        done = journal.finished.get(self._call)
        if isinstance(done, TaskCompleted):
            return done.value
        if done is not None:
            raise failure_of(done)
        if journal.suspended:
            raise ExecutionSuspended
        value = encode_value(self._input)
        run = journal.run
        await journal.outside(journal.services.start(run.scope, self._workflow, value, id=self.id, parent=run.id))
        if not self._wait:
            await journal.record(self._completed(self.id))
            return self.id
        if self._call not in journal.started:
            started = TaskStarted(call=self._call, name=self._name, value={"execution_id": self.id})
            await journal.record(started, also=waits.wait_for(run.scope, run.id, self.id))
        return await self._outcome()

    async def _outcome(self) -> Any:
        journal = self._journal
        if not await has_ended(journal, self.id):
            shown = {"name": self._name, "execution_id": self.id}
            await journal.park(self._call, self.id, "child", shown, None, self._place.body)
        end = await self._end()
        if isinstance(end, WorkflowCompleted):
            await journal.record(self._completed(end.value))
            return end.value
        cause = decode_value(end.value) if isinstance(end, WorkflowFailed) and end.value is not None else None
        said = end.message if isinstance(end, WorkflowFailed) else "it was cancelled"
        failed = WorkflowFailedError(
            f"{self._workflow} ({self.id}): {said}",
            inner_exception=cause if isinstance(cause, BaseException) else None,
        )
        await journal.record(failed_entry(self._call, self._name, failed))
        raise failed

    async def _end(self) -> Any:
        run = self._journal.run
        row = await self._journal.outside(run.database.read(log.last(run.scope, self.id)))
        return row.stored().entry if row else None

    @property
    def _name(self) -> str:
        return f"call:{self._workflow}"

    def _completed(self, value: Any) -> TaskCompleted:
        return TaskCompleted(call=self._call, name=self._name, value=value)
