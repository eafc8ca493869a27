"""One call of a task: its result from the journal, or from running it, with all that may go wrong."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Coroutine
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from flux import redaction
from flux.engine.encoding.values import decode_value, encode_value, json_value, reference_of
from flux.engine.workflows import approvals, cached
from flux.engine.workflows.journal import Journal
from flux.engine.workflows.options import Called, Function, TaskMetadata
from flux.engine.workflows.place import Body, Place, enter, leave
from flux.engine.workflows.storage import load_output, store_output
from flux.entries.workflows import (
    TaskCancelled,
    TaskCompleted,
    TaskEntry,
    TaskFailed,
    TaskFallbackCompleted,
    TaskFallbackFailed,
    TaskFallbackStarted,
    TaskRetryCompleted,
    TaskRetryFailed,
    TaskRetryStarted,
    TaskRollbackCompleted,
    TaskRollbackFailed,
    TaskRollbackStarted,
    TaskStarted,
)
from flux.errors import (
    ApprovalRejected,
    ExecutionError,
    ExecutionInterrupted,
    ExecutionSuspended,
    ExecutionTimeoutError,
    Fenced,
    ValueNotStorable,
    describe,
    error_tree,
)
from flux.tracing import span

#: Bytes of arguments and of errors on the way that are shown in the events of a task.
SHOWN_BYTES = 4_000


class _Tells(NamedTuple):
    """The entries that tell of a fallback or a rollback."""

    started: type[TaskEntry]
    completed: type[TaskEntry]
    failed: type[TaskEntry]


FALLBACK = _Tells(TaskFallbackStarted, TaskFallbackCompleted, TaskFallbackFailed)
ROLLBACK = _Tells(TaskRollbackStarted, TaskRollbackCompleted, TaskRollbackFailed)


class Call:
    """A call in its place. The same call in the same place is the same call after a crash."""

    def __init__(self, called: Called, journal: Journal, place: Place) -> None:
        self.called = called
        self.options = called.options
        self.journal = journal
        self.place = place
        self.id = place.mint(called.name, called.args, called.kwargs)

    async def result(self) -> Any:
        """What the call returns.

        :raises ExecutionError: it failed for good
        """
        done = self.journal.finished.get(self.id)
        if isinstance(done, TaskCompleted):
            if reference_of(done.value) is None:
                return decode_value(done.value)
            return await self.journal.outside(load_output(self.options.output_storage, done.value))
        if done is not None:
            raise failure_of(done)
        if self.journal.suspended:
            raise ExecutionSuspended
        body = Body(self.id, self.called.name, self.place.body)
        with self.journal.executing(body):
            return await self._perform(body)

    async def _perform(self, body: Body) -> Any:
        try:
            outcome = await _outcome(self._checked_run(body))
        except asyncio.CancelledError:
            if not self.journal.suspended:
                self.journal.note(self._entry(TaskCancelled))
            raise
        if outcome.error is None:
            value, encoded = outcome.value
            await self.journal.record(self._entry(TaskCompleted, encoded))
            return value
        error = outcome.error
        failed = error if isinstance(error, ExecutionError) else ExecutionError(error)
        await self.journal.record(failed_entry(self.id, self.called.name, failed))
        raise failed from failed.inner_exception

    async def _checked_run(self, body: Body) -> tuple[Any, Any]:
        self._check_interrupted()
        if self.options.requires_approval:
            await approvals.ask(self.journal, body, self.called)
        return await self._found_or_run(body)

    def _check_interrupted(self) -> None:
        if self.options.effect == "once" and self.id in self.journal.in_flight:
            raise ExecutionInterrupted(
                f"the worker stopped while {self.called.name} ran; its outcome is unknown, and it was not run again",
            )

    async def _found_or_run(self, body: Body) -> tuple[Any, Any]:
        if not self.options.cache:
            return await self._run(body)
        found = await cached.find(self.journal, self.called)
        if found is not None:
            return decode_value(found), found
        value, encoded = await self._run(body)
        await cached.remember(self.journal, self.called, encoded)
        return value, encoded

    async def _run(self, body: Body) -> tuple[Any, Any]:
        once = self.options.effect == "once"
        # One that acts at most once says so again when it goes on after what it waited for.
        if self.id not in (self.journal.in_flight if once else self.journal.started):
            started = TaskStarted(call=self.id, name=self.called.name, value=_shown(dict(self.called.arguments)))
            if once:
                await self.journal.record(started)
            else:
                self.journal.note(started)
        token = enter(self.place.inside(body))
        about = {"flux.task.name": self.called.name, "flux.task.id": self.id, "flux.execution.id": self.journal.run.id}
        try:
            with span(f"task {self.called.name}", about):
                value = await self._tries()
            encoded = await store_output(self.options.output_storage, f"{self.journal.run.id}/{self.id}", value)
            hidden = redaction.value(encoded)
            # The workflow goes on with what it would find after a crash, which holds no secret.
            return (value, encoded) if hidden == encoded else (decode_value(hidden), hidden)
        finally:
            leave(token)

    async def _tries(self) -> Any:
        tried = self.journal.failed_tries.get(self.id, 0)
        if tried:
            return await self._answer_failure(None, tried)
        outcome = await _outcome(self._timed())
        return outcome.value if outcome.error is None else await self._answer_failure(outcome.error, 0)

    async def _answer_failure(self, problem: Exception | None, tried: int) -> Any:
        """Retries, then the fallback, then the rollback and the failure."""
        if isinstance(problem, ApprovalRejected):
            raise problem
        for attempt in range(tried + 1, self.options.retry_max_attempts + 1):
            await asyncio.sleep(self.options.retry_delay * self.options.retry_backoff ** (attempt - 1))
            self.journal.note(self._entry(TaskRetryStarted, {"attempt": attempt}))
            outcome = await _outcome(self._timed())
            if outcome.error is None:
                self.journal.note(self._entry(TaskRetryCompleted, {"attempt": attempt}))
                return outcome.value
            problem, said = outcome.error, describe(outcome.error)
            await self.journal.record(self._entry(TaskRetryFailed, {"attempt": attempt, "error": said}))
        problem = problem or ExecutionError(f"{self.called.name} failed before its worker stopped")
        if self.options.fallback is not None:
            outcome = await self._instead(self.options.fallback, FALLBACK)
            if outcome.error is None:
                return outcome.value
            problem = outcome.error
        if self.options.rollback is not None:
            rolled = await self._instead(self.options.rollback, ROLLBACK)
            problem = rolled.error or problem
        raise problem

    async def _instead(self, function: Function, entries: _Tells) -> _Outcome:
        """Call the fallback or the rollback with the task's arguments."""
        self.journal.note(self._entry(entries.started))
        outcome = await _outcome(_called(function, self.called.args, self.called.kwargs))
        if outcome.error is None:
            self.journal.note(self._entry(entries.completed))
        else:
            self.journal.note(self._entry(entries.failed, describe(outcome.error)))
        return outcome

    async def _timed(self) -> Any:
        kwargs = {**self.called.kwargs, **await self._injected()}
        seconds = self.options.timeout
        if not seconds:
            return await _called(self.called.function, self.called.args, kwargs)
        try:
            async with asyncio.timeout(seconds) as limit:
                return await _called(self.called.function, self.called.args, kwargs)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise ExecutionTimeoutError(f"{self.called.name} took longer than its timeout of {seconds:g} s") from error

    async def _injected(self) -> dict[str, Any]:
        """The keyword arguments that the task asked its process for."""
        journal, scope = self.journal, self.journal.run.scope
        given: dict[str, Any] = {}
        if self.options.secret_requests:
            given["secrets"] = await journal.outside(journal.services.secrets(scope, self.options.secret_requests))
        if self.options.config_requests:
            given["config"] = await journal.outside(journal.services.configs(scope, self.options.config_requests))
        if self.options.metadata:
            given["metadata"] = TaskMetadata(self.id, self.called.name)
        return given

    def _entry(self, cls: type[TaskEntry], value: Any = None) -> TaskEntry:
        return cls(call=self.id, name=self.called.name, value=value)


class _Outcome(Struct, frozen=True):
    value: Any = None
    error: Exception | None = None


async def _outcome(work: Coroutine[Any, Any, Any]) -> _Outcome:
    """What work came to; that the workflow stops here is not an outcome."""
    try:
        return _Outcome(await work)
    except (ExecutionSuspended, Fenced):
        raise
    except Exception as error:  # noqa: BLE001 - whatever a task raises is its failure, which is answered and remembered
        return _Outcome(error=error)


async def _called(function: Function, args: Any, kwargs: Any) -> Any:
    value = function(*args, **kwargs)
    return await value if inspect.isawaitable(value) else value


def failed_entry(call: str, name: str, error: ExecutionError) -> TaskFailed:
    """The entry of a failure, from which the same exception is made again."""
    cause = error.inner_exception
    return TaskFailed(
        call=call,
        name=name,
        value=None if cause is None else encoded_error(cause),
        error=error.type,
        message=str(error),
    )


def failure_of(entry: TaskFailed) -> ExecutionError:
    """The exception of an entry."""
    cls = error_tree().get(entry.error, ExecutionError)
    cause = decode_value(entry.value) if entry.value is not None else None
    found = cls if issubclass(cls, ExecutionError) else ExecutionError
    return found(entry.message, inner_exception=cause if isinstance(cause, BaseException) else None)


def encoded_error(error: BaseException) -> Any:
    """An exception as a value; one that cannot be stored becomes its text."""
    try:
        return encode_value(error)
    except ValueNotStorable:
        return encode_value(RuntimeError(describe(error)))


def _shown(value: Any) -> Any:
    """Arguments as people see them, unless they are large or no JSON."""
    try:
        plain = json_value(value)
        return plain if len(msgspec.json.encode(plain)) <= SHOWN_BYTES else None
    except (ValueNotStorable, TypeError, ValueError, RecursionError):
        return None
