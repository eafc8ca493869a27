"""The programs that start an execution or give it something to do, each a part of one transaction."""

from __future__ import annotations

import uuid
from typing import Any

from flux import redaction
from flux.engine.dispatching.dispatch import Dispatch
from flux.engine.dispatching.limits import UNLIMITED, Limits, check_runs, full
from flux.engine.dispatching.pools import check_tenant
from flux.engine.intake.answers import Admitted, Written, open_row, write_entries
from flux.engine.intake.inputs import NewCompaction, NewMessage, NewSession, NewWorkflow
from flux.entries.workflows import WorkflowScheduled
from flux.errors import Conflict, SessionBusy
from flux.events import CancelRequested, Entry, SessionStarted
from flux.store import audit, callers, conversations, executions, log
from flux.store.database import Scope, Steps, together

TITLE_CHARS = 80

#: Nothing is done but to wait for a message; a workflow that talks may wait for a time besides.
RESTS = "(state = 'idle' or (state = 'waiting' and waiting_for = 'message'))"
WAKES = f"({RESTS} or (:wakes = 1 and state = 'waiting' and run_id is not null))"

ADMIT = f"""
update executions set head = head + 1, updated = :now, queued = queued + 1,
  due = case when {WAKES} then :now else due end,
  run_id = case when {RESTS} then :run_id else run_id end,
  title = coalesce(title, cast(:title as text)),
  waiting_for = case when {WAKES} then null else waiting_for end,
  state = case when {WAKES} then 'scheduled' else state end
where id = :id and tenant = :tenant and driver is null and state <> 'ended' and (:mode <> 'reject' or {RESTS})
  and (:most = 0 or queued < :most or {RESTS})
returning head, epoch, state, run_id, pool"""  # noqa: S608 - of constants

MOVE = "update executions set head = head + 1 where id = :id returning head"


def start_workflow_steps(
    scope: Scope, new: NewWorkflow, dispatch: Dispatch, limits: Limits = UNLIMITED, fresh: str | None = None
) -> Steps[Written]:
    """The program that starts an execution of a workflow: its row, its first entry, and a hint.

    `fresh`: the id to give it unless `new` has one.

    :raises TooManyRequests: a limit is reached; nothing was written
    :raises InvalidInput: it is for the workers of another tenant; nothing was written
    """
    check_tenant(new.pool, scope.tenant)
    id = new.id or fresh or str(uuid.uuid4())
    made = executions.create_workflow(
        scope,
        id=id,
        workflow=new.workflow,
        source_version=new.source_version,
        pool=new.pool,
        requests=new.requests,
        parent=new.parent,
    )
    scheduled = WorkflowScheduled(workflow=new.workflow, input=new.input, source_version=new.source_version)
    rest: list[Steps[Any]] = [log.insert(id, [scheduled], 1, id, 0), dispatch.hint(id, new.pool)]
    if new.parent is None:
        rest.append(audit.record(scope, "execution.start", id, {"workflow": new.workflow}))
    if new.id is None:  # a fresh one is nobody else's
        _, rows, *_ = yield from together(made, *rest)
    elif (yield from made):
        rows, *_ = yield from together(*rest)
    else:
        return Admitted(id, 1, repeated=True), ()
    yield from check_runs(scope, limits.runs)
    return Admitted(id, 1), rows


class Unmade(Exception):
    """There is no session of that name yet. Raised to undo: what it is to begin with has to be asked for first."""


def start_session_steps(
    scope: Scope,
    session: NewSession,
    message: NewMessage | None,
    dispatch: Dispatch,
    limits: Limits = UNLIMITED,
    history: log.History | None = None,
) -> Steps[Written]:
    """The program that starts a session, with its history and its first message if there are any.

    :raises SessionExists: an open session has this agent, instance and name; nothing was written
    :raises InvalidInput: it is for the workers of another tenant; nothing was written
    """
    check_tenant(session.pool, scope.tenant)
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
    moved = yield executions.WAKE, {"id": id, "tenant": scope.tenant, "run_id": None}
    rows = yield from write_entries(id, moved[0], [started])
    yield from audit.record(scope, "session.start", id, {"agent": session.agent, "version": session.agent_version})
    if session.source_version is not None:
        rows += yield from conversations.begin(scope, id, session.agent, session.source_version)
        yield from dispatch.hint(id, session.pool)
    if history is not None:
        rows += yield from callers.restore(scope, id, history)
    if message is None:
        return Admitted(id, rows[-1].seq), rows
    admitted, more = yield from admit_steps(scope, id, message, dispatch, limits)
    return admitted, rows + more


def reach_steps(
    scope: Scope,
    session: NewSession,
    message: NewMessage,
    dispatch: Dispatch,
    limits: Limits,
    history: log.History | None,
) -> Steps[Written]:
    """The program that gives a message to the session of that name, which from now on runs in the pool of `session`.

    :raises Unmade: there is none, and no `history` for a new one was given
    """
    found = yield from callers.find(scope, session.agent, session.instance or "", session.name)
    if found is None and history is None:
        raise Unmade
    if found is None:
        return (yield from start_session_steps(scope, session, message, dispatch, limits, history))
    yield from callers.move(found.id, session.pool)
    return (yield from admit_steps(scope, found.id, message, dispatch, limits))


def admit_steps(
    scope: Scope, id: str, message: NewMessage | NewCompaction, dispatch: Dispatch, limits: Limits = UNLIMITED
) -> Steps[Written]:
    """The program that accepts a message, or a request to summarise the history.

    :raises SessionNotFound, SessionEnded, SessionBusy, Conflict, TooManyRequests: it is not accepted
    """
    fresh = str(uuid.uuid4())
    moved = yield (
        ADMIT,
        {
            "id": id,
            "tenant": scope.tenant,
            "mode": message.mode,
            "most": limits.session,
            "wakes": int(message.mode == "interrupt"),
            "run_id": fresh,
            "title": title_of(redaction.text(message.text)),
        },
    )
    if not moved:
        row = open_row((yield from executions.get(scope, id)))
        if row.driver is not None:
            raise Conflict(f"this session is driven by {row.root}; send the message there")
        if message.mode != "reject":
            raise full(limits.session)
        raise SessionBusy("the session is working; wait for it, or send with mode queue, steer or interrupt")
    taken = message.entry(scope.principal)
    said: list[Entry] = [taken]
    head, epoch, state, run_id, pool = moved[0]
    if message.mode == "interrupt" and run_id not in (None, fresh):
        said.insert(0, CancelRequested(run=run_id, by=scope.principal))
        head = (yield MOVE, {"id": id})[0][0]
    rows = yield from write_entries(id, (head, epoch, state, run_id, pool), said)
    if state == "scheduled":
        yield from dispatch.hint(id, pool)
        yield from check_runs(scope, limits.runs)
    return Admitted(id, head, input=taken.id), rows


def title_of(text: str) -> str | None:
    """The title that a message gives its session."""
    lines = (" ".join("".join(c if c.isprintable() else " " for c in line).split()) for line in text.splitlines())
    line = next(filter(None, lines), None)
    return line if line is None or len(line) <= TITLE_CHARS else line[: TITLE_CHARS - 1] + "…"
