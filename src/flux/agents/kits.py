"""Kits: what a part of an agent (skills, memory, a plan, ...) brings to one of its sessions."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import Struct

from flux.events import ContextFrozen
from flux.tools.base import Resource, Tool


class Kit(Struct, frozen=True):
    """Tools for the model, a section of the system prompt (Markdown with its own heading), and readers by scheme.

    A part that changes by itself says so: `stale` when it would bring something else by now, `outdates` when a
    frozen prompt has to be made anew for what it brings.
    """

    tools: tuple[Tool, ...] = ()
    prompt: str = ""
    resources: Mapping[str, Resource] = {}
    stale: Callable[[], bool] | None = None
    outdates: Callable[[ContextFrozen], bool] | None = None
