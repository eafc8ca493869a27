"""The model seam: a request goes in, deltas come out, and then one answer or one failure."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Literal, Protocol

from msgspec import Struct

from flux.messages import AssistantMessage, Delta, ImagePart, Message, ModelFailure, UserMessage

ReasoningEffort = Literal["off", "minimal", "low", "medium", "high", "xhigh"]
ModelEvent = Delta | AssistantMessage | ModelFailure


class ToolSchema(Struct, frozen=True):
    """A tool as a model sees it; `parameters` is a JSON Schema object."""

    name: str
    description: str
    parameters: dict[str, Any]


class OutputSchema(Struct, frozen=True):
    """The format of an answer: `schema` is a JSON Schema whose root has type "object", `$defs` included."""

    name: str
    schema: dict[str, Any]
    description: str = ""


class ModelRequest(Struct, frozen=True):
    """One model call.

    `max_tokens` bounds visible output. `final` forbids tool calls but keeps the tool definitions
    (tool choice "none"), because histories that contain calls need them. With `output` the text of the
    answer is one JSON object, unless the model calls a tool first; what it says is not streamed, only
    its reasoning is. Whether the object fits the schema is for the caller to check. `cache_key` is the same for
    requests that begin alike; a provider finds the beginning in its cache by it.
    """

    system: str
    messages: tuple[Message, ...]
    tools: tuple[ToolSchema, ...] = ()
    max_tokens: int = 4096
    reasoning: ReasoningEffort | None = None
    final: bool = False
    output: OutputSchema | None = None
    cache_key: str | None = None


class ModelLimits(Struct, frozen=True):
    """What a model can take; in tokens, None when unknown."""

    context: int | None = None
    output: int | None = None


def has_images(request: ModelRequest) -> bool:
    """Whether a person has sent an image."""
    return any(
        isinstance(part, ImagePart)
        for message in request.messages
        if isinstance(message, UserMessage)
        for part in message.parts
    )


def no_images(model: str) -> ModelFailure:
    """What becomes of a call with an image, of a model that takes none."""
    return ModelFailure(f"{model} takes no images; use a model with vision, or leave the image out", "rejected")


class Model(Protocol):
    """A model that can be called.

    `stream` makes one attempt and never raises for what the provider does: it yields deltas and
    then exactly one AssistantMessage or ModelFailure. Closing the iterator closes the connection.
    """

    name: str

    def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """Call the model once."""
        ...

    async def limits(self) -> ModelLimits:
        """The context window and output limit of this model."""
        ...

    async def preload(self) -> None:
        """Do in the background what would make the first call slow."""
        ...


class Models(Protocol):
    """Finds the live model behind a "provider/model" name."""

    def get(self, name: str) -> Model:
        """The model of that name.

        :raises DefinitionInvalid: the name has no `/`, or the provider is unknown
        :raises MissingKey: the provider has no key
        """
        ...

    def check(self, name: str) -> None:
        """Raise what `get` would raise, at little cost."""
        ...
