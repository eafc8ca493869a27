"""What a conversation is made of, as a transcript holds it and a prompt tells it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import final

import msgspec
from msgspec import Struct

from flux.events import AssistantSaid, Compacted, ToolDone, UserSaid
from flux.messages import Message

# gc=False: no value here is part of a cycle, and a long log is too much for the collector to walk.

#: The results of an answer without calls: one for all of them.
NO_RESULTS: Mapping[str, ToolDone] = MappingProxyType({})


@final
class UserItem(Struct, gc=False):
    """A message in the place where it was consumed. `built` keeps its prompt messages between calls."""

    seq: int
    said: UserSaid
    built: tuple[Message, ...] | None = None


@final
class AnswerItem(Struct, gc=False):
    """A model's answer with the results of its calls."""

    seq: int
    said: AssistantSaid
    results: Mapping[str, ToolDone] = NO_RESULTS
    built: tuple[Message, ...] | None = None


@final
class SummaryItem(Struct, gc=False):
    """What stands for everything up to and with `seq`, as the compaction `of` tells it."""

    seq: int
    text: str
    of: Compacted
    built: tuple[Message, ...] | None = None


Item = UserItem | AnswerItem | SummaryItem


def told_by(entry: Compacted) -> str:
    """A compaction as a model reads it; empty when it has summarised nothing."""
    parts = [entry.summary]
    if entry.asked:
        parts.append(f"# The message that what follows belongs to, word for word\n\n{entry.asked}")
    if entry.turn:
        parts.append(f"# What was done for it before\n\n{entry.turn}")
    for heading, paths in (("# Files that were read", entry.read), ("# Files that were changed", entry.changed)):
        if paths:
            parts.append(f"{heading}\n\n" + "\n".join(f"- {path}" for path in paths))
    for name, text in entry.skills.items():
        parts.append(f"# Skill in force: {name}\n\n{text or 'Too long to stand here; use it again when you need it.'}")
    return "\n\n".join(part for part in parts if part)


def spilled_in(item: Item, spilled: Mapping[str, str]) -> Item:
    """The item with what stands for results that were too long."""
    if not isinstance(item, AnswerItem) or spilled.keys().isdisjoint(item.results):
        return item
    shorter = {
        call: msgspec.structs.replace(done, content=spilled[call]) if call in spilled else done
        for call, done in item.results.items()
    }
    return AnswerItem(item.seq, item.said, shorter)
