"""What happens in a session, in the documented words: the events of a log as frames that clients of a surface read.

A frame is a JSON object with a `type`. Clients ignore types they do not know.
"""

from __future__ import annotations

from typing import Any

import msgspec

from flux.deltas import SubagentDelta
from flux.events import (
    QUESTIONS,
    RUN_ENDS,
    ApprovalRequired,
    AssistantSaid,
    Cancelled,
    ChatResponse,
    Compacted,
    Elicited,
    Gated,
    InputRequired,
    InterruptAnswered,
    Paused,
    Planned,
    PlanReview,
    Progress,
    Question,
    Reasoning,
    RunFailed,
    SessionEndedEntry,
    SubagentChanged,
    Token,
    ToolDone,
    ToolOutput,
    ToolStarted,
    UnknownEntry,
    UsageCounted,
    spent_by,
)
from flux.messages import ReasoningPart, text_of, tokens_of

Frame = dict[str, Any]

CANCELLED = "the run was cancelled; the session takes the next message"


class Frames:
    """Fed with the events of a session in order, best from the beginning of a run on; `agent` is whose it is.

    `open` holds the questions that nobody has answered yet, by id.
    """

    def __init__(self, agent: str) -> None:
        self.open: dict[str, Question] = {}
        self._agent = agent
        self._args: dict[str, Any] = {}
        self._attempts: dict[str, int] = {}
        self._shown: dict[tuple[str, type], str] = {}

    def feed(self, event: Any) -> list[Frame]:
        """The frames of one more event; none for what is not told on this wire."""
        self._remember(event)
        match event:
            case Token() | Reasoning():
                return [self._piece(event)]
            case AssistantSaid():
                return [*self._unseen(event), _usage(event)]
            case ToolStarted():
                return [{"type": "tool_start", "id": event.call, "name": event.name, "args": self._args_of(event.call)}]
            case UsageCounted():
                return [_usage(event)]
            case Compacted():
                return [{"type": "compaction", "upto": event.upto}, _usage(event)]
            case UnknownEntry():
                return [event.data | {"type": event.type}]
        if isinstance(event, QUESTIONS):
            return [question_frame(event, self._agent)]
        frame = _simple(event)
        return [frame] if frame is not None else []

    @property
    def asked(self) -> list[Frame]:
        """The frames of the open questions that a person must answer, oldest first."""
        return [question_frame(one, self._agent) for one in self.open.values() if not wakes_by_itself(one)]

    def _remember(self, event: Any) -> None:
        if isinstance(event, QUESTIONS):
            self.open[event.id] = event
        elif isinstance(event, InterruptAnswered):
            self.open.pop(event.id, None)
        elif isinstance(event, ToolDone):
            ended = event.call
            self.open = {
                id: one for id, one in self.open.items() if ended not in (one.call, getattr(one, "within", None))
            }
        elif isinstance(event, (*RUN_ENDS, SessionEndedEntry)):
            self.open = {}
        elif isinstance(event, AssistantSaid):
            self._args |= {call.id: call.args for call in event.calls}
        elif isinstance(event, Gated) and event.args is not None:
            self._args[event.call] = event.args

    def _args_of(self, call: str) -> Any:
        return self._args.get(call, {})

    def _piece(self, piece: Token | Reasoning) -> Frame:
        place = (piece.message_id, type(piece))
        if piece.attempt > self._attempts.get(piece.message_id, 0):
            self._attempts[piece.message_id] = piece.attempt
            self._shown.pop((piece.message_id, Token), None)
            self._shown.pop((piece.message_id, Reasoning), None)
        self._shown[place] = self._shown.get(place, "") + piece.text
        return _tagged(piece)

    def _unseen(self, said: AssistantSaid) -> list[Frame]:
        """The end of an answer whose pieces were not all seen, so that the pieces together are the answer."""
        reasoning = "".join(part.text for part in said.parts if isinstance(part, ReasoningPart))
        attempt = self._attempts.pop(said.message_id, 1)
        whole: tuple[tuple[type[Token] | type[Reasoning], str], ...] = (
            (Reasoning, reasoning), (Token, text_of(said.parts))
        )  # fmt: skip
        made: list[Frame] = []
        for cls, text in whole:
            seen = self._shown.pop((said.message_id, cls), "")
            if len(text) > len(seen) and text.startswith(seen):
                made.append(_tagged(cls(said.message_id, attempt, text[len(seen) :])))
        return made


def wakes_by_itself(question: Question) -> bool:
    """Whether this is a pause that needs no answer."""
    return isinstance(question, Paused) and (question.due is not None or question.on is not None)


def _calls(question: Question) -> tuple[str | None, str | None]:
    """The calls with which a question ends: its own, and the one whose code asks."""
    return question.call, getattr(question, "within", None)


def question_frame(asked: Question, agent: str) -> Frame:
    """The frame of a question. Its `id` is that of the interrupt; `agent` is whose session it is in."""
    session = {"session": asked.session} if asked.session else {}
    told: Frame
    match asked:
        case ApprovalRequired():
            told = {"channel": asked.channel, "agent": asked.agent or agent, "tool": asked.tool}
            told |= {"subject": asked.tool, "args": asked.args}
            more = {"reason": asked.reason, "expires_at": asked.expires_at, "within": asked.within}
            return _approval(asked, told) | {name: value for name, value in more.items() if value is not None} | session
        case PlanReview():
            told = {"channel": "plans", "agent": asked.agent or agent}
            told |= {"tool": "storePlan" if asked.plan else "create_plan", "subject": asked.plan or "plan"}
            told |= {"args": {"steps": list(asked.steps)}}
            return _approval(asked, told) | session
        case Elicited():
            told = {"url": asked.url, "message": asked.message, "server_name": asked.server_name, "mode": asked.mode}
            schema = {"schema": asked.schema} if asked.schema else {}
            return _elicitation(asked.id, asked.elicitation_id, told) | schema | session
        case InputRequired():
            told = {"url": None, "message": asked.question, "server_name": agent, "mode": "input"}
            return _elicitation(asked.id, asked.id, told) | {"options": list(asked.options)} | session
    due = {"due": asked.due} if asked.due is not None else {}
    return {"type": "pause", "id": asked.id, "name": asked.name, "output": asked.output} | due | session


def _approval(asked: ApprovalRequired | PlanReview, told: Frame) -> Frame:
    return {"type": "approval_required", "id": asked.id, "call": asked.call, **told, "digest": asked.digest}


def _elicitation(id: str, elicitation: str, told: Frame) -> Frame:
    return {"type": "elicitation", "elicitation_id": elicitation, "id": id, **told}


def error_frame(message: str, *, retryable: bool) -> Frame:
    """What went wrong. `retryable`: the same may work later."""
    return {"type": "error", "message": message, "retryable": retryable}


def _simple(event: Any) -> Frame | None:
    """The frame of an event that needs nothing but itself."""
    match event:
        case ToolOutput():
            return {"type": "tool_output", "id": event.call, "text": event.text}
        case ToolDone():
            told = {"id": event.call, "name": event.name, "status": event.status, "outcome": event.outcome}
            return {"type": "tool_done", **told}
        case ChatResponse():
            limit = {"limit": event.limit} if event.limit else {}
            return {"type": "response", "content": event.content, "turn": event.turn} | limit
        case RunFailed():
            return error_frame(event.message, retryable=event.retryable)
        case Cancelled():
            return error_frame(CANCELLED, retryable=False)
        case SessionEndedEntry():
            return {"type": "session_end", "reason": event.reason, "turns": event.turns}
        case Planned():
            return {"type": "plan", "steps": list(event.steps), "digest": event.digest}
    return _delegated(event)


def _delegated(event: Any) -> Frame | None:
    """The frame of what a sub-agent, or a task inside a tool, does."""
    match event:
        case SubagentChanged():
            told = {"agent": event.agent, "status": event.status, "session": event.child}
            return {"type": "subagent", "id": event.call, **told}
        case SubagentDelta():
            inner = msgspec.to_builtins(event.event)
            return {"type": "subagent_delta", "id": event.call, "session": event.session, "event": inner}
        case Progress():
            return {"type": "progress", "id": event.call, "name": event.name, "value": event.value}
    return None


def _tagged(piece: Token | Reasoning) -> Frame:
    """A piece of an answer; its fields are those of its frame."""
    frame: Frame = msgspec.to_builtins(piece)
    return frame


def _usage(entry: AssistantSaid | Compacted | UsageCounted) -> Frame:
    tokens, _ = spent_by(entry)
    told = {**tokens_of(tokens), "total": tokens.total}
    return {"type": "usage", "tokens": told, "cost": entry.cost}
