"""A sandbox of whatever runs the commands of a shell: its files are read and written by commands too."""

from __future__ import annotations

import asyncio
import base64
import errno
import inspect
import os
import posixpath
import shlex
from collections.abc import Callable, Mapping
from typing import Any

from flux.sandboxes.base import FileStat, Sandbox, ShellResult

#: Seconds that a command which reads or writes a file may take.
FILE_SECONDS = 60.0
KINDS = {"regular file": (True, False), "regular empty file": (True, False), "directory": (False, True)}


def is_bash_like(made: Any) -> bool:
    """Whether it runs commands and is no sandbox."""
    return any(callable(getattr(made, name, None)) for name in ("execute", "exec"))


class BashLike(Sandbox):
    """Wraps an object whose `execute(command)` or `exec(command)` gives, or awaits, stdout, stderr and exit_code."""

    name = "bash"

    def __init__(self, bash: Any, cwd: str) -> None:
        self._bash = bash
        self.cwd = cwd

    @classmethod
    async def open(cls, bash: Any) -> BashLike:
        """The sandbox of a shell, in the directory where that is."""
        found = await cls(bash, "/")._execute("pwd")
        return cls(bash, found.stdout.strip() or "/")

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
        """Run a command in a shell of its own."""
        lines = [f"cd {shlex.quote(self._path(cwd or '.'))} || exit 1"]
        lines += [f"export {name}={shlex.quote(value)}" for name, value in (env or {}).items()]
        try:
            async with asyncio.timeout(timeout):
                result = await self._execute("(\n" + "\n".join([*lines, command]) + "\n)")
        except TimeoutError:
            self._cancel()
            return ShellResult(None, "", "", timed_out=True)
        except asyncio.CancelledError:
            self._cancel()
            raise
        if on_output is not None:
            on_output(result.stdout + result.stderr)
        out, err = result.stdout[:max_output_bytes], result.stderr[:max_output_bytes]
        return ShellResult(result.exit_code, out, err, truncated=(out, err) != (result.stdout, result.stderr))

    async def read(self, path: str, *, limit: int | None = None) -> bytes:
        """The bytes of a file."""
        found = await self.stat(path)
        if found.is_directory:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if limit is not None and found.size > limit:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
        return base64.b64decode(await self._done(f"base64 {self._quoted(path)}", path))

    async def write(self, path: str, data: bytes) -> None:
        """Replace a file's content; missing parent directories are made."""
        folder = shlex.quote(posixpath.dirname(self._path(path)) or "/")
        text = base64.b64encode(data).decode()
        await self._done(f"mkdir -p {folder} && base64 -d > {self._quoted(path)} <<'END'\n{text}\nEND", path)

    async def stat(self, path: str) -> FileStat:
        """What is at `path`, links followed."""
        quoted = self._quoted(path)
        told = await self._done(f"stat -L -c '%F|%s|%Y' {quoted} && (test -L {quoted} && echo link || echo)", path)
        first, _, link = told.strip().partition("\n")
        kind, size, changed = first.rsplit("|", 2)
        is_file, is_directory = KINDS.get(kind, (False, False))
        return FileStat(is_file, is_directory, link == "link", int(size), float(changed))

    async def list(self, path: str) -> tuple[str, ...]:
        """The sorted names in a directory."""
        if not (await self.stat(path)).is_directory:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        return tuple(sorted((await self._done(f"ls -1A {self._quoted(path)}", path)).splitlines()))

    async def exists(self, path: str) -> bool:
        """Whether something is at `path`."""
        return (await self._execute(f"test -e {self._quoted(path)}")).exit_code == 0

    async def mkdir(self, path: str) -> None:
        """Make a directory and its parents."""
        await self._done(f"mkdir -p {self._quoted(path)}", path)

    async def remove(self, path: str, *, recursive: bool = False) -> None:
        """Remove a file, or a directory with all it holds."""
        quoted = self._quoted(path)
        plain = f"if test -d {quoted}; then rmdir {quoted}; else rm {quoted}; fi"
        await self._done(f"test -e {quoted} && rm -r {quoted}" if recursive else plain, path)

    async def close(self) -> None:
        """Nothing: whoever made the shell closes it."""

    def _path(self, path: str) -> str:
        return posixpath.normpath(posixpath.join(self.cwd, path))

    def _quoted(self, path: str) -> str:
        if "\0" in path:
            raise OSError(errno.EINVAL, "a path cannot hold a NUL character")
        return shlex.quote(self._path(path))

    async def _done(self, command: str, path: str) -> str:
        async with asyncio.timeout(FILE_SECONDS):
            result = await self._execute(command)
            if result.exit_code == 0:
                return result.stdout
            there = (await self._execute(f"test -e {self._quoted(path)}")).exit_code == 0
        if not there:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        raise OSError(errno.EIO, result.stderr.strip() or os.strerror(errno.EIO), path)

    async def _execute(self, command: str) -> ShellResult:
        run = getattr(self._bash, "execute", None) or self._bash.exec
        result = run(command)
        result = await result if inspect.isawaitable(result) else result
        return ShellResult(int(result.exit_code), _text(result.stdout), _text(result.stderr))

    def _cancel(self) -> None:
        cancel = getattr(self._bash, "cancel", None)
        if callable(cancel):
            cancel()


def _text(said: Any) -> str:
    return said.decode(errors="replace") if isinstance(said, bytes) else str(said or "")
