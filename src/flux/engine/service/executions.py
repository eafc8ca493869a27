"""What may be done with executions: the service behind the routes of workflows."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from msgspec import Struct

from flux.engine.encoding.values import encode_value
from flux.engine.intake.admission import Admission
from flux.engine.intake.answers import Admitted, Decision
from flux.engine.intake.inputs import NewWorkflow
from flux.engine.workflows import history
from flux.errors import ExecutionNotFound, InterruptNotFound, SessionEnded
from flux.events import ChatResponse
from flux.store import executions, interrupts, log
from flux.store.database import Database, Scope, Steps, together
from flux.store.executions import Execution
from flux.store.feed import START, Cursor, Feed, Frame
from flux.store.interrupts import Interrupt
from flux.store.log import LogRow


class Found(Struct, frozen=True):
    """A workflow that can be started: its version in the catalogue, and where it runs."""

    workflow: str
    version: int | None
    pool: str = "default"
    requests: str | None = None


#: Finds a workflow by "namespace/name" and version (None: the newest); raises WorkflowNotFound.
FindWorkflow = Callable[[Scope, str, int | None], Awaitable[Found]]


class Executions:
    """Executions of workflows, and sessions seen as such. Every method finds only what is the caller's."""

    def __init__(self, database: Database, feed: Feed, admission: Admission, find: FindWorkflow) -> None:
        self._database = database
        self._feed = feed
        self._admission = admission
        self._find = find

    async def start(
        self, scope: Scope, workflow: str, input: Any, *, version: int | None = None, key: str | None = None
    ) -> Admitted:
        """Start an execution; `input` is plain JSON.

        :raises WorkflowNotFound: there is no such workflow, or no such version of it
        :raises IdempotencyMismatch: the key was used with another body
        """
        found = await self._find(scope, workflow, version)
        new = NewWorkflow(
            workflow=workflow,
            source_version=found.version,
            input=encode_value(input),
            pool=found.pool,
            requests=found.requests,
        )
        return await self._admission.start_workflow(scope, new, key=key, asked=version)

    async def start_child(self, scope: Scope, workflow: str, input: Any, *, id: str, parent: str) -> None:
        """Start an execution for another one, once per id; `input` is in the form of `encode_value`."""
        found = await self._find(scope, workflow, None)
        new = NewWorkflow(
            workflow=workflow,
            source_version=found.version,
            input=input,
            pool=found.pool,
            requests=found.requests,
            id=id,
            parent=parent,
        )
        await self._admission.start_workflow(scope, new)

    async def cancel_children(self, scope: Scope, id: str) -> None:
        """Ask the executions that one started to stop."""
        for child in await self._database.read(executions.open_children(scope, id)):
            await self._admission.cancel(scope, child)

    async def resume(
        self, scope: Scope, id: str, input: Any, pause: str | None = None, *, key: str | None = None
    ) -> Admitted:
        """Answer a pause with `input`, which is plain JSON.

        :raises ExecutionNotFound: there is none
        :raises ExecutionFinished: it has ended
        :raises NotPaused: it has no open pause of that name, or several and none is named
        """
        await self.get(scope, id)
        return await self._admission.resume(scope, id, encode_value(input), pause, key=key)

    async def cancel(self, scope: Scope, id: str) -> Admitted | None:
        """Ask an execution to stop; a session ends. None: nothing to stop.

        :raises ExecutionNotFound: there is none
        """
        row = await self.get(scope, id)
        if row.state == "ended":
            return None
        try:
            if row.agent is None:
                return await self._admission.cancel(scope, id)
            ended = await self._admission.end(scope, id)
            await self.cancel_children(scope, id)
            return ended
        except SessionEnded:  # meanwhile
            return None

    async def get(self, scope: Scope, id: str) -> Execution:
        """The row of an execution of this owner.

        :raises ExecutionNotFound: there is none
        """
        return _own(scope, id, await self._database.single(executions.get(scope, id)))

    async def summary(self, scope: Scope, id: str, *, detailed: bool = False) -> dict[str, Any]:
        """An execution as JSON, with its events if `detailed`.

        :raises ExecutionNotFound: there is none
        """
        row, found, asked = await self._database.read(_with_log(scope, id, detailed=detailed))
        entries = [one.stored() for one in found]
        return history.summary(_own(scope, id, row), entries, detailed=detailed, questions=asked)

    async def result(self, scope: Scope, id: str) -> dict[str, Any]:
        """The same as `summary`, cheaper where a workflow has ended: nothing moves there between two looks.

        :raises ExecutionNotFound: there is none
        """
        looked = together(executions.get(scope, id), log.read_types(scope, id, history.SUMMED_UP))
        row, found = await self._database.single(looked)
        row = _own(scope, id, row)
        if row.kind != "workflow" or row.state != "ended":
            return await self.summary(scope, id)
        return history.summary(row, [one.stored() for one in found], detailed=False, questions=[])

    async def questions(self, scope: Scope, id: str) -> list[Interrupt]:
        """The open questions of an execution and of what it drives.

        :raises ExecutionNotFound: there is none
        """
        await self.get(scope, id)
        return await self._database.read(interrupts.list_open(scope, id))

    async def page(
        self,
        scope: Scope,
        *,
        state: str | None = None,
        workflow: str | None = None,
        agent: str | None = None,
        after: tuple[float, str] | None = None,
        limit: int = 50,
    ) -> list[Execution]:
        """Executions of this owner, newest first; `state` in the words of users."""
        found = executions.list_executions(scope, workflow=workflow, agent=agent, state=state, after=after, limit=limit)
        return await self._database.scan(found)

    async def rename(self, scope: Scope, id: str, name: str) -> None:
        """Change the name people see.

        :raises ExecutionNotFound: there is none
        """
        await self.get(scope, id)
        await self._database.write(executions.set_title(scope, id, name))

    async def entries(self, scope: Scope, id: str, after: int, limit: int) -> list[LogRow]:
        """A page of the log.

        :raises ExecutionNotFound: there is none
        """
        await self.get(scope, id)
        return await self._database.read(log.read(scope, id, after, limit))

    def follow(self, scope: Scope, id: str, after: Cursor = START) -> AsyncGenerator[list[Frame], None]:
        """What happens in an execution behind a cursor, as it happens. The caller has checked access."""
        return self._feed.follow(scope, id, after)

    async def approvals(
        self, scope: Scope, id: str | None, *, state: str | None, after: tuple[float, str] | None, limit: int
    ) -> list[Interrupt]:
        """Approvals asked for, newest first: of one execution, or of all of this owner."""
        if id is not None:
            await self.get(scope, id)
        found = interrupts.list_approvals(scope, execution=id, state=state, after=after, limit=limit)
        return await self._database.read(found)

    async def decide(self, scope: Scope, id: str, interrupt: str, decision: Decision) -> Interrupt:
        """Approve or reject.

        :raises ExecutionNotFound, InterruptNotFound, InterruptDecided: there is no such open approval
        """
        await self.get(scope, id)
        await self._approval(scope, id, interrupt)
        await self._admission.answer(scope, id, interrupt, decision)
        return await self._approval(scope, id, interrupt)

    async def _approval(self, scope: Scope, id: str, interrupt: str) -> Interrupt:
        asked = await self._database.read(interrupts.get(scope, id, interrupt))
        if asked is None or asked.kind != "approval":
            raise InterruptNotFound(
                f"there is no approval {interrupt[:80]!r} in {id}; `flux execution approvals` shows those that are open"
            )
        return asked


def _with_log(
    scope: Scope, id: str, *, detailed: bool
) -> Steps[tuple[Execution | None, list[LogRow], list[Interrupt]]]:
    """A row, its log, and of a session what it asks, at the same moment.

    Of the log only what a summary needs, unless it is `detailed`.
    """
    row = yield from executions.get(scope, id)
    is_session = row is not None and row.kind == "session"
    asked = (yield from interrupts.list_open(scope, id)) if is_session else []
    if detailed:
        return row, (yield from log.read(scope, id)), asked
    found = yield from log.read_types(scope, id, history.SUMMED_UP)
    if is_session and (newest := (yield from log.newest(scope, id, ChatResponse))):
        found.append(newest)
    return row, found, asked


def _own(scope: Scope, id: str, row: Execution | None) -> Execution:
    if row is None or not scope.sees(row.owner, row.agent):
        raise ExecutionNotFound(f"there is no execution {id[:80]!r}; `flux execution list` shows those that exist")
    return row
