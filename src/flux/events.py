"""The one event vocabulary: entries (durable, in the log) and deltas (ephemeral pieces of entries to come).

The `type` of each class is its wire name. Every surface is a projection of these values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Union, get_args

import msgspec
from msgspec import Struct

from flux.deltas import DeltaEvent as DeltaEvent  # noqa: PLC0414 - everybody takes these from here
from flux.deltas import Progress as Progress  # noqa: PLC0414
from flux.deltas import Reasoning as Reasoning  # noqa: PLC0414
from flux.deltas import Token as Token  # noqa: PLC0414
from flux.deltas import ToolOutput as ToolOutput  # noqa: PLC0414
from flux.entries.base import Entry as Entry  # noqa: PLC0414
from flux.entries.base import entry_types
from flux.entries.compaction import CompactDone as CompactDone  # noqa: PLC0414 - everybody takes these from here
from flux.entries.compaction import Compacted as Compacted  # noqa: PLC0414
from flux.entries.compaction import CompactRequested as CompactRequested  # noqa: PLC0414
from flux.entries.families import ChildDone as ChildDone  # noqa: PLC0414
from flux.entries.families import Forked as Forked  # noqa: PLC0414
from flux.entries.families import SubagentChanged as SubagentChanged  # noqa: PLC0414
from flux.entries.families import UsageCounted as UsageCounted  # noqa: PLC0414
from flux.entries.plans import PlanChanged as PlanChanged  # noqa: PLC0414
from flux.entries.plans import Planned as Planned  # noqa: PLC0414
from flux.entries.plans import PlanState as PlanState  # noqa: PLC0414
from flux.entries.workflows import WORKFLOW_ENDS, TaskCompleted, TaskFailed
from flux.errors import DatabaseTooNew
from flux.messages import AssistantPart, StopReason, ToolCall, Usage, UserPart

Mode = Literal["queue", "steer", "interrupt", "reject"]
Verdict = Literal["allow", "ask", "deny"]
Outcome = Literal["success", "error", "denied", "cancelled", "interrupted", "timeout", "expired"]


class SessionStarted(Entry, frozen=True, tag="session_started", kw_only=True):
    """The first entry of a session. `agent_version` is None for agents that are not stored.

    `workspace` is the directory its tools act in, wherever it is resumed; None: the worker's own.
    """

    agent: str
    instance: str
    name: str
    definition_digest: str
    agent_version: int | None = None
    workspace: str | None = None


class UserSaid(Entry, frozen=True, tag="user_message", kw_only=True):
    """An accepted message; `mode` says when it is consumed. `options` are those of its run."""

    id: str
    mode: Mode
    parts: tuple[UserPart, ...]
    options: dict[str, Any] = msgspec.field(default_factory=dict)


class RunStarted(Entry, frozen=True, tag="run_started", kw_only=True):
    """A run began; `inputs` are the ids of the messages it consumed."""

    run: str
    inputs: tuple[str, ...]
    definition_digest: str = ""


class ContextFrozen(Entry, frozen=True, tag="context", kw_only=True):
    """The prompt in front of the messages, frozen until it changes. `tools` are tool schemas."""

    system: str
    tools: tuple[dict[str, Any], ...]
    digest: str


class ModelFailed(Entry, frozen=True, tag="model_failed", kw_only=True):
    """A model call gave no answer. `retry_at` in seconds since the epoch, None: not tried again."""

    message_id: str
    attempt: int
    error: str
    kind: str
    transient: bool
    retry_at: float | None = None


class AssistantSaid(Entry, frozen=True, tag="assistant_message", kw_only=True):
    """A complete answer of a model; `inputs` are the steering messages it consumed. `cost` in US dollars."""

    message_id: str
    parts: tuple[AssistantPart, ...]
    inputs: tuple[str, ...] = ()
    calls: tuple[ToolCall, ...] = ()
    stop: StopReason = "stop"
    usage: Usage = Usage()
    cost: float | None = None
    model: str = ""


class Gated(Entry, frozen=True, tag="gate", kw_only=True):
    """What the gate decided for a call; `args` only when a hook changed them."""

    call: str
    verdict: Verdict
    args_digest: str
    rule: str
    args: dict[str, Any] | None = None


class ToolStarted(Entry, frozen=True, tag="tool_start", kw_only=True):
    """A call is about to act."""

    call: str
    name: str


class ToolDone(Entry, frozen=True, tag="tool_done", kw_only=True):
    """The one result of a call; `outcome` is always the truth. `artifact` is the id of what was kept, if it was."""

    call: str
    name: str
    status: Literal["success", "error"]
    outcome: Outcome
    content: str
    artifact: str | None = None


class ToolWaiting(Entry, frozen=True, tag="tool_waiting", kw_only=True):
    """A call waits for what it started: for an answer, or until `due` (seconds since the epoch)."""

    call: str
    due: float | None = None


class ApprovalRequired(Entry, frozen=True, tag="approval_required", kw_only=True):
    """A person must approve a call with exactly these arguments.

    `channel` is "tools", also where code of a workflow asks about a task of its. `within`: the tool call whose code
    asks. `grant` is what an "always" allows.
    """

    id: str
    call: str
    agent: str
    tool: str
    args: dict[str, Any]
    digest: str
    channel: str = "tools"
    reason: str | None = None
    expires_at: float | None = None
    session: str | None = None
    grant: str | None = None
    within: str | None = None


class InputRequired(Entry, frozen=True, tag="input_required", kw_only=True):
    """A tool asks a person something. `within`: the tool call whose code asks."""

    id: str
    call: str
    question: str
    options: tuple[str, ...] = ()
    session: str | None = None
    within: str | None = None


class Elicited(Entry, frozen=True, tag="elicitation", kw_only=True):
    """An MCP server asks the person to do something; `state` is what the call needs to go on.

    `within`: the tool call whose code asks.
    """

    id: str
    call: str
    mode: str
    message: str
    server_name: str
    elicitation_id: str
    url: str | None = None
    schema: dict[str, Any] | None = None
    state: Any = None
    session: str | None = None
    within: str | None = None


class PlanReview(Entry, frozen=True, tag="plan_review", kw_only=True):
    """A person must approve a plan; `plan` names a typed one, which is taken as it is or not at all.

    `within`: the tool call whose code asks.
    """

    id: str
    digest: str
    steps: tuple[dict[str, Any], ...]
    call: str | None = None
    session: str | None = None
    plan: str | None = None
    agent: str = ""
    within: str | None = None


class Paused(Entry, frozen=True, tag="pause", kw_only=True):
    """Code paused by name; it wakes by itself at `due` (seconds since the epoch), or when execution `on` ends.

    `within`: the tool call whose code paused.
    """

    id: str
    name: str
    output: Any = None
    call: str | None = None
    session: str | None = None
    due: float | None = None
    on: str | None = None
    within: str | None = None


class InterruptAnswered(Entry, frozen=True, tag="interrupt_answered", kw_only=True):
    """The winning answer to a question."""

    id: str
    decision: str
    by: str
    reason: str | None = None
    always: bool = False
    content: Any = None


class ChatResponse(Entry, frozen=True, tag="chat_response", kw_only=True):
    """The run ended well; `turn` counts the session's answers from 1.

    `limit` names the field of the agent that has forced this answer, before the work was done: max_turns, or
    max_tool_calls.
    """

    content: str
    turn: int
    limit: str | None = None


class RunFailed(Entry, frozen=True, tag="error", kw_only=True):
    """The run failed; the session stays usable. `retryable`: the same message may work later.

    `reason` is a word for machines where there is one: "budget", nothing more may be spent.
    """

    message: str
    retryable: bool = False
    reason: str | None = None


class Cancelled(Entry, frozen=True, tag="cancelled", kw_only=True):
    """The run was stopped; `inputs` are the steering messages that were stopped with it."""

    inputs: tuple[str, ...] = ()


class CancelRequested(Entry, frozen=True, tag="cancel_requested", kw_only=True):
    """Somebody asked to stop this run."""

    run: str
    by: str = ""


class SessionEndedEntry(Entry, frozen=True, tag="session_end", kw_only=True):
    """The session takes no more messages."""

    reason: str
    turns: int


def spent_by(entry: Entry) -> tuple[Usage, float]:
    """What an entry says was used: tokens, and US dollars."""
    match entry:
        case AssistantSaid() | Compacted():
            return entry.usage, entry.cost or 0.0
        case UsageCounted():
            return entry.tokens, entry.cost or 0.0
    return Usage(), 0.0


class UnknownEntry(Struct, frozen=True):
    """An entry of a type this version does not know; it is passed on, never interpreted."""

    type: str
    data: dict[str, Any]


RunEnd = ChatResponse | CompactDone | RunFailed | Cancelled
Question = ApprovalRequired | InputRequired | Elicited | PlanReview | Paused
RUN_ENDS = get_args(RunEnd)
QUESTIONS = get_args(Question)
#: What ends a run of a session, or a workflow.
ENDS = (*RUN_ENDS, *WORKFLOW_ENDS)
#: What shows that an execution gets on: its failures are forgotten.
PROGRESS = (AssistantSaid, ToolDone, TaskCompleted, TaskFailed, *ENDS)

ENTRY_TYPES = entry_types()

#: How the body of an older version becomes that of the next: (type, version) -> function.
UPCASTS: Mapping[tuple[str, int], Callable[[dict[str, Any]], dict[str, Any]]] = {}


class Stored(Struct, frozen=True, gc=False):
    """An entry in its place: `seq` in the log, the writer's `epoch`, and `at` (seconds since the epoch)."""

    seq: int
    epoch: int
    at: float
    entry: Entry | UnknownEntry


class _Head(Struct):
    type: str
    v: int = 1


_encoder = msgspec.json.Encoder(enc_hook=str)
_head = msgspec.json.Decoder(_Head)
_any = msgspec.json.Decoder()
_entry: msgspec.json.Decoder[Entry] = msgspec.json.Decoder(Union[tuple(ENTRY_TYPES.values())])  # noqa: UP007 - of a list


def type_of(event: Entry | UnknownEntry | DeltaEvent) -> str:
    """The wire name of an event."""
    if isinstance(event, UnknownEntry):
        return event.type
    return str(event.__struct_config__.tag)


def encode(event: Entry | UnknownEntry | DeltaEvent) -> bytes:
    """The JSON of an event, its type included."""
    value = event.data if isinstance(event, UnknownEntry) else event
    try:
        return _encoder.encode(value)
    except UnicodeEncodeError:
        return _encoder.encode(_whole(msgspec.to_builtins(value, enc_hook=str)))


def _whole(value: Any) -> Any:
    """With halves of characters joined, or replaced: some providers cut a character in two."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_whole(key): _whole(inner) for key, inner in value.items()}
    return [_whole(inner) for inner in value] if isinstance(value, list | tuple) else value


def decode(body: bytes | str) -> Entry | UnknownEntry:
    """The entry of a stored body; older versions are upcast.

    :raises DatabaseTooNew: the entry has a newer format version than this Flux knows
    """
    try:
        entry = _entry.decode(body)
    except msgspec.ValidationError:
        return _decode_other(body)
    return entry if entry.v == entry.version else _decode_other(body)


def _decode_other(body: bytes | str) -> Entry | UnknownEntry:
    """The entry of a body that is not of a type and version known here."""
    head = _head.decode(body)
    cls = ENTRY_TYPES.get(head.type)
    if cls is None:
        return UnknownEntry(head.type, _any.decode(body))
    if head.v == cls.version:
        return _entry.decode(body)
    if head.v > cls.version:
        raise DatabaseTooNew(
            f"an entry of type {head.type} has format {head.v}, this Flux knows {cls.version}; upgrade Flux"
        )
    return msgspec.convert(upcast(head.type, head.v, cls.version, _any.decode(body)), cls)


def upcast(name: str, version: int, target: int, body: dict[str, Any]) -> dict[str, Any]:
    """The body of an entry in its present version."""
    while version < target:
        body = UPCASTS[name, version](body)
        version += 1
    return body | {"v": target}
