"""Kits: what a part of an agent (skills, memory, a plan, ...) brings to one of its sessions."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import Struct

from flux.tools.base import Resource, Tool


class Kit(Struct, frozen=True):
    """Tools for the model, a section of the system prompt, and readers by scheme.

    The section is Markdown with its own heading; a function of it is asked whenever the prompt is frozen.
    """

    tools: tuple[Tool, ...] = ()
    prompt: str | Callable[[], str] = ""
    resources: Mapping[str, Resource] = {}
