"""The sandbox seam: where tools act. One protocol, one contract: `flux.testing_sandboxes`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, Protocol, runtime_checkable

from msgspec import Struct


class ShellResult(Struct, frozen=True):
    """How a command ended. `exit_code` is None when it was killed by its timeout or by a cancel."""

    exit_code: int | None
    stdout: str
    stderr: str
    timed_out: bool = False
    truncated: bool = False


class FileStat(Struct, frozen=True):
    """What a path is; `size` in bytes, `mtime` in seconds since the epoch."""

    is_file: bool
    is_directory: bool
    is_symbolic_link: bool
    size: int
    mtime: float


class Entry(Struct, frozen=True):
    """Something found by a walk; `path` is relative to where the walk began, with `/` between names."""

    path: str
    kind: Literal["file", "directory", "link", "other"]


class Sandbox(Protocol):
    """A place with files and a shell. Paths are relative to `cwd`, or absolute inside it.

    `cwd` is absolute and never changes: each command begins there, in a shell of its own. Every path is
    resolved, links included, before use; one that leaves the workspace raises PermissionError. Other file
    errors are the usual OSError subclasses. Nothing blocks the event loop.
    """

    name: str
    cwd: str

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
        """Run a shell command; `timeout` in seconds, `env` are variables beside those it has anyway.

        Cancelling the awaiting task ends all that the command has started, and so does its end. Output collected
        so far is kept on timeout; `max_output_bytes` holds for each of stdout and stderr.
        """
        ...

    async def read(self, path: str, *, limit: int | None = None) -> bytes:
        """The bytes of a file; OSError EFBIG when there are more than `limit`."""
        ...

    async def write(self, path: str, data: bytes) -> None:
        """Replace a file's content; missing parent directories are made."""
        ...

    async def stat(self, path: str) -> FileStat:
        """What is at `path`."""
        ...

    async def list(self, path: str) -> tuple[str, ...]:
        """The sorted names in a directory."""
        ...

    async def exists(self, path: str) -> bool:
        """Whether something is at `path`."""
        ...

    async def mkdir(self, path: str) -> None:
        """Make a directory and its parents."""
        ...

    async def remove(self, path: str, *, recursive: bool = False) -> None:
        """Remove a file, or a directory with all it holds."""
        ...

    async def close(self) -> None:
        """Release what the sandbox holds."""
        ...


class SandboxFactory(Protocol):
    """What `virtual()`, `local()` and `isolated()` give: it makes a sandbox where one is needed."""

    @property
    def name(self) -> str:
        """Of the sandboxes it makes."""
        ...

    async def open(self, *, workspace: str = ".") -> Sandbox:
        """A new sandbox; `workspace` is the host's directory for those that act in one and name none themselves.

        :raises SandboxUnavailable: it cannot work here; says what to do
        :raises OSError: the directory cannot be used
        """
        ...


@runtime_checkable
class HostSandbox(Sandbox, Protocol):
    """A sandbox whose files are on this host: walks are one step, and the host's programs may be used."""

    async def resolve(self, path: str) -> str:
        """The absolute path with links and `..` resolved; PermissionError when it leaves the workspace."""
        ...

    async def walk(self, path: str, *, skip: frozenset[str], depth: int, limit: int) -> tuple[Entry, ...]:
        """What is below a directory, a directory before what it holds, names sorted by their bytes.

        Directories named in `skip` are listed, not entered; links are not followed. `depth` 1 is the
        directory itself. Ends after `limit` entries.
        """
        ...

    def rooted(self, workspace: str) -> Sandbox:
        """The same kind of sandbox for another directory; a relative one is taken from `cwd`."""
        ...
