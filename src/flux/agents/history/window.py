"""Working memory: how much of the messages so far a model is shown."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct

from flux.agents.history.cuts import CHARS_PER_TOKEN
from flux.engine.workflows.place import here
from flux.errors import InvalidInput
from flux.messages import AssistantMessage, Message, ReasoningPart, TextPart, ToolResult, UserMessage

_made = itertools.count()
#: Tokens that a message costs besides its text.
PER_MESSAGE = 4


class WorkingMemory(Struct, frozen=True):
    """How much history is shown: at most `window` messages, of about `max_tokens` tokens. None: no limit.

    Who has the same `key` in an execution shares the history.
    """

    window: int | None = None
    max_tokens: int | None = None
    key: str = ""


def working_memory(window: int | None = None, max_tokens: int | None = None) -> WorkingMemory:
    """The history of one conversation: agents that are given it share it, for as long as the execution lasts.

    :raises InvalidInput: a limit is not a positive number
    """
    for name, limit in (("window", window), ("max_tokens", max_tokens)):
        if limit is not None and (type(limit) is not int or limit < 1):
            raise InvalidInput(f"working_memory: {name} must be a whole number from 1 on, not {limit!r}")
    place = here()
    # The same in every run of the same code: by its place in a workflow, or by the order in which modules make them.
    key = place.mint("working_memory", (window, max_tokens), {}) if place else f"working_memory_{next(_made)}"
    return WorkingMemory(window, max_tokens, key)


def windowed(messages: Sequence[Message], window: int | None, max_tokens: int | None) -> tuple[Message, ...]:
    """The newest messages within both limits, as a model can take them.

    An answer and the results of its calls stay together, and the first message is a user's. The newest user
    message and the answer after it that came last are always there, even beyond the limits: without them the
    model would not know what is asked, or would ask for the same calls again.
    """
    groups = list(_groups(messages))
    asked = max((at for at, group in enumerate(groups) if _is_asking(group)), default=None)
    if asked is None:
        return tuple(messages)
    last = len(groups) - 1
    always = {asked, last}
    room = _Room(window, max_tokens, [groups[at] for at in always])
    since = room.newest(groups, range(last - 1, asked, -1))
    before = room.newest(groups, range(asked - 1, -1, -1)) if len(since) == max(0, last - 1 - asked) else []
    while before and not _is_asking(groups[before[-1]]):
        before.pop()
    kept = sorted({*always, *since, *before})
    return tuple(message for at in kept for message in groups[at])


class _Room:
    """What is left of both limits."""

    def __init__(self, window: int | None, max_tokens: int | None, taken: Iterable[Sequence[Message]]) -> None:
        self._count = float("inf") if window is None else window
        self._tokens = float("inf") if max_tokens is None else max_tokens
        for group in taken:
            self._take(group)

    def newest(self, groups: Sequence[Sequence[Message]], order: Iterable[int]) -> list[int]:
        """The places that fit, in this order up to the first that does not."""
        found: list[int] = []
        for at in order:
            if not self._take(groups[at]):
                break
            found.append(at)
        return found

    def _take(self, group: Sequence[Message]) -> bool:
        self._count -= len(group)
        self._tokens -= sum(map(tokens_of, group))
        return self._count >= 0 and self._tokens >= 0


def tokens_of(message: Message) -> int:
    """A rough number of tokens."""
    match message:
        case ToolResult():
            chars = len(message.content)
        case AssistantMessage():
            chars = sum(len(part.text) for part in message.parts if isinstance(part, TextPart | ReasoningPart))
            chars += sum(len(call.name) + len(repr(call.args)) for call in message.calls)
        case UserMessage():
            chars = sum(len(part.text) for part in message.parts)
    return chars // CHARS_PER_TOKEN + PER_MESSAGE


def _groups(messages: Iterable[Message]) -> Iterator[tuple[Message, ...]]:
    """What must stay together: an answer with the results of its calls; anything else is alone."""
    group: list[Message] = []
    for message in messages:
        if group and not isinstance(message, ToolResult):
            yield tuple(group)
            group = []
        group.append(message)
    if group:
        yield tuple(group)


def _is_asking(group: Sequence[Message]) -> bool:
    return isinstance(group[0], UserMessage)
