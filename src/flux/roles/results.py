"""What a runtime tells those who use it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct

from flux.deltas import DeltaEvent, decode_delta
from flux.entries.base import Entry
from flux.errors import AgentFailed, TurnLimitReached
from flux.events import ApprovalRequired, ChatResponse, PlanReview, RunFailed, UnknownEntry, decode
from flux.messages import Usage
from flux.store import interrupts
from flux.store.feed import Frame
from flux.store.interrupts import Interrupt
from flux.tools.rules import Channel
from flux.watch import RunWatch

RunState = Literal["completed", "waiting", "failed"]
CHANNELS: dict[str, Channel] = {"plan": "plans", "approval": "tools"}


class PendingApproval(Struct, frozen=True):
    """A question that waits for a person. `kind` is approval, plan, input or elicitation; times in seconds."""

    id: str
    session: str
    kind: str
    channel: Channel | None
    agent: str
    subject: str
    args: dict[str, Any]
    digest: str
    expires_at: float | None = None


class RunResult(Struct, frozen=True):
    """What a run came to. `data` is the answer where that is a JSON object.

    `error`: an AgentFailed that says why a run has failed; or a TurnLimitReached where a limit has forced the answer,
    which is `text`, of a completed run. `plan` is the newest version of the plan, with its state and how its actions
    ended. `usage` is that of the session with all that it drives. `session` goes on with it.
    """

    text: str
    state: RunState
    session: str
    data: Any = None
    pending_approvals: tuple[PendingApproval, ...] = ()
    plan: dict[str, Any] | None = None
    usage: Usage = Usage()
    cost: float = 0.0
    error: AgentFailed | None = None


class Event(Struct, frozen=True):
    """Something that happened in a session: an entry of its log, or a piece of one to come.

    A question to approve a call or a plan has the type approval_required, and is told as in `pending_approvals`.
    """

    type: str
    session: str
    event: Entry | UnknownEntry | DeltaEvent | PendingApproval


def pending(question: Interrupt) -> PendingApproval:
    """An open question as it is told."""
    return _told(question.id, question.root, question.kind, interrupts.payload_of(question), question.expires_at)


def told(frame: Frame, session: str) -> Event:
    """What happened, as it stands in a frame of a session's stream."""
    if not frame.entry:
        return Event(frame.type, session, decode_delta(frame.data))
    entry = decode(frame.data)
    if not isinstance(entry, ApprovalRequired | PlanReview):
        return Event(frame.type, session, entry)
    kind = "plan" if isinstance(entry, PlanReview) else "approval"
    asked = msgspec.to_builtins(entry)
    return Event("approval_required", session, _told(entry.id, session, kind, asked, asked.get("expires_at")))


def _told(id: str, session: str, kind: str, asked: Mapping[str, Any], expires_at: float | None) -> PendingApproval:
    subject = asked.get("plan") or asked.get("tool") or asked.get("question") or asked.get("message") or kind
    return PendingApproval(
        id=id,
        session=session,
        kind=kind,
        channel=CHANNELS.get(kind),
        agent=str(asked.get("agent") or ""),
        subject=str(subject),
        args={"steps": list(asked["steps"])} if "steps" in asked else asked.get("args") or {},
        digest=str(asked.get("digest") or ""),
        expires_at=expires_at,
    )


def error_of(watch: RunWatch, agent: str) -> AgentFailed | None:
    """Why a run that has ended did not come to an answer, or to one before its time."""
    match watch.end:
        case ChatResponse(limit=str(limit)):
            said = f"{agent} came to its limit {limit}, so its answer was forced; the session goes on"
            return TurnLimitReached(said, agent=agent, limit=limit)
        case RunFailed(message=message):
            return AgentFailed(message)
        case ChatResponse() | None:
            return None
    return AgentFailed("the run was stopped")


def data_of(text: str) -> Any:
    """The JSON object that an answer is; None where it is none."""
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return None
    return found if isinstance(found, dict) else None
