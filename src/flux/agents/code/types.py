"""What operations of a harness take and return."""

from __future__ import annotations

import base64
import binascii
from typing import Any, Generic, TypeVar

from msgspec import Struct

from flux.errors import InvalidInput
from flux.messages import Usage
from flux.store.executions import Spent

T = TypeVar("T")


class PromptCost(Struct, frozen=True):
    """US dollars, as far as prices are known: the parts are 0 where only the total is."""

    input: float = 0.0
    output: float = 0.0
    cache_read: float = 0.0
    cache_write: float = 0.0
    total: float = 0.0


class PromptUsage(Struct, frozen=True):
    """Tokens and cost of all model work of one operation: tries, compaction and sub-agents included.

    `input` includes what was read from and written to a cache.
    """

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    total_tokens: int = 0
    cost: PromptCost = PromptCost()


class PromptModel(Struct, frozen=True):
    """The model that an operation was given to."""

    provider: str
    id: str


class PromptImage(Struct, frozen=True):
    """An image beside a text: its bytes in base64, and their media type."""

    data: str
    mime_type: str

    @classmethod
    def of(cls, content: bytes, mime_type: str) -> PromptImage:
        """An image of its bytes."""
        return cls(base64.b64encode(content).decode(), mime_type)


class PromptResponse(Struct, frozen=True):
    """What an operation came to, in words."""

    text: str
    usage: PromptUsage
    model: PromptModel


class PromptResult(Struct, Generic[T], frozen=True):
    """What an operation came to, as data that fits the model it was asked for."""

    data: T
    usage: PromptUsage
    model: PromptModel

    @property
    def result(self) -> T:
        """The older name of `data`."""
        return self.data


def usage_of(spent: Spent) -> PromptUsage:
    """What was spent, as an operation tells it."""
    tokens: Usage = spent.tokens
    costs = tokens.costs
    return PromptUsage(
        tokens.input,
        tokens.output,
        tokens.cache_read,
        tokens.cache_write,
        tokens.total,
        PromptCost(costs.input, costs.output, costs.cache_read, costs.cache_write, spent.cost),
    )


def model_of(name: str) -> PromptModel:
    """The parts of "provider/model"."""
    provider, _, id = name.partition("/")
    return PromptModel(provider, id)


def check_image(image: Any) -> PromptImage:
    """An image as it was given.

    :raises InvalidInput: it is none
    """
    if isinstance(image, dict) and set(image) <= {"type", "data", "mime_type", "mimeType"}:
        image = PromptImage(image.get("data", ""), image.get("mime_type") or image.get("mimeType") or "")
    if not isinstance(image, PromptImage):
        raise InvalidInput(f"images: must be PromptImage(data, mime_type), not {type(image).__name__}")
    if not str(image.mime_type).startswith("image/"):
        raise InvalidInput(f"images: mime_type {image.mime_type!r} is not that of an image")
    try:
        base64.b64decode(image.data, validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise InvalidInput(f"images: data is no base64: {error}") from error
    return image
