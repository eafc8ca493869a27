"""From a transcript to the messages of a model call, under an invariant that providers insist on.

Each tool call has exactly one result, results follow their call in its order, and no part is empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from flux.agents.history.items import AnswerItem, Item, SummaryItem, UserItem
from flux.errors import FluxError
from flux.events import AssistantSaid, ToolDone
from flux.messages import (
    AssistantMessage,
    Message,
    ReasoningPart,
    TextPart,
    ToolCall,
    ToolResult,
    UserMessage,
)

# Types are compared here, not asked for by isinstance: that is slow to say no, and a log may have many thousands.

P = TypeVar("P")

INTERRUPTED = "[interrupted: this call was not finished; its outcome is unknown]"
NO_OUTPUT = "[no output]"
SUMMARY = "Summary of the conversation so far:\n\n"


class PromptBroken(FluxError):
    """A prompt was built that no provider would accept."""

    type = "prompt_broken"


def build(items: Iterable[Item]) -> tuple[Message, ...]:
    """The messages of a transcript's items. Each item's are checked when they are made.

    :raises PromptBroken: the invariant does not hold; nothing was sent
    """
    messages: list[Message] = []
    for item in items:
        messages += item.built or _messages(item)
    return tuple(messages)


def check(messages: Sequence[Message]) -> None:
    """Hold messages against the invariant.

    :raises PromptBroken: it does not hold
    """
    awaited: list[str] = []
    for message in messages:
        if type(message) is ToolResult:
            if not awaited or awaited.pop(0) != message.call.id:
                raise PromptBroken(debug=f"result of {message.call.id} out of place")
            if not message.content:
                raise PromptBroken(debug=f"empty result of {message.call.id}")
            continue
        if awaited:
            raise PromptBroken(debug=f"no result for {awaited[0]}")
        if not message.parts or _full(message.parts) is not message.parts:
            raise PromptBroken(debug="empty part")
        if type(message) is AssistantMessage and message.calls:
            awaited = [call.id for call in message.calls]
    if awaited:
        raise PromptBroken(debug=f"no result for {awaited[0]}")


def _messages(item: Item) -> tuple[Message, ...]:
    """An item's messages; kept, so that they are the same objects each time and their conversion can be kept too."""
    if type(item) is AnswerItem:
        messages = _answer(item.said, item.results)
        complete = len(item.results) == len(item.said.calls)
    else:
        messages = _told(item)
        complete = True
    check(messages)
    if complete:
        item.built = messages
    return messages


def _told(item: UserItem | SummaryItem) -> tuple[Message, ...]:
    parts = _full(item.said.parts) if type(item) is UserItem else (TextPart(SUMMARY + item.text),)
    return (UserMessage(parts),) if parts else ()


def _answer(said: AssistantSaid, results: Mapping[str, ToolDone]) -> tuple[Message, ...]:
    parts = _full(said.parts)
    if not [part for part in parts if type(part) is not ReasoningPart]:
        return ()
    answer = AssistantMessage(parts, said.calls, said.stop, said.usage, said.cost, said.model)
    if not said.calls:
        return (answer,)
    return (answer, *[_result(call, results.get(call.id)) for call in said.calls])


def _full(parts: tuple[P, ...]) -> tuple[P, ...]:
    """The parts without empty texts; the same tuple where there are none, as nearly always."""
    for part in parts:
        if isinstance(part, TextPart) and not part.text:
            return tuple(part for part in parts if not isinstance(part, TextPart) or part.text)
    return parts


def _result(call: ToolCall, done: ToolDone | None) -> ToolResult:
    if done is None:
        return ToolResult(call, INTERRUPTED, is_error=True)
    return ToolResult(call, done.content or NO_OUTPUT, is_error=done.status == "error")
