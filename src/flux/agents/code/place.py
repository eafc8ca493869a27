"""Where an agent of the application acts: what its configuration says of a sandbox, as a live one."""

from __future__ import annotations

import inspect
import os
import posixpath
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from flux.agents.code.bash_like import BashLike, is_bash_like
from flux.errors import DefinitionInvalid, FluxError, Unavailable, describe
from flux.sandboxes.base import Entry, FileStat, HostSandbox, Sandbox, ShellResult
from flux.sandboxes.factories import virtual


async def open_sandbox(agent: str, given: Any, cwd: str | None) -> Sandbox:
    """The sandbox of an agent: what it was given makes one; None and False stand for the virtual one.

    :raises Unavailable: it cannot be made; the cause is told
    :raises DefinitionInvalid: what was made is no sandbox, or the directory cannot be one
    """
    with _telling(agent):
        made: Any = virtual() if given is None or given is False else given
        if isinstance(made, type) or not (hasattr(made, "open") or is_bash_like(made)):
            made = made()
            made = await made if inspect.isawaitable(made) else made
        if hasattr(made, "open"):
            made = await made.open(workspace=_expanded(cwd))
        elif is_bash_like(made) and not _is_sandbox(made):
            made = await BashLike.open(made)
    if not _is_sandbox(made):
        raise DefinitionInvalid(
            f"agent {agent}: sandbox: its function made a {type(made).__name__}, which is no sandbox", field="sandbox"
        )
    return made if cwd is None else await _at(agent, made, cwd)


async def _at(agent: str, sandbox: Sandbox, cwd: str) -> Sandbox:
    """The sandbox with its directory resolved, once."""
    if sandbox.cwd == _real(cwd):
        return sandbox
    try:
        if not isinstance(sandbox, HostSandbox):
            await sandbox.mkdir(cwd)  # nothing is in it yet
        if not (await sandbox.stat(cwd)).is_directory:
            raise NotADirectoryError(f"{cwd} is not a directory")
    except OSError as error:
        raise DefinitionInvalid(f"agent {agent}: cwd: {error}", field="cwd") from error
    return seen_from(sandbox, cwd)


def seen_from(sandbox: Sandbox, cwd: str) -> Sandbox:
    """The same sandbox with another of its directories as the one that paths are relative to."""
    return AtOnHost(sandbox, cwd) if isinstance(sandbox, HostSandbox) else At(sandbox, cwd)


class At(Sandbox):
    """A sandbox as seen from a directory in it."""

    def __init__(self, sandbox: Sandbox, cwd: str) -> None:
        self._whole = sandbox
        self.name = sandbox.name
        self.cwd = posixpath.normpath(posixpath.join(sandbox.cwd, cwd))

    async def exec(
        self,
        command: str,
        *,
        timeout: float,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        on_output: Callable[[str], None] | None = None,
        max_output_bytes: int = 1_000_000,
    ) -> ShellResult:
        """Run a command."""
        return await self._whole.exec(
            command,
            timeout=timeout,
            cwd=self._path(cwd or "."),
            env=env,
            on_output=on_output,
            max_output_bytes=max_output_bytes,
        )

    async def read(self, path: str, *, limit: int | None = None) -> bytes:
        """The bytes of a file."""
        return await self._whole.read(self._path(path), limit=limit)

    async def write(self, path: str, data: bytes) -> None:
        """Replace a file's content."""
        await self._whole.write(self._path(path), data)

    async def stat(self, path: str) -> FileStat:
        """What is at `path`."""
        return await self._whole.stat(self._path(path))

    async def list(self, path: str) -> tuple[str, ...]:
        """The sorted names in a directory."""
        return await self._whole.list(self._path(path))

    async def exists(self, path: str) -> bool:
        """Whether something is at `path`."""
        return await self._whole.exists(self._path(path))

    async def mkdir(self, path: str) -> None:
        """Make a directory and its parents."""
        await self._whole.mkdir(self._path(path))

    async def remove(self, path: str, *, recursive: bool = False) -> None:
        """Remove a file or a directory."""
        await self._whole.remove(self._path(path), recursive=recursive)

    async def close(self) -> None:
        """Nothing: the whole sandbox is somebody else's."""

    def _path(self, path: str) -> str:
        return posixpath.join(self.cwd, path)


class AtOnHost(At):
    """The same, of one whose files are on this host."""

    _whole: HostSandbox

    async def resolve(self, path: str) -> str:
        """The absolute path with links and `..` resolved."""
        return await self._whole.resolve(self._path(path))

    async def walk(self, path: str, *, skip: frozenset[str], depth: int, limit: int) -> tuple[Entry, ...]:
        """What is below a directory."""
        return await self._whole.walk(self._path(path), skip=skip, depth=depth, limit=limit)

    def rooted(self, workspace: str) -> Sandbox:
        """The same kind of sandbox for another directory."""
        return self._whole.rooted(self._path(workspace))


def _expanded(cwd: str | None) -> str:
    return os.path.expanduser(cwd or ".")


def _real(cwd: str) -> str:
    return os.path.realpath(os.path.expanduser(cwd))


def _is_sandbox(made: Any) -> bool:
    return all(hasattr(made, name) for name in ("exec", "read", "write", "stat", "list", "exists", "cwd", "name"))


class _telling:  # noqa: N801 - used as a function is
    """Says of whatever goes wrong inside which agent's sandbox it was."""

    def __init__(self, agent: str) -> None:
        self._agent = agent

    def __enter__(self) -> None:
        """Nothing."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Tell."""
        if isinstance(error, Exception) and not isinstance(error, FluxError):
            raise Unavailable(f"the sandbox of agent {self._agent} cannot be made: {describe(error)}") from error
