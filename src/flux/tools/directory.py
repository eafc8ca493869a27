"""List directories."""

from __future__ import annotations

import posixpath
from typing import Annotated

from pydantic import Field

from flux.sandboxes.base import Entry
from flux.tools.base import Done, Tool, ToolContext, ToolOutcome
from flux.tools.kept import kept
from flux.tools.text import printable
from flux.tools.workspace import MAX_ENTRIES, SKIPPED, GroupConfig, builtin, walk

MAX_SHOWN = 1_000
"""Entries that are shown; the total is always said."""

_MARKS = {"file": "", "directory": "/", "link": "@", "other": "?"}


class DirectoryTools:
    """list_directory, directory_tree."""

    def __init__(self, config: GroupConfig) -> None:
        self._config = config

    def tools(self) -> tuple[Tool, ...]:
        """The tools of the group."""
        return builtin(self.list_directory, self._config, "read"), builtin(self.directory_tree, self._config, "read")

    async def list_directory(self, context: ToolContext, path: str = ".") -> ToolOutcome:
        """List a directory. Names of directories end in /, of symbolic links in @.

        Args:
            path: The directory, relative to the workspace.
        """
        entries = await walk(context.sandbox, path, depth=1)
        return Done(await _shown([printable(entry.path) + _MARKS[entry.kind] for entry in entries], context))

    async def directory_tree(
        self, context: ToolContext, path: str = ".", max_depth: Annotated[int, Field(ge=1, le=20)] = 3
    ) -> ToolOutcome:
        """Show a directory and what is below it, indented. Large tool directories are not entered.

        Args:
            path: The directory, relative to the workspace.
            max_depth: How many levels to show.
        """
        entries = await walk(context.sandbox, path, depth=max_depth)
        return Done(await _shown([_branch(entry) for entry in entries], context))


def _branch(entry: Entry) -> str:
    name = posixpath.basename(entry.path)
    closed = " (not shown)" if entry.kind == "directory" and name in SKIPPED else ""
    return f"{'  ' * entry.path.count('/')}{printable(name)}{_MARKS[entry.kind]}{closed}"


async def _shown(lines: list[str], context: ToolContext) -> str:
    if not lines:
        return "(the directory is empty)"
    if len(lines) <= MAX_SHOWN:
        return "\n".join(lines)
    total = f"{'more than ' if len(lines) >= MAX_ENTRIES else ''}{len(lines):,}"
    shown = "\n".join([*lines[:MAX_SHOWN], f"[{MAX_SHOWN:,} of {total} entries are shown]"])
    return shown + await kept("\n".join(lines), context)
