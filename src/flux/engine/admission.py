"""Everything that may happen to an execution from outside a run: start, admit, answer, cancel, end.

Each is one transaction: entries and state change together, or not at all.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from typing import Any, NoReturn

import msgspec
from msgspec import Struct

from flux.engine.dispatch import Dispatch
from flux.errors import (
    Conflict,
    InterruptDecided,
    InterruptNotFound,
    InvalidInput,
    SessionBusy,
    SessionEnded,
    SessionNotFound,
)
from flux.events import (
    Cancelled,
    CancelRequested,
    Entry,
    InterruptAnswered,
    Mode,
    SessionEndedEntry,
    SessionStarted,
    UserSaid,
)
from flux.messages import TextPart
from flux.store import admissions, executions, interrupts, log
from flux.store.database import Database, Row, Scope, Steps
from flux.store.executions import Execution
from flux.store.feed import Feed

TITLE_CHARS = 80

ADMIT = """
update executions set head = head + 1, updated = :now,
  due = case when state = 'idle' or (:wakes = 1 and state = 'waiting' and run_id is not null) then :now else due end,
  run_id = case when state = 'idle' then :run_id else run_id end,
  title = coalesce(title, cast(:title as text)),
  waiting_for = case when :wakes = 1 and state = 'waiting' and run_id is not null then null else waiting_for end,
  state = case when state = 'idle' or (:wakes = 1 and state = 'waiting' and run_id is not null)
    then 'scheduled' else state end
where id = :id and tenant = :tenant and driver is null and state <> 'ended' and (:mode <> 'reject' or state = 'idle')
returning head, epoch, state, run_id, pool"""

#: The head moves for an entry from outside; a waiting execution wakes.
WAKE = """
update executions set head = head + 1, updated = :now,
  due = case when state = 'waiting' then :now else due end,
  waiting_for = case when state = 'waiting' then null else waiting_for end,
  state = case when state = 'waiting' then 'scheduled' else state end
where id = :id and tenant = :tenant and driver is null and state <> 'ended'
  and (cast(:run_id as text) is null or run_id = :run_id)
returning head, epoch, state, run_id, pool"""

MOVE = "update executions set head = head + 1 where id = :id returning head"

END = """
update executions set head = head + 1, updated = :now, state = 'ended', outcome = 'cancelled', epoch = epoch + 1,
  worker = null, due = null, waiting_for = null
where id = :id and tenant = :tenant and driver is null and state <> 'ended'
returning head, epoch, run_id, turns"""

CLEAR_RUN = "update executions set head = head + 1, run_id = null where id = :id returning head"

#: The words that answer each kind of question.
DECISIONS = {
    "approval": ("approve", "reject"),
    "plan": ("approve", "reject"),
    "elicitation": ("accept", "decline", "cancel"),
    "input": ("answer",),
}


class NewMessage(Struct, frozen=True):
    """A message to admit. `options` are those of its run."""

    text: str
    mode: Mode = "queue"
    options: dict[str, Any] = {}


class Decision(Struct, frozen=True):
    """An answer to a question. `decision` is a word of its kind; `always` grants the tool for the session."""

    decision: str
    reason: str | None = None
    always: bool = False
    content: Any = None


class NewSession(Struct, frozen=True):
    """A session to start. `instance` None: a fresh one; `workspace` None: the worker's own directory."""

    agent: str
    definition_digest: str
    agent_version: int | None = None
    instance: str | None = None
    name: str = "default"
    workspace: str | None = None
    pool: str = "default"
    requests: str | None = None


class Admitted(Struct, frozen=True):
    """What was accepted: the execution, the seq of the newest entry, and whether it was accepted before."""

    id: str
    seq: int
    repeated: bool = False


_Written = tuple[Admitted, tuple[log.LogRow, ...]]


class Admission:
    """The door from outside into executions."""

    def __init__(self, database: Database, feed: Feed, dispatch: Dispatch) -> None:
        self._database = database
        self._feed = feed
        self._dispatch = dispatch

    async def start(
        self, scope: Scope, session: NewSession, message: NewMessage | None = None, *, key: str | None = None
    ) -> Admitted:
        """Start a session, with its first message if there is one.

        :raises SessionExists: an open session has this agent, instance and name
        :raises IdempotencyMismatch: the key was used with another body
        """
        # What the caller sent: the same request may come again after its agent has a new version.
        body = (session.agent, session.instance, session.name, session.workspace, message)
        return await self._commit(self._once(scope, key, body, _start(scope, session, message, self._dispatch)))

    async def admit(self, scope: Scope, id: str, message: NewMessage, *, key: str | None = None) -> Admitted:
        """Accept a message; it is in the log when this returns.

        :raises SessionNotFound, SessionEnded: it cannot take messages
        :raises SessionBusy: mode "reject", and the session is not idle
        :raises IdempotencyMismatch: the key was used with another body
        """
        return await self._commit(self._once(scope, key, (id, message), _admit(scope, id, message, self._dispatch)))

    async def answer(self, scope: Scope, id: str, interrupt: str, decision: Decision) -> Admitted:
        """Answer a question; the first answer wins, and repeating one's own winning answer is no error.

        :raises SessionNotFound, InterruptNotFound: there is no such question
        :raises InterruptDecided: it is closed
        :raises Conflict: the session is driven by another one, which is named
        """
        try:
            return await self._commit(_answer(scope, id, interrupt, decision, self._dispatch))
        except _AlreadyWon:
            row = await self._database.read(executions.get(scope, id))
            return Admitted(id, row.head if row else 0, repeated=True)

    async def cancel(self, scope: Scope, id: str) -> Admitted | None:
        """Ask the present run to stop; None when nothing runs. The session stays usable.

        :raises SessionNotFound, SessionEnded: there is nothing to cancel
        """
        row = _open(await self._database.read(executions.get(scope, id)))
        if row.run_id is None:
            return None
        return await self._commit(_cancel(scope, id, row.run_id, self._dispatch))

    async def end(self, scope: Scope, id: str, reason: str = "user_exit") -> Admitted:
        """End a session for good, whatever it is doing.

        :raises SessionNotFound, SessionEnded: there is no open session
        """
        return await self._commit(_end(scope, id, reason))

    async def _commit(self, program: Steps[_Written]) -> Admitted:
        admitted, rows = await self._database.write(program)
        self._feed.publish(admitted.id, rows)
        self._dispatch.nudge(admitted.id)
        return admitted

    def _once(self, scope: Scope, key: str | None, body: Any, program: Steps[_Written]) -> Steps[_Written]:
        """The program, unless its key was admitted before: then what it admitted."""
        if key is None:
            return (yield from program)
        digest = hashlib.sha256(msgspec.json.encode(body)).hexdigest()
        before = yield from admissions.claim(scope, key, digest)
        if before:
            return Admitted(before.execution_id, before.seq, repeated=True), ()
        admitted, rows = yield from program
        yield from admissions.record(scope, key, admitted.id, admitted.seq)
        return admitted, rows


def _start(scope: Scope, session: NewSession, message: NewMessage | None, dispatch: Dispatch) -> Steps[_Written]:
    id = str(uuid.uuid4())
    instance = session.instance or f"s-{id}"
    yield from executions.create_session(
        scope,
        id=id,
        agent=session.agent,
        agent_version=session.agent_version,
        definition_digest=session.definition_digest,
        instance=instance,
        name=session.name,
        pool=session.pool,
        requests=session.requests,
    )
    started = SessionStarted(
        agent=session.agent,
        agent_version=session.agent_version,
        definition_digest=session.definition_digest,
        instance=instance,
        name=session.name,
        workspace=session.workspace,
    )
    moved = yield WAKE, {"id": id, "tenant": scope.tenant, "run_id": None}
    rows = yield from _write(id, moved[0], [started])
    if message is None:
        return Admitted(id, moved[0][0]), rows
    admitted, more = yield from _admit(scope, id, message, dispatch)
    return admitted, rows + more


def _admit(scope: Scope, id: str, message: NewMessage, dispatch: Dispatch) -> Steps[_Written]:
    fresh = str(uuid.uuid4())
    moved = yield (
        ADMIT,
        {
            "id": id,
            "tenant": scope.tenant,
            "mode": message.mode,
            "wakes": int(message.mode == "interrupt"),
            "run_id": fresh,
            "title": _title(message.text),
        },
    )
    if not moved:
        row = _open((yield from executions.get(scope, id)))
        if row.driver is not None:
            raise Conflict(f"this session is driven by {row.root}; send the message there")
        raise SessionBusy("the session is working; wait for it, or send with mode queue, steer or interrupt")
    said: list[Entry] = [
        UserSaid(id=str(uuid.uuid4()), mode=message.mode, parts=(TextPart(message.text),), options=message.options)
    ]
    head, epoch, state, run_id, pool = moved[0]
    if message.mode == "interrupt" and run_id not in (None, fresh):
        said.insert(0, CancelRequested(run=run_id, by=scope.principal))
        head = (yield MOVE, {"id": id})[0][0]
    rows = yield from _write(id, (head, epoch, state, run_id, pool), said)
    if state == "scheduled":
        yield from dispatch.hint(id, pool)
    return Admitted(id, head), rows


def _answer(scope: Scope, id: str, interrupt: str, decision: Decision, dispatch: Dispatch) -> Steps[_Written]:
    asked = yield from interrupts.get(scope, id, interrupt)
    if asked is None:
        _open((yield from executions.get(scope, id)), ended_too=True)
        raise InterruptNotFound(f"session {id} has no question {interrupt}")
    if asked.root != id:
        raise Conflict(f"this session is driven by {asked.root}; answer there")
    _check_decision(asked.kind, decision)
    moved = yield WAKE, {"id": asked.root, "tenant": scope.tenant, "run_id": None}
    won = bool(moved) and (yield from interrupts.answer(scope, id, interrupt, answer=decision, by=scope.principal))
    if not won:
        now = yield from interrupts.get(scope, id, interrupt)
        _refuse(now or asked, decision, scope.principal)
    if decision.always and (asked.kind, decision.decision) == ("approval", "approve"):
        tool = msgspec.json.decode(asked.payload)["tool"]
        yield from interrupts.grant(scope, id, tool, scope.principal)
    entry = InterruptAnswered(
        id=interrupt,
        decision=decision.decision,
        by=scope.principal,
        reason=decision.reason,
        always=decision.always,
        content=decision.content,
    )
    rows = yield from _write(id, moved[0], [entry])
    yield from dispatch.hint(asked.root, moved[0][4])
    return Admitted(id, moved[0][0]), rows


def _check_decision(kind: str, decision: Decision) -> None:
    valid = DECISIONS.get(kind, ("answer",))
    if decision.decision not in valid:
        raise InvalidInput(f"decision must be one of {', '.join(valid)}, not {decision.decision!r}")


def _refuse(asked: interrupts.Interrupt, decision: Decision, by: str) -> NoReturn:
    """The question was not open. Raising undoes the transaction, also for a repeat of one's own answer."""
    mine = asked.state == "answered" and asked.answered_by == by
    if mine and asked.answer == msgspec.json.encode(decision).decode():
        raise _AlreadyWon()
    raise InterruptDecided(f"the question is {asked.state} already; nothing was changed", state=asked.state)


class _AlreadyWon(Exception):
    """One's own winning answer came again."""


def _cancel(scope: Scope, id: str, run: str, dispatch: Dispatch) -> Steps[_Written]:
    moved = yield WAKE, {"id": id, "tenant": scope.tenant, "run_id": run}
    if not moved:
        row = _open((yield from executions.get(scope, id)))
        if row.driver is not None:
            raise Conflict(f"this session is driven by {row.root}; cancel that one")
        return Admitted(id, row.head), ()
    rows = yield from _write(id, moved[0], [CancelRequested(run=run, by=scope.principal)])
    yield from dispatch.hint(id, moved[0][4])
    return Admitted(id, moved[0][0]), rows


def _end(scope: Scope, id: str, reason: str) -> Steps[_Written]:
    moved = yield END, {"id": id, "tenant": scope.tenant}
    if not moved:
        row = _open((yield from executions.get(scope, id)))
        raise Conflict(f"this session is driven by {row.root}; end that one")
    head, epoch, run_id, turns = moved[0]
    entries: list[Entry] = [SessionEndedEntry(reason=reason, turns=turns)]
    if run_id is not None:
        head = (yield CLEAR_RUN, {"id": id})[0][0]
        entries.insert(0, Cancelled())
    rows = yield from log.insert(id, entries, head, run_id, epoch)
    yield log.CLOSE_INTERRUPTS, {"id": id}
    yield executions.FENCE_CHILDREN, {"id": id}
    return Admitted(id, head), rows


def _write(id: str, moved: Row, entries: Sequence[Entry]) -> Steps[tuple[log.LogRow, ...]]:
    head, epoch, _, run_id, _ = moved
    return (yield from log.insert(id, entries, head, run_id, epoch))


def _open(row: Execution | None, *, ended_too: bool = False) -> Execution:
    if row is None:
        raise SessionNotFound()
    if row.state == "ended" and not ended_too:
        raise SessionEnded()
    return row


def _title(text: str) -> str | None:
    lines = (" ".join("".join(c if c.isprintable() else " " for c in line).split()) for line in text.splitlines())
    line = next(filter(None, lines), None)
    return line if line is None or len(line) <= TITLE_CHARS else line[: TITLE_CHARS - 1] + "…"
