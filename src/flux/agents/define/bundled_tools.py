"""The bundled tools for agents that are made in code, by group."""

from __future__ import annotations

from typing import Any

Entries = list[dict[str, Any]]


def system_tools(**settings: Any) -> Entries:
    """Shell, files, search and directory; `settings` are those of a group, such as `workspace` and `timeout`."""
    return [{"system_tools": settings}]


def shell(**settings: Any) -> Entries:
    """The shell."""
    return [{"shell": settings}]


def files(**settings: Any) -> Entries:
    """Reading, writing and editing files."""
    return [{"files": settings}]


def search(**settings: Any) -> Entries:
    """Finding files, and text in them."""
    return [{"search": settings}]


def directory(**settings: Any) -> Entries:
    """Listing directories."""
    return [{"directory": settings}]
