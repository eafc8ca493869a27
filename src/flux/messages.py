"""What a conversation is made of: messages and their parts, deltas, usage, stop reasons.

These are the only message types inside Flux; `flux.models` alone knows those of providers.
"""

from __future__ import annotations

from typing import Any, Literal, final

import msgspec
from msgspec import Struct

StopReason = Literal["stop", "calls", "length", "content_filter", "cancelled"]
FailureKind = Literal["transient", "rejected", "overflow", "auth", "unknown_model", "stalled"]


class TextPart(Struct, frozen=True, gc=False, tag_field="type", tag="text"):
    """Visible text."""

    text: str


class ImagePart(Struct, frozen=True, gc=False, tag_field="type", tag="image"):
    """An image beside a text; `data` is in base64."""

    data: str
    media_type: str

    @property
    def text(self) -> str:
        """Nothing that could be read."""
        return ""


class FilePart(Struct, frozen=True, gc=False, tag_field="type", tag="file"):
    """A document beside a text, such as a PDF; `data` is in base64."""

    data: str
    media_type: str
    name: str

    @property
    def text(self) -> str:
        """Nothing that could be read."""
        return ""


UserPart = TextPart | ImagePart | FilePart


class ReasoningPart(Struct, frozen=True, gc=False, tag_field="type", tag="reasoning", omit_defaults=True):
    """Reasoning of a model; `signature`, `id` and `extra` go back to the `provider` that signed it."""

    text: str
    signature: str | None = None
    id: str | None = None
    provider: str | None = None
    extra: dict[str, Any] | None = None


class CallPart(Struct, frozen=True, gc=False, tag_field="type", tag="call"):
    """The place of a tool call among the other parts of an answer."""

    call: str


AssistantPart = TextPart | ReasoningPart | CallPart


class ToolCall(Struct, frozen=True, gc=False, omit_defaults=True):
    """A tool call a model asked for.

    `id` is ours and unique in the session; `wire_id` is the provider's. `invalid` holds the raw
    arguments when they were not JSON and could not be repaired; `args` is then empty.
    """

    id: str
    name: str
    args: dict[str, Any] = {}
    wire_id: str | None = None
    invalid: str | None = None


class Costs(Struct, frozen=True, gc=False, omit_defaults=True):
    """The parts of a price in US dollars. `input` is that of tokens which no cache had to do with."""

    input: float = 0.0
    output: float = 0.0
    cache_read: float = 0.0
    cache_write: float = 0.0

    @property
    def total(self) -> float:
        """All of them together."""
        return self.input + self.output + self.cache_read + self.cache_write

    def plus(self, other: Costs, times: float = 1.0) -> Costs:
        """With so many times the others."""
        return Costs(
            self.input + times * other.input,
            self.output + times * other.output,
            self.cache_read + times * other.cache_read,
            self.cache_write + times * other.cache_write,
        )


FREE = Costs()


class Usage(Struct, frozen=True, gc=False, omit_defaults=True):
    """Tokens of one or more model calls; `input` includes `cache_read` and `cache_write`.

    `costs` are what they cost as far as the table of prices knows their model.
    """

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    costs: Costs = FREE

    @property
    def total(self) -> int:
        """Input and output tokens together."""
        return self.input + self.output

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input + other.input,
            self.output + other.output,
            self.cache_read + other.cache_read,
            self.cache_write + other.cache_write,
            self.costs.plus(other.costs) if other.costs is not FREE else self.costs,
        )

    def __sub__(self, other: Usage) -> Usage:
        return Usage(
            self.input - other.input,
            self.output - other.output,
            self.cache_read - other.cache_read,
            self.cache_write - other.cache_write,
            self.costs.plus(other.costs, -1) if other.costs is not FREE else self.costs,
        )


def tokens_of(usage: Usage) -> dict[str, int]:
    """The counts of tokens alone, by their names."""
    return {key: getattr(usage, key) for key in ("input", "output", "cache_read", "cache_write")}


@final
class UserMessage(Struct, frozen=True, weakref=True):
    """What a person or a program said."""

    parts: tuple[UserPart, ...]


@final
class AssistantMessage(Struct, frozen=True, weakref=True):
    """One complete answer of a model. `cost` is in US dollars, None when the price is unknown."""

    parts: tuple[AssistantPart, ...]
    calls: tuple[ToolCall, ...] = ()
    stop: StopReason = "stop"
    usage: Usage = Usage()
    cost: float | None = None
    model: str = ""


@final
class ToolResult(Struct, frozen=True, weakref=True):
    """The one result of a tool call, as a model sees it."""

    call: ToolCall
    content: str
    is_error: bool = False


Message = UserMessage | AssistantMessage | ToolResult


class TextDelta(Struct, frozen=True):
    """A piece of visible text."""

    text: str


class ReasoningDelta(Struct, frozen=True):
    """A piece of reasoning."""

    text: str


Delta = TextDelta | ReasoningDelta


class ModelFailure(Struct, frozen=True):
    """A model call that gave no answer: data, not an exception.

    `retry_after` is in seconds, when the provider said so. `kind` "transient" and "stalled" may be
    tried again; "overflow" means that the prompt did not fit the context window.
    """

    message: str
    kind: FailureKind = "rejected"
    retry_after: float | None = None

    @property
    def transient(self) -> bool:
        """Whether the same call may succeed later."""
        return self.kind in ("transient", "stalled")


def text_of(parts: tuple[Any, ...]) -> str:
    """The visible text of a message's parts."""
    return "".join(part.text for part in parts if isinstance(part, TextPart))


def with_call_ids(message: AssistantMessage, ids: tuple[str, ...]) -> AssistantMessage:
    """The message with its calls renamed to `ids`, in order; the parts follow."""
    renamed = {call.id: new for call, new in zip(message.calls, ids, strict=True)}
    return msgspec.structs.replace(
        message,
        calls=tuple(msgspec.structs.replace(call, id=renamed[call.id]) for call in message.calls),
        parts=tuple(CallPart(renamed[p.call]) if isinstance(p, CallPart) else p for p in message.parts),
    )
