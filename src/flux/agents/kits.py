"""Kits: what a part of an agent (skills, memory, a plan, ...) brings to one of its sessions."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from flux.tools.base import Resource, Tool


class Kit(Struct, frozen=True):
    """Tools for the model, a section of the system prompt (Markdown with its own heading), and readers by scheme."""

    tools: tuple[Tool, ...] = ()
    prompt: str = ""
    resources: Mapping[str, Resource] = {}
