"""Read, write and edit files."""

from __future__ import annotations

import asyncio
import posixpath
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated
from weakref import WeakValueDictionary

from msgspec import Struct
from pydantic import Field

from flux.sandboxes.base import HostSandbox, Sandbox
from flux.tools.base import Done, Failed, Tool, ToolContext, ToolOutcome
from flux.tools.text import is_binary, is_utf16, lines_of, shorten
from flux.tools.workspace import GroupConfig, builtin

MAX_FILE = 50_000_000
"""Bytes of the largest file that is read or edited."""

READER = "read_file"
"""The tool that reads addresses too."""

_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.DOTALL)
_READ_ONLY = "{} can only be read"

# A lock lives as long as somebody holds or awaits it. It belongs to one event loop, so the loop is
# part of the key.
_writers: WeakValueDictionary[tuple[int, str, str], asyncio.Lock] = WeakValueDictionary()


class FileNames(Struct, frozen=True):
    """What the tools call each other, and the arguments of edit_file, where they speak of them."""

    write: str = "write_file"
    old: str = "old_string"
    new: str = "new_string"


NAMES = FileNames()


class FileTools:
    """read_file, write_file, edit_file, file_info. At most `lines` are shown at once; None: as many as fit."""

    def __init__(
        self,
        config: GroupConfig,
        names: FileNames = NAMES,
        lines: int | None = None,
    ) -> None:
        self._config = config
        self._names = names
        self._lines = lines

    def tools(self) -> tuple[Tool, ...]:
        """The tools of the group."""
        return (
            builtin(self.read_file, self._config, "read"),
            builtin(self.write_file, self._config, "idempotent"),
            builtin(self.edit_file, self._config, "once"),
            builtin(self.file_info, self._config, "read"),
        )

    async def read_file(
        self,
        context: ToolContext,
        path: str,
        offset: Annotated[int, Field(ge=0)] = 0,
        limit: Annotated[int, Field(ge=0)] = 0,
    ) -> ToolOutcome:
        """Read a text file. Each line is shown with its number and a tab before it.

        Args:
            path: The file, relative to the workspace, or an address such as skill://name/path that a tool gave.
            offset: How many lines to skip.
            limit: How many lines to show at most; 0 for as many as fit.
        """
        address = _ADDRESS.fullmatch(path)
        data = await _resource(context, *address.groups()) if address else await _small_file(context.sandbox, path)
        if is_binary(data):
            return Done(f"{path} is a binary file of {len(data):,} bytes; it is not shown.")
        shown = min(limit or self._lines, self._lines) if self._lines else limit
        return Done(_page(lines_of(data), offset, shown, self._config.max_output_chars))

    async def write_file(self, context: ToolContext, path: str, content: str) -> ToolOutcome:
        """Write a text file; one that exists is replaced. Missing directories are made.

        Args:
            path: The file, relative to the workspace.
            content: The whole new content.
        """
        if _ADDRESS.fullmatch(path):
            return Failed(_READ_ONLY.format(path))
        data = content.encode()
        async with _writing(context.sandbox, path):
            await context.sandbox.write(path, data)
        return Done(f"{path}: {len(data):,} bytes written")

    async def edit_file(
        self, context: ToolContext, path: str, old_string: str, new_string: str, replace_all: bool = False
    ) -> ToolOutcome:
        """Replace text in a file. The text is taken literally and must occur exactly once.

        Args:
            path: The file, relative to the workspace.
            old_string: The text to replace, without line numbers, with enough around it to be unique.
            new_string: The text to put in its place.
            replace_all: Replace every occurrence.
        """
        if not old_string:
            return Failed(f"{self._names.old} is empty; use {self._names.write} to make or replace a whole file")
        if _ADDRESS.fullmatch(path):
            return Failed(_READ_ONLY.format(path))
        if old_string == new_string:
            return Failed(f"{self._names.old} and {self._names.new} are the same")
        async with _writing(context.sandbox, path):
            data = await _small_file(context.sandbox, path)
            if is_utf16(data):
                return Failed(f"{path} is UTF-16; only UTF-8 files can be edited")
            old, new = _like(data, old_string.encode()), _like(data, new_string.encode())
            count = data.count(old)
            if count != 1 and not (replace_all and count):
                return Failed(_miscounted(path, count, self._names.old))
            await context.sandbox.write(path, data.replace(old, new))
        line = data[: data.index(old)].count(b"\n") + 1
        where = f"line {line}" if count == 1 else f"the first in line {line}"
        return Done(f"{path}: {count} replaced, {where}")

    async def file_info(self, context: ToolContext, path: str) -> ToolOutcome:
        """Say what is at a path: its type, size and time of change.

        Args:
            path: The file or directory, relative to the workspace.
        """
        found = await context.sandbox.stat(path)
        kind = "directory" if found.is_directory else "file" if found.is_file else "special file"
        link = " (through a symbolic link)" if found.is_symbolic_link else ""
        changed = datetime.fromtimestamp(found.mtime, UTC).isoformat(timespec="seconds")
        return Done(f"path: {path}\ntype: {kind}{link}\nsize: {found.size} bytes\nmodified: {changed}")


def resource_reader() -> Tool:
    """A `read_file` that reads addresses and nothing else, for agents that have no files."""
    tools = FileTools(GroupConfig())

    async def read_file(
        context: ToolContext,
        path: str,
        offset: Annotated[int, Field(ge=0)] = 0,
        limit: Annotated[int, Field(ge=0)] = 0,
    ) -> ToolOutcome:
        """Read what stands behind an address. Each line is shown with its number and a tab before it.

        Args:
            path: An address such as skill://name/path or artifact://id that a tool gave.
            offset: How many lines to skip.
            limit: How many lines to show at most; 0 for as many as fit.
        """
        if not _ADDRESS.fullmatch(path):
            return Failed(f"{path[:200]} is no address; this agent reads no other files")
        return await tools.read_file(context, path, offset, limit)

    return builtin(read_file, GroupConfig(), "read")


async def _resource(context: ToolContext, scheme: str, path: str) -> bytes:
    read = context.resources.get(scheme)
    if read is None:
        known = ", ".join(f"{name}://" for name in sorted(context.resources)) or "none"
        raise FileNotFoundError(f"there is nothing to read behind {scheme}://; addresses begin with: {known}")
    return await read(path)


async def _small_file(sandbox: Sandbox, path: str) -> bytes:
    size = (await sandbox.stat(path)).size
    if size > MAX_FILE:
        raise OSError(f"{path} has {size:,} bytes, more than {MAX_FILE:,}; search it with grep")
    return await sandbox.read(path)


def _page(lines: list[str], offset: int, limit: int, max_chars: int) -> str:
    """Numbered lines from `offset`, as many as fit, and how to go on when there are more."""
    if not lines:
        return "(the file is empty)"
    if offset >= len(lines):
        return f"(the file has {len(lines)} lines; nothing is left after offset {offset})"
    wanted = lines[offset : offset + limit] if limit else lines[offset:]
    room, shown = max_chars - 100, list[str]()
    for number, line in enumerate(wanted, offset + 1):
        text = f"{number:6}\t{shorten(line)}".replace("\0", "\ufffd")
        room -= len(text) + 1
        if room < 0 and shown:
            break
        shown.append(text)
    end = offset + len(shown)
    if end < len(lines):
        shown.append(f"[lines {offset + 1} to {end} of {len(lines)}; read on with offset={end}]")
    return "\n".join(shown)


def _like(data: bytes, text: bytes) -> bytes:
    """The text with the file's line ends, when all of them are CRLF."""
    if b"\n" not in data or data.count(b"\n") != data.count(b"\r\n"):
        return text
    return text.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def _miscounted(path: str, count: int, old: str) -> str:
    if count == 0:
        return f"{path}: {old} occurs 0 times; it must match the file exactly, spaces and line ends too"
    return f"{path}: {old} occurs {count} times; add text around it, or set replace_all"


@asynccontextmanager
async def _writing(sandbox: Sandbox, path: str) -> AsyncIterator[None]:
    """One writer at a time for a file, whatever name it goes by."""
    if isinstance(sandbox, HostSandbox):
        real = await sandbox.resolve(path)
    else:
        real = posixpath.normpath(posixpath.join(sandbox.cwd, path))
    key = (id(asyncio.get_running_loop()), sandbox.name, real)
    lock = _writers.setdefault(key, asyncio.Lock())
    async with lock:
        yield
