"""What goes over HTTP: request bodies, response rows, the error envelope."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from typing import Annotated, Any, Literal

import msgspec
from fastapi import Query
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from flux.agents.define.memory import shown
from flux.errors import InvalidInput
from flux.events import AssistantSaid, Mode, ToolDone, UserSaid, decode
from flux.messages import tokens_of
from flux.server.attached import Files, Images
from flux.store.agents import AgentVersion
from flux.store.database import NEWEST
from flux.store.executions import Execution
from flux.store.interrupts import Interrupt
from flux.store.log import LogRow
from flux.store.schedules import Missed, Overlap
from flux.store.workflows import WorkflowVersion

MAX_PAGE = 200
#: How many items a page of a list may have.
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE)]
MAX_DEPTH = 100
#: What a database keeps as a number of an entry.
MAX_SEQ = (1 << 31) - 1


def _text(value: str) -> str:
    if "\0" in value:
        raise ValueError("must not contain the character NUL")
    return value


def shallow(value: Any) -> Any:
    """The value, if it is JSON and nested so little that everybody can read it.

    :raises ValueError: it is not
    """
    if isinstance(value, bytes):
        raise ValueError("must be JSON, sent as application/json")
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return value
    raise ValueError(f"must not be nested more than {MAX_DEPTH} deep")


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


#: Text as both databases can keep it.
Text = Annotated[str, AfterValidator(_text)]
#: A JSON value that everybody can read again.
Json = Annotated[Any, AfterValidator(shallow)]


class Body(BaseModel):
    """What a route takes; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


class StartSession(Body):
    """POST /sessions."""

    agent: Text
    instance: Text | None = Field(default=None, min_length=1, max_length=256)
    name: Text = Field(default="default", min_length=1, max_length=256)
    message: Text | None = Field(default=None, min_length=1)
    model: Text | None = None
    images: Images
    files: Files
    workspace: str | None = Field(default=None, min_length=1, max_length=4096)


class SendMessage(Body):
    """POST /sessions/{id}/messages."""

    message: Text = Field(min_length=1)
    mode: Mode = "queue"
    model: Text | None = None
    images: Images
    files: Files
    agent: Text | None = Field(default=None, description="whose session it has to be; none: anybody's")


class PromptInstance(Body):
    """POST /agents/{name}/{id}."""

    message: Text = Field(min_length=1)
    session: Text = "default"


class DispatchInput(Body):
    """POST /agents/{name}/{id}/dispatch."""

    input: Json
    session: Text = "default"


class Decide(Body):
    """POST /executions/{id}/approvals/{call}/approve or reject."""

    reason: Text | None = None
    always: bool = False


class AnswerInterrupt(Body):
    """POST /sessions/{id}/interrupts/{iid}."""

    decision: Literal["approve", "reject", "accept", "decline", "cancel", "answer"]
    reason: Text | None = Field(default=None, max_length=10_000)
    always: bool = False
    content: Json = None


class StartRun(Body):
    """POST /workflows/{name}."""

    payload: Json = None


class Rename(Body):
    """PUT /sessions/{id}/name."""

    name: Text = Field(min_length=1, max_length=256)


class ForkSession(Body):
    """POST /sessions/{id}/fork."""

    at: int | None = Field(default=None, ge=1, le=MAX_SEQ, description="the last entry to copy; none: all of them")
    name: Text | None = Field(default=None, min_length=1, max_length=256)


class PutSchedule(Body):
    """PUT /schedules/{name}: one of workflow and agent, one of cron, interval and once."""

    workflow: Text | None = Field(default=None, min_length=1, max_length=256, description="namespace/name")
    agent: Text | None = Field(default=None, min_length=1, max_length=256)
    instance: Text | None = Field(default=None, min_length=1, max_length=256)
    message: Text | None = Field(default=None, min_length=1)
    input: Json = None
    cron: Text | None = Field(default=None, description="minute hour day-of-month month day-of-week")
    interval: Text | None = Field(default=None, description="such as 6h, 1d12h or 90s")
    once: Text | None = Field(default=None, description="a time in ISO 8601")
    timezone: Text = "UTC"
    overlap: Overlap = "skip"
    missed: Missed = "once"


class CreateSchedule(PutSchedule):
    """POST /schedules."""

    name: Text


class PutConfig(Body):
    """PUT /configs/{name}."""

    value: Json


class RotateKey(Body):
    """POST /secrets/rotate-key. `forget_unreadable`: remove secrets that no key here can read."""

    forget_unreadable: bool = False


class PutSecret(Body):
    """PUT /secrets/{name}."""

    value: Text = Field(min_length=1, max_length=65_536)


class Problem(BaseModel):
    """What went wrong: `type` is for programs, `message` for people."""

    type: str
    message: str
    details: dict[str, Any]


class ErrorEnvelope(BaseModel):
    """Every answer with a status of 400 or more."""

    error: Problem


#: What any route may answer besides what it documents itself.
ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorEnvelope, "description": "The request cannot be served"},
    "5XX": {"model": ErrorEnvelope, "description": "The server cannot serve it"},
}


def page(items: list[dict[str, Any]], next_cursor: str | None) -> dict[str, Any]:
    """A page of a list."""
    return {"items": items, "next_cursor": next_cursor}


def names_page(found: list[str], limit: int) -> dict[str, Any]:
    """A page of names; `found` has one more than `limit` when there are more."""
    more = encode_cursor(found[limit - 1]) if len(found) > limit else None
    return page([{"name": name} for name in found[:limit]], more)


def session_row(row: Execution) -> dict[str, Any]:
    """A session as lists and GET show it; times in seconds since the epoch."""
    spent = row.spent
    return {
        "id": row.id,
        "execution_id": row.id,
        "agent_name": row.agent,
        "agent_version": row.agent_version,
        "instance": row.instance,
        "name": row.name,
        "title": row.title,
        "state": row.state,
        "waiting_for": row.waiting_for,
        "outcome": row.outcome,
        "run": row.run_id,
        "head": row.head,
        "turns": row.turns,
        "usage": {**tokens_of(spent.tokens), "total": spent.tokens.total, "cost": spent.cost},
        "last_error": row.last_error,
        "started_at": row.created,
        "updated_at": row.updated,
    }


def agent_row(found: AgentVersion) -> dict[str, Any]:
    """An agent as lists and GET show it."""
    return {
        "name": found.name,
        "version": found.version,
        "digest": found.digest,
        "definition": shown(msgspec.json.decode(found.definition)),
        "author": found.author,
        "created_at": found.created,
    }


def approval_row(asked: Interrupt) -> dict[str, Any]:
    """An approval as JSON; times in seconds since the epoch."""
    question = msgspec.json.decode(asked.payload)
    answer = msgspec.json.decode(asked.answer) if asked.answer else {}
    word = {"approve": "approved", "reject": "rejected"}.get(str(answer.get("decision")), asked.state)
    return {
        "id": asked.id,
        "execution_id": asked.execution_id,
        "call": asked.call,
        "task": question.get("tool"),
        "args": question.get("args"),
        "digest": asked.digest,
        "status": word,
        "reason": answer.get("reason"),
        "always": answer.get("always", False),
        "decided_by": asked.answered_by,
        "requested_at": asked.created,
    }


def workflow_row(found: WorkflowVersion, *, source: bool = False) -> dict[str, Any]:
    """A workflow as lists and GET show it; `source`: with the file it was found in."""
    return {
        "namespace": found.namespace,
        "name": found.name,
        "version": found.version,
        "digest": found.digest,
        "options": msgspec.json.decode(found.options),
        "author": found.author,
        "created_at": found.created,
        **({"source": found.source} if source else {}),
    }


def interrupt_row(found: Interrupt) -> dict[str, Any]:
    """A question as GET shows it."""
    return {
        "id": found.id,
        "session": found.execution_id,
        "kind": found.kind,
        "state": found.state,
        "call": found.call,
        "payload": msgspec.json.decode(found.payload),
        "answer": msgspec.json.decode(found.answer) if found.answer else None,
        "answered_by": found.answered_by,
        "created_at": found.created,
    }


def message_row(row: LogRow) -> dict[str, Any] | None:
    """A message or tool result as GET messages shows it; None for other entries."""
    if row.type not in ("user_message", "assistant_message", "tool_done"):
        return None
    entry = decode(row.body)
    place = {"seq": row.seq, "at": row.at}
    match entry:
        case UserSaid():
            return {**place, "role": "user", "id": entry.id, "parts": msgspec.to_builtins(entry.parts)}
        case AssistantSaid():
            told = {"parts": msgspec.to_builtins(entry.parts), "calls": msgspec.to_builtins(entry.calls)}
            return {**place, "role": "assistant", "id": entry.message_id, **told}
        case ToolDone():
            told = {"call": entry.call, "name": entry.name, "outcome": entry.outcome, "content": entry.content}
            return {**place, "role": "tool", **told}
    return None


def encode_cursor(*parts: Any) -> str:
    """An opaque place in a list."""
    return base64.urlsafe_b64encode(msgspec.json.encode(parts)).decode().rstrip("=")


def decode_cursor(text: str | None, *types: type) -> list[Any] | None:
    """The parts of a cursor.

    :raises InvalidInput: it is none of ours
    """
    if not text:
        return None
    try:
        parts = msgspec.json.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=list[Any])
    except (binascii.Error, ValueError, msgspec.DecodeError) as error:
        raise InvalidInput("cursor: use the next_cursor of the page before") from error
    if len(parts) != len(types) or not all(isinstance(part, cls) for part, cls in zip(parts, types, strict=True)):
        raise InvalidInput("cursor: use the next_cursor of the page before")
    return parts


def version_of(cursor: str | None) -> int:
    """The version below which a page of versions begins.

    :raises InvalidInput: the cursor is none of ours
    """
    (version,) = decode_cursor(cursor, int) or [NEWEST]
    if not 0 < version <= NEWEST:
        raise InvalidInput("cursor: use the next_cursor of the page before")
    return int(version)
