"""What people see of an execution: its state, its events, its output. A projection of the row and the log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct

from flux.engine.encoding.values import readable
from flux.entries.workflows import (
    TaskEntry,
    TaskFailed,
    WorkflowClaimed,
    WorkflowCompleted,
    WorkflowFailed,
    WorkflowPaused,
    WorkflowScheduled,
)
from flux.events import (
    ApprovalRequired,
    CancelRequested,
    ChatResponse,
    InterruptAnswered,
    SessionEndedEntry,
    Stored,
    ToolDone,
    ToolStarted,
    type_of,
)
from flux.store.executions import Execution
from flux.store.interrupts import Interrupt, payload_of

#: The entries that a summary without events is made of.
SUMMED_UP = (WorkflowScheduled, WorkflowPaused, WorkflowCompleted, CancelRequested, SessionEndedEntry)
#: What a session is an execution of.
AGENT_CHAT = "agents/agent_chat"
#: What an agent shows before anything is said.
SILENCE: dict[str, Any] = {"type": "chat_response", "content": None, "turn": 0}
FINISHED = frozenset({"COMPLETED", "FAILED", "CANCELLED"})


class ExecutionEvent(Struct, frozen=True):
    """One event as users of workflows know it. `time` is ISO 8601 in UTC, `value` plain JSON."""

    id: str
    type: str
    source_id: str
    name: str
    value: Any
    time: str
    subject: str | None = None


def state_of(row: Execution, *, cancelling: bool = False) -> str:
    """The state of an execution in the words of users."""
    if row.state == "ended":
        return (row.outcome or "cancelled").upper()
    if cancelling and row.run_id is not None:
        return "CANCELLING"
    if row.state in ("idle", "waiting"):
        return "PAUSED"
    if row.state == "running":
        return "RUNNING"
    return "RESUMING" if row.epoch else "SCHEDULED"


def is_cancelling(row: Execution, entries: Iterable[Stored]) -> bool:
    """Whether somebody asked to stop the run that is open."""
    return any(isinstance(stored.entry, CancelRequested) and stored.entry.run == row.run_id for stored in entries)


def input_of(entries: Iterable[Stored]) -> Any:
    """What the workflow was started with, as stored."""
    return next((s.entry.input for s in entries if isinstance(s.entry, WorkflowScheduled)), None)


def pause_of(entries: Iterable[Stored]) -> Any:
    """What the newest pause shows."""
    return next((s.entry.value for s in reversed(list(entries)) if isinstance(s.entry, WorkflowPaused)), None)


def output_of(row: Execution, entries: Iterable[Stored]) -> Any:
    """What a completed workflow returned, as stored; None before."""
    if row.outcome != "completed":
        return None
    return next((s.entry.value for s in entries if isinstance(s.entry, WorkflowCompleted)), None)


def events_of(row: Execution, entries: Iterable[Stored]) -> list[ExecutionEvent]:
    """The events of a workflow, or of a session seen as an execution."""
    asked: dict[str, tuple[str, str]] = {}
    return [event for stored in entries if (event := _event(row, stored, asked)) is not None]


def _event(row: Execution, stored: Stored, asked: dict[str, tuple[str, str]]) -> ExecutionEvent | None:
    entry = stored.entry
    workflow = row.workflow or AGENT_CHAT
    match entry:
        case TaskEntry():
            value = {"type": entry.error, "message": entry.message} if isinstance(entry, TaskFailed) else entry.value
            return _made(row, stored, type_of(entry), entry.call, entry.name, value, None)
        case ToolStarted():
            return _made(row, stored, "TASK_STARTED", entry.call, entry.name, None, None)
        case ToolDone():
            type = "TASK_COMPLETED" if entry.status == "success" else "TASK_FAILED"
            return _made(row, stored, type, entry.call, entry.name, entry.content, None)
        case CancelRequested():
            return _made(row, stored, "WORKFLOW_CANCELLING", row.id, workflow, None, entry.by)
        case ApprovalRequired():
            asked[entry.id] = (entry.call, entry.tool)
            return _made(row, stored, "TASK_AWAITING_APPROVAL", entry.call, entry.tool, entry.args, None)
        case InterruptAnswered():
            return _answered(row, stored, entry, asked, workflow)
    return _transition(row, stored, workflow)


def _transition(row: Execution, stored: Stored, workflow: str) -> ExecutionEvent | None:
    entry, value, subject = stored.entry, None, None
    match entry:
        case WorkflowScheduled():
            value = entry.input
        case WorkflowClaimed():
            value = subject = entry.worker
        case WorkflowFailed():
            value = {"message": entry.message}
        case WorkflowPaused() | WorkflowCompleted():
            value = entry.value
    type = type_of(entry)
    return _made(row, stored, type, row.id, workflow, value, subject) if type.startswith("WORKFLOW_") else None


def _answered(
    row: Execution, stored: Stored, entry: InterruptAnswered, asked: Mapping[str, tuple[str, str]], workflow: str
) -> ExecutionEvent:
    if entry.id in asked:
        type = "TASK_APPROVED" if entry.decision == "approve" else "TASK_REJECTED"
        return _made(row, stored, type, *asked[entry.id], entry.reason, entry.by)
    return _made(row, stored, "WORKFLOW_RESUMING", row.id, workflow, entry.content, entry.by)


def _made(
    row: Execution, stored: Stored, type: str, source: str, name: str, value: Any, subject: str | None
) -> ExecutionEvent:
    return ExecutionEvent(f"{row.id}:{stored.seq}", type, source, name, plain(value), iso(stored.at), subject)


def plain(value: Any) -> Any:
    """A stored value as plain JSON."""
    return readable(value)


def iso(seconds: float) -> str:
    """Seconds since the epoch as ISO 8601 in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def listed(row: Execution, *, cancelling: bool = False) -> dict[str, Any]:
    """What a row alone tells of an execution, as JSON."""
    state = state_of(row, cancelling=cancelling)
    namespace, _, name = (row.workflow or AGENT_CHAT).partition("/")
    return {
        "execution_id": row.id,
        "kind": row.kind,
        "workflow": f"{namespace}/{name}",
        "workflow_namespace": namespace,
        "workflow_name": name,
        "workflow_version": row.source_version,
        "agent": row.agent,
        "name": row.title or row.id,
        "state": state,
        "waiting_for": row.waiting_for,
        "error": row.last_error if state == "FAILED" or row.agent else None,
        "worker": row.worker,
        "parent": row.parent,
        "head": row.head,
        "created_at": iso(row.created),
        "updated_at": iso(row.updated),
    }


def summary(
    row: Execution, entries: list[Stored], *, detailed: bool = False, questions: Sequence[Interrupt] = ()
) -> dict[str, Any]:
    """An execution as JSON. `output` is the pause's while it is paused; `questions` are those that a session asks."""
    shown = listed(row, cancelling=is_cancelling(row, entries))
    shown |= {"input": plain(input_of(entries)), "output": plain(output_of(row, entries)), "pause": None}
    if shown["state"] == "PAUSED" and row.kind == "workflow":
        paused = pause_of(entries) or {}
        shown["pause"] = paused.get("name") if row.waiting_for == "pause" else None
        shown["output"] = plain(paused.get("output", paused))
    if row.kind == "session":
        shown |= {"input": {"agent": row.agent}, "output": _said(entries, questions)}
    if detailed:
        shown["events"] = msgspec.to_builtins(events_of(row, entries))
    return shown


def _said(entries: list[Stored], questions: Sequence[Interrupt]) -> dict[str, Any]:
    """What a session shows as an execution: its end, what it asks, or its newest answer."""
    if questions:
        hidden = ("v", "state")
        return {key: value for key, value in payload_of(questions[0]).items() if key not in hidden}
    for stored in sorted(entries, key=lambda one: one.seq, reverse=True):
        if isinstance(stored.entry, SessionEndedEntry | ChatResponse):
            return {key: value for key, value in msgspec.to_builtins(stored.entry).items() if key != "v"}
    return SILENCE
