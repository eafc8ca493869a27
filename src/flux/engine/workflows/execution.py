"""Running a workflow: its function from the top, with the results the journal remembers."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from flux.engine.running.run import HandOver, Refused, Run
from flux.engine.workflows.calls import encoded_error
from flux.engine.workflows.context import ExecutionContext, set_context
from flux.engine.workflows.conversation import Conversation, Step
from flux.engine.workflows.declared import Declared
from flux.engine.workflows.journal import Journal, Parked, names_of, set_journal, writing
from flux.engine.workflows.place import count_branches, enter
from flux.engine.workflows.services import Services
from flux.engine.workflows.storage import store_output
from flux.entries.base import Entry
from flux.entries.workflows import (
    WorkflowCancelled,
    WorkflowClaimed,
    WorkflowCompleted,
    WorkflowEnd,
    WorkflowFailed,
    WorkflowPaused,
    WorkflowResumed,
    WorkflowStarted,
)
from flux.errors import DatabaseLocked, DatabaseUnavailable, Fenced, FluxError, describe
from flux.events import CancelRequested, Stored
from flux.store import driven, executions
from flux.store.log import Then
from flux.tracing import span

logger = logging.getLogger(__name__)

#: A workflow whose wait is this short stays in memory. Seconds.
KEEP_SECONDS = 1.0
#: Why a run failed that could not say it.
STOPPED = "its worker stopped while it ran; see the worker's log"
#: Seconds that the code of a cancelled workflow has to clean up.
CANCEL_SECONDS = 10.0

FindCode = Callable[[executions.Execution], Awaitable[Declared]]
Others = Callable[[executions.Execution], Awaitable[bool]]


async def has_no_others(row: executions.Execution) -> bool:
    """This process is the only one that might run it."""
    return False


class WorkflowExecutor:
    """Runs executions of workflows; after `failures` without progress one fails.

    `others` says whether other workers might run an execution that this one cannot.
    """

    def __init__(self, find_code: FindCode, services: Services, failures: int, others: Others = has_no_others) -> None:
        self._find_code = find_code
        self._services = services
        self._failures = failures
        self._others = others

    async def __call__(self, run: Run) -> None:
        """Run a workflow until it ends or waits."""
        journal = Journal(run, self._services)
        await journal.catch_up()
        if run.failures >= self._failures:
            await _give_up(journal, run.failures, run.execution.last_error or STOPPED)
            return
        try:
            code = await self._find_code(run.execution)
        except (DatabaseLocked, DatabaseUnavailable):
            raise  # it may be a good source
        except FluxError as error:
            if run.failures + 1 < self._failures and await self._others(run.execution):
                raise Refused(str(error)) from error
            await _give_up(journal, run.failures + 1, str(error))
            return
        await _Running(journal, code).until_rest()


class _Running:
    """One workflow while it runs here."""

    def __init__(self, journal: Journal, code: Declared) -> None:
        self._journal = journal
        self._run = journal.run
        self._code = code
        self._context: ExecutionContext[Any] = ExecutionContext(journal.run.execution, journal.log)
        self._talk = Conversation(journal) if journal.talks else None
        self._cancelled = any(self._is_cancel(stored) for stored in journal.log)

    async def until_rest(self) -> None:
        journal = self._journal
        journal.note(*self._beginning())
        given = await self._given()
        row = self._run.execution
        about = {
            "flux.workflow.name": row.workflow,
            "flux.execution.id": row.id,
            "flux.workflow.version": row.source_version,
        }
        with span(f"workflow {row.workflow}", about):
            async with writing(journal) as writer:
                main = self._start(given)
                try:
                    await self._watch(main, writer)
                finally:
                    journal.suspended = True
                    await stop(main)

    def _beginning(self) -> list[Entry]:
        log = self._journal.log
        before = [stored.entry for stored in log]
        entries: list[Entry] = [WorkflowClaimed(worker=self._run.execution.worker or "")]
        if not any(isinstance(entry, WorkflowStarted) for entry in before):
            return [*entries, WorkflowStarted()]
        transitions = [entry for entry in before if isinstance(entry, WorkflowPaused | WorkflowResumed)]
        return [*entries, WorkflowResumed()] if transitions and isinstance(transitions[-1], WorkflowPaused) else entries

    async def _given(self) -> dict[str, Any]:
        """The keyword arguments that the workflow asked its process for."""
        names = self._code.secret_requests
        if not names:
            return {}
        return {"secrets": await self._journal.services.secrets(self._run.scope, names)}

    def _start(self, given: dict[str, Any]) -> asyncio.Task[Any]:
        loop = asyncio.get_running_loop()
        count_branches(loop)
        context = contextvars.copy_context()
        context.run(set_journal, self._journal)
        context.run(set_context, self._context)
        context.run(enter, self._journal.root())
        return loop.create_task(
            _called(self._code, self._context, given), context=context, name=f"workflow {self._run.id}"
        )

    async def _watch(self, main: asyncio.Task[Any], writer: asyncio.Task[None]) -> None:
        run, journal = self._run, self._journal
        if self._cancelled:
            main.cancel()
        while True:
            await first_of(main, writer, journal.quiet, run.changed, run.draining, timeout=self._seconds_to_timer())
            if writer.done():
                writer.result()
            if self._cancelled:
                return await self._cancel(main)
            if main.done():
                return await self._end(main)
            if run.draining.is_set():
                return await self._hand_over(main, writer)
            if run.changed.is_set():
                run.changed.clear()
                if await self._look():
                    main.cancel()
                continue
            journal.ring()
            if journal.quiet.is_set() and await self._put_away():
                return None

    async def _look(self) -> bool:
        """Somebody else wrote to the log. True: somebody asks to cancel."""
        run = self._run
        row = await run.database.read(executions.get(run.scope, run.id))
        if row is None or row.epoch != run.epoch or row.state != "running":
            raise Fenced(debug=f"{run.id} left epoch {run.epoch}")
        found = await self._journal.catch_up()
        self._cancelled = self._cancelled or any(self._is_cancel(stored) for stored in found)
        return self._cancelled

    def _is_cancel(self, stored: Stored) -> bool:
        return isinstance(stored.entry, CancelRequested) and stored.entry.run == self._run.run_id

    def _seconds_to_timer(self) -> float | None:
        due = self._journal.next_due
        return None if due is None else max(0.0, due - self._journal.now())

    async def _put_away(self) -> bool:
        """Wait without memory. False: something came meanwhile, or comes so soon that it is not worth it."""
        journal = self._journal
        journal.quiet.clear()
        due = journal.next_due
        if due is not None and due - journal.now() < KEEP_SECONDS:
            return False
        await journal.flush()
        await journal.catch_up()
        if not journal.parked:
            return False
        parked = list(journal.parked.values())
        step = self._talk.next_step(parked) if self._talk else None
        entries, then = step or _paused(parked, due)
        if await self._run.append(*entries, seen=None if _ends(then) else journal.head, then=then) and then:
            return True
        await self._look()
        if then is not None:
            journal.note(WorkflowResumed())
        journal.look_for_quiet()
        return False

    async def _end(self, main: asyncio.Task[Any]) -> None:
        error = None if main.cancelled() else main.exception()
        if main.cancelled():
            return await self._leave(WorkflowFailed(message="the workflow cancelled itself"))
        if error is None:
            kept = asyncio.ensure_future(
                store_output(self._code.output_storage, f"{self._run.id}/output", main.result())
            )
            await asyncio.wait((kept,))
            error = kept.exception()
        if error is None:
            return await self._leave(WorkflowCompleted(value=kept.result()))
        logger.info("workflow %s failed", self._run.id, exc_info=error)
        await self._leave(WorkflowFailed(message=describe_failure(error), value=encoded_error(error)))

    async def _leave(self, end: WorkflowEnd) -> None:
        outcome = {WorkflowCompleted: "completed", WorkflowFailed: "failed"}.get(type(end), "cancelled")
        entries = await self._journal.rest()
        ends = self._talk.farewell(end) if self._talk else [end]
        await self._run.append(*entries, *ends, then=Then("ended", outcome=outcome))

    async def _cancel(self, main: asyncio.Task[Any]) -> None:
        """Let the code clean up, then stop its children and end."""
        main.cancel()
        await asyncio.wait((main,), timeout=CANCEL_SECONDS)
        self._journal.suspended = True
        await stop(main)
        await self._journal.services.cancel_children(self._run.scope, self._run.id)
        if self._talk is None:
            return await self._leave(WorkflowCancelled())
        return await self._stop_run(self._talk)

    async def _stop_run(self, talk: Conversation) -> None:
        """The session goes on: the workflow stands where it was before the message of this run.

        :raises HandOver: a message waits for the next run, which begins from the top
        """
        entries = await self._journal.rest()
        stopped, then = talk.stopped()
        stopping = driven.stop_all(self._run.id)
        if (
            not await self._run.append(*entries, *stopped, also=stopping, seen=self._journal.head, then=then)
            or not then
        ):
            raise HandOver

    async def _hand_over(self, main: asyncio.Task[Any], writer: asyncio.Task[None]) -> None:
        """Let tasks that are at work finish, begin nothing, and leave the rest to another worker."""
        self._journal.suspended = True
        while self._journal.at_work and not (main.done() or writer.done()):
            await asyncio.wait((main, writer), timeout=0.05, return_when=asyncio.FIRST_COMPLETED)
        await self._journal.flush()
        raise HandOver


def _paused(parked: list[Parked], due: float | None) -> Step:
    kind = names_of(parked)
    shown = [one.value for one in parked if one.waiting_for == kind]
    paused = WorkflowPaused(waiting_for=kind, value=shown[0] if len(shown) == 1 else {"open": shown})
    return [paused], Then("waiting", due, kind)


def _ends(then: Then | None) -> bool:
    return then is not None and then.state == "ended"


async def _give_up(journal: Journal, failures: int, reason: str) -> None:
    message = f"given up after {failures} failures in a row: {reason}" if failures > 1 else f"given up: {reason}"
    end = WorkflowFailed(message=message)
    ends = Conversation(journal).farewell(end) if journal.talks else [end]
    await journal.run.append(*ends, then=Then("ended", outcome="failed"))


async def _called(code: Declared, context: ExecutionContext[Any], given: dict[str, Any]) -> Any:
    return await code(context, **given)


async def first_of(
    main: asyncio.Task[Any], writer: asyncio.Task[None], *events: asyncio.Event, timeout: float | None
) -> None:
    """Return when the first of them is done or set, or time is over."""
    await asyncio.sleep(0)  # code that waits for nothing is done after one step
    if main.done() or any(event.is_set() for event in events):
        return
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait((main, writer, *waits), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


async def stop(main: asyncio.Task[Any]) -> None:
    """Cancel the code; what it raises now counts for nothing."""
    main.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.wait((main,), timeout=CANCEL_SECONDS)
    if main.done() and not main.cancelled():
        main.exception()


def describe_failure(error: BaseException) -> str:
    """Why a workflow failed, in one line."""
    return str(error) if isinstance(error, FluxError) else describe(error)
