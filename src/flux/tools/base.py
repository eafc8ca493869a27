"""What a model may call: the tool contract."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct

from flux.sandboxes.base import Sandbox

Effect = Literal["read", "idempotent", "once"]
Predicate = Callable[[Mapping[str, Any]], bool]


class Done(Struct, frozen=True):
    """The tool did its work; `content` is what the model reads."""

    content: str


class Failed(Struct, frozen=True):
    """The tool could not do its work; the model reads why. `timeout`: it ran out of its time."""

    content: str
    timeout: bool = False


class NeedsInput(Struct, frozen=True):
    """The tool asks a person first. `payload` is what is shown: `question`, and `options` to choose from."""

    kind: Literal["input"]
    payload: dict[str, Any]


ToolOutcome = Done | Failed | NeedsInput


class Answer(Struct, frozen=True):
    """What a person answered to a tool's NeedsInput."""

    decision: str
    content: Any = None


class ToolContext(Struct, frozen=True):
    """What a running call may use.

    `call` is the idempotency key of tools with effect "idempotent". `output` streams text to whoever
    watches. `answer` is set when the call asked a person before and is now run again.
    """

    session: str
    call: str
    sandbox: Sandbox
    output: Callable[[str], None]
    answer: Answer | None = None


class Tool(Struct, frozen=True):
    """A tool: its schema for the model, its rules for the gate, and the function that does the work.

    `parameters` is a JSON Schema object. `effect` says what running it again may do. `timeout` is in
    seconds, None for no limit of its own. `run` gets arguments that passed the schema; what it raises
    is shown to the model as a failure.
    """

    name: str
    description: str
    parameters: dict[str, Any]
    run: Callable[[dict[str, Any], ToolContext], Awaitable[ToolOutcome]]
    effect: Effect = "once"
    timeout: float | None = None
    requires_approval: bool | Predicate = False
    source: str = "builtin"

    def named(self, name: str) -> Tool:
        """The same tool under another name."""
        return msgspec.structs.replace(self, name=name)
