"""What an operation came to, read from the log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from flux.agents.code.errors import AbortError, ResultUnavailableError
from flux.agents.code.given import Result
from flux.agents.code.types import PromptModel, PromptResponse, PromptResult, usage_of
from flux.agents.history.asked import FINISH, GAVE_UP
from flux.errors import AgentFailed, FluxError
from flux.events import (
    RUN_ENDS,
    AssistantSaid,
    Cancelled,
    ChatResponse,
    CompactDone,
    Entry,
    RunEnd,
    RunFailed,
    RunStarted,
    Stored,
    ToolDone,
    spent_by,
)
from flux.messages import text_of
from flux.store.executions import Spent

CANCELLED = "the run was cancelled"
NO_RESULT = "it ended in words, although it was reminded that a result was wanted"


class Outcome(Struct, frozen=True):
    """How the run of a message ended, the last that its model said, and what it finished with."""

    end: RunEnd
    said: str = ""
    finished: str | None = None


def outcome_of(entries: Sequence[Stored], message: str) -> Outcome:
    """What became of a message."""
    inside, said, finished = False, "", None
    for entry in (stored.entry for stored in entries):
        match entry:
            case RunStarted():
                inside = message in entry.inputs
            case AssistantSaid() if inside:
                said = text_of(entry.parts) or said
            case ToolDone(name=name, outcome="success") if inside and name == FINISH:
                finished = entry.content
            case Cancelled(inputs=inputs) if message in inputs:
                return Outcome(entry)
        if inside and isinstance(entry, RUN_ENDS):
            return Outcome(entry, said, finished)
    raise FluxError(debug=f"the run of {message} has no end")


def spent_in(entries: Sequence[Stored]) -> Spent:
    """What was spent by these entries."""
    spent = Spent()
    for stored in entries:
        if isinstance(stored.entry, Entry):
            spent = spent.plus(*spent_by(stored.entry))
    return spent


def response_of(outcome: Outcome, spent: Spent, model: PromptModel, result: Result[Any] | None) -> Any:
    """What an operation gives to its caller.

    :raises AbortError: it was stopped
    :raises ResultUnavailableError: it ended without the result that it was asked for
    :raises AgentFailed: it failed
    """
    usage = usage_of(spent)
    match outcome.end:
        case ChatResponse(content=content) if result is None:
            return PromptResponse(content, usage, model)
        case ChatResponse() if result is not None and outcome.finished is not None:
            return PromptResult(result.parse(outcome.finished), usage, model)
        case ChatResponse():
            raise ResultUnavailableError(NO_RESULT, outcome.said)
        case RunFailed(message=told) if result is not None and told.startswith(GAVE_UP):
            raise ResultUnavailableError(told.removeprefix(GAVE_UP), outcome.said)
        case RunFailed(message=told):
            raise AgentFailed(told)
    raise AbortError(CANCELLED)


def compacted_of(entries: Sequence[Stored], request: str) -> bool:
    """Whether anything was summarised.

    :raises AgentFailed: the model gave no summary
    :raises AbortError: it was stopped
    """
    match outcome_of(entries, request).end:
        case CompactDone(compacted=compacted):
            return compacted
        case RunFailed(message=message):
            raise AgentFailed(message)
    raise AbortError(CANCELLED)
