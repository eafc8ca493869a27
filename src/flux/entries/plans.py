"""Entries about plans: those an agent works by, and the typed ones of roles."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from flux.entries.base import Entry

PlanState = Literal[
    "draft", "awaiting_approval", "approved", "rejected", "executing", "completed", "failed", "cancelled"
]


class Planned(Entry, frozen=True, tag="plan", kw_only=True):
    """The plan as it is now; its `digest` tells one plan from another, whatever of it is done."""

    steps: tuple[dict[str, Any], ...]
    digest: str = ""


class PlanChanged(Entry, frozen=True, tag="typed_plan", kw_only=True):
    """A version of a typed plan got into a state, by the tool call `call`; a draft has its `value`.

    `rule` says by which rule of approval. `actions` tell of each action how it ended.
    """

    plan: str
    revision: int = msgspec.field(name="version")
    state: PlanState
    digest: str
    call: str
    value: dict[str, Any] | None = None
    rule: str = ""
    reason: str = ""
    actions: tuple[dict[str, Any], ...] = ()
