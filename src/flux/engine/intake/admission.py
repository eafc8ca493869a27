"""Everything that may happen to an execution from outside a run: start, admit, answer, cancel, end.

Each is one transaction: entries and state change together, or not at all.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from flux.engine.dispatching.dispatch import Dispatch
from flux.engine.dispatching.limits import UNLIMITED, Crowd, Limits
from flux.engine.intake.admitting import Unmade, admit_steps, reach_steps, start_session_steps, start_workflow_steps
from flux.engine.intake.answers import (
    Admitted,
    AlreadyWon,
    Decision,
    Won,
    Written,
    answer_steps,
    open_row,
    resume_steps,
    write_entries,
)
from flux.engine.intake.inputs import NewCompaction, NewMessage, NewSession, NewWorkflow
from flux.errors import Conflict, SessionExists
from flux.events import Cancelled, CancelRequested, Entry, SessionEndedEntry
from flux.store import admissions, audit, driven, executions, log, waits, webhooks
from flux.store.database import Database, Scope, Steps
from flux.store.feed import Feed
from flux.store.waits import Woken

#: What was written to logs, by the id of the execution.
Told = dict[str, tuple[log.LogRow, ...]]

END = """
update executions set head = head + 1, updated = :now, state = 'ended', outcome = 'cancelled', epoch = epoch + 1,
  worker = null, due = null, waiting_for = null
where id = :id and tenant = :tenant and driver is null and state <> 'ended'
returning head, epoch, run_id, turns"""

CLEAR_RUN = "update executions set head = head + 1, run_id = null where id = :id returning head"


class Admission:
    """The door from outside into executions."""

    def __init__(self, database: Database, feed: Feed, dispatch: Dispatch, limits: Limits = UNLIMITED) -> None:
        self._limits = limits
        self._crowd = Crowd(database, limits)
        self._database = database
        self._feed = feed
        self._dispatch = dispatch

    async def start(
        self, scope: Scope, session: NewSession, message: NewMessage | None = None, *, key: str | None = None
    ) -> Admitted:
        """Start a session, with its first message if there is one.

        :raises SessionExists: an open session has this agent, instance and name
        :raises TooManyRequests: a limit is reached
        :raises IdempotencyMismatch: the key was used with another body
        """
        body = _start_body(session, message)
        await self._crowd.check()
        return await self.once(
            scope, key, body, start_session_steps(scope, session, message, self._dispatch, self._limits)
        )

    async def start_workflow(
        self, scope: Scope, new: NewWorkflow, *, key: str | None = None, asked: int | None = None
    ) -> Admitted:
        """Start an execution of a workflow; `asked` is the version that the caller named.

        :raises IdempotencyMismatch: the key was used with another body
        """
        # What the caller sent: the same request may come again after its workflow has a new version.
        body = (new.workflow, new.input, new.id, asked)
        await self._crowd.check()
        fresh = str(uuid.uuid4())
        self._feed.expect(fresh)
        program = start_workflow_steps(scope, new, self._dispatch, self._limits, fresh)
        if key is None and new.id is None and not self._limits.runs:
            return self._shown(await self._database.write_one(program))
        return await self.once(scope, key, body, program)

    async def started(
        self, scope: Scope, session: NewSession, message: NewMessage | None, *, key: str
    ) -> Admitted | None:
        """What the same `start` admitted before under this key; None when it is the first.

        :raises IdempotencyMismatch: the key was used with another body
        """
        return await self.before(scope, key, _start_body(session, message))

    async def admit(
        self, scope: Scope, id: str, message: NewMessage | NewCompaction, *, key: str | None = None
    ) -> Admitted:
        """Accept a message, or a request to summarise the history; it is in the log when this returns.

        :raises SessionNotFound, SessionEnded: it cannot take messages
        :raises SessionBusy: mode "reject", and the session is not idle
        :raises TooManyRequests: a limit is reached
        :raises IdempotencyMismatch: the key was used with another body
        """
        await self._crowd.check()
        program = admit_steps(scope, id, message, self._dispatch, self._limits)
        return await self.once(scope, key, (id, message), program)

    async def reach(
        self,
        scope: Scope,
        session: NewSession,
        message: NewMessage,
        history: Callable[[], Awaitable[log.History]],
        *,
        key: str | None = None,
    ) -> Admitted:
        """Give the open session of an agent, an instance and a name a message.

        If there is none it is made; `history` is asked then what it begins with.

        :raises SessionBusy: mode "reject", and the session is not idle
        :raises TooManyRequests: a limit is reached
        :raises IdempotencyMismatch: the key was used with another body
        """
        await self._crowd.check()
        body = ("reach", session.agent, session.instance, session.name, message)
        begins, met = None, False
        while True:
            program = reach_steps(scope, session, message, self._dispatch, self._limits, begins)
            try:
                return await self.once(scope, key, body, program)
            except Unmade:
                begins = await history()
            except SessionExists:  # made by another request meanwhile, or somebody else's
                if met:
                    raise
                met = True

    async def answer(self, scope: Scope, id: str, interrupt: str, decision: Decision) -> Admitted:
        """Answer a question; the first answer wins, and repeating one's own winning answer is no error.

        :raises SessionNotFound, InterruptNotFound: there is no such question
        :raises InterruptDecided: it is closed
        """
        told: Told = {}
        try:
            answered = await self._commit(_noted(answer_steps(scope, id, interrupt, decision, self._dispatch), told))
        except AlreadyWon:
            row = await self._database.read(executions.get(scope, id))
            return Admitted(id, row.head if row else 0, repeated=True)
        self._show(told)
        return answered

    async def resume(
        self, scope: Scope, id: str, input: Any, pause: str | None = None, *, key: str | None = None
    ) -> Admitted:
        """Answer the open pause of that name, or the only one, with `input` in the form of `encode_value`.

        :raises ExecutionFinished: it has ended
        :raises NotPaused: there is none, or several and none is named
        :raises IdempotencyMismatch: the key was used with another body
        """
        told: Told = {}
        program = _noted(resume_steps(scope, id, input, pause, self._dispatch), told)
        resumed = await self.once(scope, key, (id, input, pause), program)
        self._show(told)
        return resumed

    async def cancel(self, scope: Scope, id: str) -> Admitted | None:
        """Ask the present run to stop; None when nothing runs. The session stays usable.

        :raises SessionNotFound, SessionEnded: there is nothing to cancel
        """
        row = open_row(await self._database.read(executions.get(scope, id)))
        if row.run_id is None:
            return None
        return await self._commit(_cancel(scope, id, row.run_id, self._dispatch))

    async def end(self, scope: Scope, id: str, reason: str = "user_exit") -> Admitted:
        """End a session for good, whatever it is doing.

        :raises SessionNotFound, SessionEnded: there is no open session
        """
        woken: list[Woken] = []
        told: Told = {}
        ended = await self._commit(_end(scope, id, reason, self._dispatch, woken, told))
        self._feed.on_hooked()
        tell(self._feed, self._dispatch, woken)
        self._show(told)
        return ended

    async def once(self, scope: Scope, key: str | None, body: Any, program: Steps[Written]) -> Admitted:
        """Commit what is accepted from outside, unless its key was used before: then what that admitted.

        :raises IdempotencyMismatch: the key was used with another `body`
        """
        return await self._commit(self._once(scope, key, body, program))

    async def before(self, scope: Scope, key: str, body: Any) -> Admitted | None:
        """What a key admitted before; None when it was not used.

        :raises IdempotencyMismatch: it was used with another `body`
        """
        found = await self._database.read(admissions.find(scope, key, _digest(body)))
        return Admitted(found.execution_id, found.seq, repeated=True) if found else None

    async def _commit(self, program: Steps[Written]) -> Admitted:
        return self._shown(await self._database.write(program))

    def _shown(self, written: Written) -> Admitted:
        admitted, rows = written
        self._feed.publish(admitted.id, rows)
        self._dispatch.nudge(admitted.id)
        return admitted

    def _show(self, told: Told) -> None:
        for id, rows in told.items():
            self._feed.publish(id, rows)

    def _once(self, scope: Scope, key: str | None, body: Any, program: Steps[Written]) -> Steps[Written]:
        """The program, unless its key was admitted before: then what it admitted."""
        if key is None:
            return (yield from program)
        before = yield from admissions.claim(scope, key, _digest(body))
        if before:
            return Admitted(before.execution_id, before.seq, repeated=True), ()
        admitted, rows = yield from program
        yield from admissions.record(scope, key, admitted.id, admitted.seq)
        return admitted, rows


def _start_body(session: NewSession, message: NewMessage | None) -> tuple[Any, ...]:
    """What the caller sent: the same request may come again after its agent has a new version."""
    return session.agent, session.instance, session.name, session.workspace, message


def _digest(body: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(body)).hexdigest()


def _cancel(scope: Scope, id: str, run: str, dispatch: Dispatch) -> Steps[Written]:
    moved = yield executions.WAKE, {"id": id, "tenant": scope.tenant, "run_id": run}
    if not moved:
        row = open_row((yield from executions.get(scope, id)))
        if row.driver is not None:
            raise Conflict(f"this session is driven by {row.root}; cancel that one")
        return Admitted(id, row.head), ()
    rows = yield from write_entries(id, moved[0], [CancelRequested(run=run, by=scope.principal)])
    yield from audit.record(scope, "execution.cancel", id, {"run": run})
    yield from dispatch.hint(id, moved[0][4])
    return Admitted(id, moved[0][0]), rows


def _noted(program: Steps[Won], told: Told) -> Steps[Written]:
    """The program of an answer; `told` gets what was written to other logs than that of the root."""
    won = yield from program
    rows = dict(won.rows)
    own = rows.pop(won.admitted.id)
    told.update(rows)
    return won.admitted, own


def _end(scope: Scope, id: str, reason: str, dispatch: Dispatch, woken: list[Woken], told: Told) -> Steps[Written]:
    moved = yield END, {"id": id, "tenant": scope.tenant}
    if not moved:
        row = open_row((yield from executions.get(scope, id)))
        raise Conflict(f"this session is driven by {row.root}; end that one")
    head, epoch, run_id, turns = moved[0]
    yield from audit.record(scope, "session.end", id, {"reason": reason})
    entries: list[Entry] = [SessionEndedEntry(reason=reason, turns=turns)]
    if run_id is not None:
        head = (yield CLEAR_RUN, {"id": id})[0][0]
        entries.insert(0, Cancelled())
    rows = yield from log.insert(id, entries, head, run_id, epoch)
    yield log.CLOSE_INTERRUPTS, {"id": id}
    if run_id is not None:
        yield from webhooks.note_end(scope, id, run_id, head, Cancelled())
    told |= yield from driven.end_all(id, "cancelled", reason)
    woken += yield from wake_waiters(scope, id, "cancelled", dispatch)
    return Admitted(id, head), rows


def wake_waiters(scope: Scope, id: str, outcome: str, dispatch: Dispatch) -> Steps[tuple[Woken, ...]]:
    """Wake everybody who waits for an execution, in the transaction that ends it; `tell` them after the commit."""
    woken = yield from waits.release(scope.tenant, id, outcome)
    for waiter in woken:
        yield from dispatch.hint(waiter.id, waiter.pool)
    return woken


def tell(feed: Feed, dispatch: Dispatch, woken: Sequence[Woken]) -> None:
    """Show waiters what was written to their logs."""
    for waiter in woken:
        for id, rows in waiter.rows.items():
            feed.publish(id, rows)
        dispatch.nudge(waiter.id)
