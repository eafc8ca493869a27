"""Groups of bundled tools for agents made in code: `agent(..., tools=[*files(workspace="docs"), my_task])`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flux.tools.workspace import DEFAULT_BLOCKLIST, GroupConfig

__all__ = ["DEFAULT_BLOCKLIST", "directory", "files", "search", "shell", "system_tools"]

Entries = list[dict[str, Any]]


def system_tools(
    workspace: str = ".",
    *,
    timeout: float = 30,
    max_output_chars: int = 100_000,
    blocklist: Iterable[str] = DEFAULT_BLOCKLIST,
    requires_approval: bool | Iterable[str] | None = None,
) -> Entries:
    """All tools of `shell`, `files`, `search` and `directory`, in one workspace; `timeout` in seconds.

    :raises DefinitionInvalid: a setting is wrong
    """
    return _entries("system_tools", workspace, timeout, max_output_chars, blocklist, requires_approval)


def shell(
    workspace: str = ".",
    *,
    timeout: float = 30,
    max_output_chars: int = 100_000,
    blocklist: Iterable[str] = DEFAULT_BLOCKLIST,
    requires_approval: bool | Iterable[str] | None = None,
) -> Entries:
    """The tool `shell`; see `system_tools`."""
    return _entries("shell", workspace, timeout, max_output_chars, blocklist, requires_approval)


def files(
    workspace: str = ".",
    *,
    timeout: float = 30,
    max_output_chars: int = 100_000,
    requires_approval: bool | Iterable[str] | None = None,
) -> Entries:
    """read_file, write_file, edit_file and file_info; see `system_tools`."""
    return _entries("files", workspace, timeout, max_output_chars, None, requires_approval)


def search(workspace: str = ".", *, timeout: float = 30, max_output_chars: int = 100_000) -> Entries:
    """find_files and grep; see `system_tools`."""
    return _entries("search", workspace, timeout, max_output_chars, None, None)


def directory(workspace: str = ".", *, timeout: float = 30, max_output_chars: int = 100_000) -> Entries:
    """list_directory and directory_tree; see `system_tools`."""
    return _entries("directory", workspace, timeout, max_output_chars, None, None)


def _entries(
    group: str,
    workspace: str,
    timeout: float,
    max_output_chars: int,
    blocklist: Iterable[str] | None,
    approval: bool | Iterable[str] | None,
) -> Entries:
    asks = approval if isinstance(approval, bool | None) else list(approval)
    words = None if blocklist is None else list(blocklist)
    given = {"blocklist": words, "requires_approval": asks}
    settings = {"workspace": workspace, "timeout": timeout, "max_output_chars": max_output_chars}
    settings |= {name: value for name, value in given.items() if value is not None}
    GroupConfig.of(group, settings)
    return [{group: settings}]
