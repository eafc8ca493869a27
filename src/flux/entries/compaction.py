"""Entries about the summary of a history: asked for, made, and done."""

from __future__ import annotations

from typing import Any

import msgspec

from flux.entries.base import Entry
from flux.messages import Usage


class CompactRequested(Entry, frozen=True, tag="compact_requested", kw_only=True):
    """Somebody asked to summarise the history now; a run consumes this by its id, like a message."""

    id: str
    by: str = ""


class Compacted(Entry, frozen=True, tag="compaction", kw_only=True):
    """Everything up to and with `upto` (a seq) is now told by `summary`.

    Where `upto` lies within a turn, `asked` is what began that and `turn` tells what was done in it so far. Word for
    word stay the `skills` in force, by name, and the paths that were `read` and `changed`. Of the calls in `spilled`
    the model reads this instead of the result. `base` is what else the log up to `upto` comes to: from there on it is
    read.
    """

    upto: int
    summary: str
    usage: Usage = Usage()
    cost: float | None = None
    asked: str = ""
    turn: str = ""
    skills: dict[str, str] = msgspec.field(default_factory=dict)
    read: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    spilled: dict[str, str] = msgspec.field(default_factory=dict)
    base: dict[str, Any] | None = None


class CompactDone(Entry, frozen=True, tag="compact_done", kw_only=True):
    """The run that was asked to summarise the history ended well; `compacted`: there was something to summarise."""

    compacted: bool = True
