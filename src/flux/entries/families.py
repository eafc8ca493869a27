"""Entries about other executions: those that this one drives or waits for, and the one it is a copy of."""

from __future__ import annotations

from typing import Literal

import msgspec

from flux.entries.base import Entry
from flux.messages import Usage


class SubagentChanged(Entry, frozen=True, tag="subagent", kw_only=True):
    """A child session that a call drives was started, waits, or has ended."""

    child: str
    status: Literal["started", "waiting", "done", "failed", "cancelled"]
    agent: str
    call: str


class ChildDone(Entry, frozen=True, tag="child_done", kw_only=True):
    """A child execution ended."""

    child: str
    outcome: str = ""


class UsageCounted(Entry, frozen=True, tag="usage", kw_only=True):
    """Tokens spent outside the session's own model calls: by the session `child`, which it drives."""

    tokens: Usage
    cost: float | None = None
    child: str | None = None


class Forked(Entry, frozen=True, tag="forked", kw_only=True):
    """This session began as a copy of another, up to and with its seq `upto`.

    `dropped` are the ids of messages that no run had taken up there: they are not answered here.
    """

    source: str = msgspec.field(name="from")
    upto: int
    dropped: tuple[str, ...] = ()
