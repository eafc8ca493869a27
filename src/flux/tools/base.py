"""What a model may call: the tool contract."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct

from flux.entries.base import Entry
from flux.events import Question
from flux.sandboxes.base import Sandbox
from flux.tools.rules import Rule
from flux.tools.text import MAX_RESULT

Effect = Literal["read", "idempotent", "once"]
Predicate = Callable[[Mapping[str, Any]], bool]


#: Reads what stands behind `scheme://path`. FileNotFoundError: there is no such thing.
Resource = Callable[[str], Awaitable[bytes]]


class Done(Struct, frozen=True):
    """The tool did its work; `content` is what the model reads, `entries` come into the log with the result."""

    content: str
    entries: tuple[Entry, ...] = ()


class Failed(Struct, frozen=True):
    """The tool could not do its work; the model reads why. `timeout`: it ran out of its time."""

    content: str
    timeout: bool = False
    entries: tuple[Entry, ...] = ()


class Later(Struct, frozen=True):
    """The call waits for what it has started: for an answer, or until `due` (seconds since the epoch)."""

    due: float | None = None
    entries: tuple[Entry, ...] = ()


class NeedsInput(Struct, frozen=True):
    """The tool asks a person first. `payload` is what is shown.

    input: `question`, and `options` to choose from; elicitation: the fields of `Elicited`, of which `state` is
    what the tool needs to go on; plan: `steps` and their `digest`.
    """

    kind: Literal["input", "elicitation", "plan"]
    payload: dict[str, Any]


ToolOutcome = Done | Failed | NeedsInput | Later


class Answer(Struct, frozen=True):
    """What a person answered to a tool's NeedsInput; `question` is the entry that asked."""

    decision: str
    content: Any = None
    reason: str | None = None
    question: Question | None = None


async def _ask_nobody(question: NeedsInput, seconds: float) -> Answer | None:
    return None


async def _keep_nothing(content: bytes, media_type: str) -> str:
    raise OSError("nothing can be kept here")


async def _recall_nothing(id: str) -> tuple[str, bytes]:
    raise FileNotFoundError(id)


class ToolContext(Struct, frozen=True):
    """What a running call may use.

    `call` is the idempotency key of tools with effect "idempotent". `output` streams text to whoever
    watches. `answers` are all that this call was given when it asked before, oldest first.
    `ask` asks while the call goes on; None: nobody has answered within so many seconds, and a NeedsInput with
    the same payload leaves that question open. `resources` read `scheme://path` by scheme. `keep` stores bytes
    of a media type as an artifact and returns its address, for what is too long to show; `recall` gives its media type
    and bytes back, by its id, within the family of the session.
    """

    session: str
    call: str
    sandbox: Sandbox
    output: Callable[[str], None]
    answers: tuple[Answer, ...] = ()
    ask: Callable[[NeedsInput, float], Awaitable[Answer | None]] = _ask_nobody
    resources: Mapping[str, Resource] = {}
    keep: Callable[[bytes, str], Awaitable[str]] = _keep_nothing
    recall: Callable[[str], Awaitable[tuple[str, bytes]]] = _recall_nothing

    @property
    def answer(self) -> Answer | None:
        """The newest answer; None when the call has not asked, or nobody has answered."""
        return self.answers[-1] if self.answers else None


class Tool(Struct, frozen=True):
    """A tool: its schema for the model, its rules for the gate, and the function that does the work.

    `parameters` is a JSON Schema object. `effect` says what running it again may do. `timeout` is in
    seconds, None for no limit of its own. `run` gets arguments that passed the schema; what it raises
    is shown to the model as a failure or, of a tool that is `part_of_run`, stops the run, which is tried again.
    Of a longer result than `max_output_chars` the model reads head and tail. `mark` is kept with its schema in the
    log. `alarm`: why a person must look at a call first, whatever was allowed before; what they then allow for good
    holds for this alarm alone. `checked` is what arguments are checked by where that is not what the model is shown:
    the rest is for `run` to check. `approval` is the tool's own rule, "default" where `requires_approval` says it.
    """

    name: str
    description: str
    parameters: dict[str, Any]
    run: Callable[[dict[str, Any], ToolContext], Awaitable[ToolOutcome]]
    effect: Effect = "once"
    timeout: float | None = None
    requires_approval: bool | Predicate = False
    max_output_chars: int = MAX_RESULT
    source: str = "builtin"
    part_of_run: bool = False
    mark: dict[str, Any] = {}
    alarm: str = ""
    approval: Rule = "default"
    checked: dict[str, Any] | None = None

    @property
    def schema(self) -> dict[str, Any]:
        """What arguments are checked by."""
        return self.parameters if self.checked is None else self.checked

    @property
    def grant(self) -> str:
        """What an "always" allows."""
        return f"{self.name}#{self.alarm}" if self.alarm else self.name

    def named(self, name: str) -> Tool:
        """The same tool under another name."""
        return msgspec.structs.replace(self, name=name)
