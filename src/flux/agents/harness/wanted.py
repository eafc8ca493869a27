"""What an operation asks for beside its text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from msgspec import Struct

from flux.agents.code.given import Result, result_of
from flux.agents.code.types import PromptImage, check_image
from flux.agents.define.definition import ThinkingLevel
from flux.agents.define.tool import ToolDefinition
from flux.agents.history.asked import RESULT, THINKING
from flux.errors import InvalidInput
from flux.messages import ImagePart


class Wanted(Struct, frozen=True):
    """The options of one operation, checked."""

    result: Result[Any] | None = None
    tools: tuple[ToolDefinition, ...] = ()
    model: str | None = None
    thinking_level: ThinkingLevel | None = None
    images: tuple[PromptImage, ...] = ()

    @property
    def parts(self) -> tuple[ImagePart, ...]:
        """What stands beside the text."""
        return tuple(ImagePart(image.data, image.mime_type) for image in self.images)

    @property
    def options(self) -> dict[str, Any]:
        """Those that the loop has to know, as they stand in the message."""
        found: dict[str, Any] = {THINKING: self.thinking_level} if self.thinking_level is not None else {}
        return found | ({RESULT: True} if self.result is not None else {})


def wanted(
    *,
    result: Any = None,
    schema: Any = None,
    tools: Sequence[ToolDefinition] = (),
    model: Any = None,
    thinking_level: ThinkingLevel | None = None,
    images: Sequence[PromptImage] = (),
) -> Wanted:
    """What is wanted.

    :raises InvalidInput: an option cannot be used; it is named
    """
    if thinking_level is not None and thinking_level not in get_args(ThinkingLevel):
        raise InvalidInput(
            f"thinking_level must be one of {', '.join(get_args(ThinkingLevel))}, not {thinking_level!r}"
        )
    if model is not None and not (isinstance(model, str) and all(model.partition("/"))):
        raise InvalidInput(f"model must be provider/model, not {model!r}")
    return Wanted(
        result_of(result, schema), tuple(tools), model, thinking_level, tuple(check_image(image) for image in images)
    )
