"""The virtual sandbox: bash and files in memory, without anything of the host."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

from bashkit import Bash, ExecutionProfile, FileSystem

from flux.sandboxes.base import FileStat, Sandbox, ShellResult
from flux.sandboxes.processes import Output, checked
from flux.sandboxes.tree import Tree, utf8

ROOT = "/workspace"
USER = "agent"

#: Bytes a command may print before it is ended: less than what bashkit cuts without a word.
MAX_OUTPUT = 8_000_000

#: Bytes by which this process may grow while a command runs: what a loop prints into a file or a variable is
#: gathered here, and nothing else would end it before its time.
MAX_GROWTH = 512_000_000

#: Seconds between two looks at that.
LOOK = 0.1

#: Passes of one loop. Without a limit, a loop inside awk or jq ends for no timeout.
MAX_PASSES = 1_000_000

#: Seconds beyond the timeout for what does not look at it.
OVERTIME = 1.0

_TIMEOUT = "execution timeout"
_OVERFLOW = f"[ended: it printed more than {MAX_OUTPUT:,} bytes]\n"
_TOO_LARGE = f"[ended: it needed more than {MAX_GROWTH:,} bytes of memory]\n"


class VirtualSandbox(Sandbox):
    """Bash and files of its own, in this process's memory: no host files, network or environment.

    Each command has a shell of its own; they share the files in /workspace and /tmp.
    """

    name = "virtual"

    def __init__(self, tree: Tree | None = None, temporary: FileSystem | None = None) -> None:
        self.tree = tree or Tree(ROOT)
        self.cwd = self.tree.root
        self.temporary = temporary or FileSystem()

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
        """Run a command of bash; what it starts in the background it waits for."""
        utf8(command, "a command")
        bash = Bash(
            profile=ExecutionProfile.Interactive,
            username=USER,
            hostname="sandbox",
            cwd=self.folder(cwd),
            env={"HOME": ROOT, "TERM": "dumb", **checked(env or {})},
            max_loop_iterations=MAX_PASSES,
            timeout_seconds=timeout,
        )
        bash.mount(ROOT, self.tree.files)
        bash.mount("/tmp", self.temporary)  # noqa: S108 - a path inside the sandbox
        return await Execution(bash, on_output, max_output_bytes).run(command, timeout)

    async def read(self, path: str, *, limit: int | None = None) -> bytes:
        """The bytes of a file; OSError EFBIG when there are more than `limit`."""
        return self.tree.read(path, limit)

    async def write(self, path: str, data: bytes) -> None:
        """Replace a file's content; OSError where the virtual files would become too large."""
        self.tree.write(path, data)

    async def stat(self, path: str) -> FileStat:
        """What is at `path`."""
        return self.tree.stat(path)

    async def list(self, path: str) -> tuple[str, ...]:
        """The sorted names in a directory."""
        return self.tree.names(path)

    async def exists(self, path: str) -> bool:
        """Whether something is at `path`; a link without a target is nothing."""
        try:
            self.tree.look(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    async def mkdir(self, path: str) -> None:
        """Make a directory and its parents; no error when it is there."""
        self.tree.mkdir(path)

    async def remove(self, path: str, *, recursive: bool = False) -> None:
        """Remove a file, a link (not its target), or a directory with all it holds."""
        self.tree.remove(path, recursive=recursive)

    async def close(self) -> None:
        """Let go of the files."""
        self.tree, self.temporary = Tree(self.cwd), FileSystem()

    def folder(self, cwd: str | None) -> str:
        """Where a command begins, as scripts see it. FileNotFoundError, NotADirectoryError, PermissionError."""
        if cwd is None:
            return self.cwd
        real, found = self.tree.look(cwd)
        if found["file_type"] != "directory":
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), cwd)
        return (self.cwd + real).rstrip("/")


class Execution:
    """One command in a shell of its own.

    It runs in a thread of its own: in bashkit's, a command that computes would hold up those of others.
    """

    def __init__(self, bash: Bash, on_output: Callable[[str], None] | None, limit: int) -> None:
        self._bash = bash
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[Any] = self._loop.create_future()
        self._limit = limit
        self._on_output = on_output
        self._streams = (Output(limit, on_output), Output(limit, on_output))
        self._printed = 0

    async def gone(self, seconds: float) -> bool:
        """Wait at most so long until the command has really ended, also one that was left behind."""
        await asyncio.wait([self._ended], timeout=seconds)
        return self._ended.done()

    async def run(self, command: str, timeout: float, overtime: float = OVERTIME) -> ShellResult:
        """What came of the command; `timeout` is what its bash knows of, and `overtime` it gets beyond that."""
        threading.Thread(target=self._work, args=(command,), name="virtual shell", daemon=True).start()
        try:
            note = await self._watched(timeout + overtime)
        finally:
            self._bash.cancel()
        if not self._ended.done():
            await self.gone(OVERTIME)
            return self._so_far(note)
        result = self._ended.result()
        if result.error is not None and _TIMEOUT in result.error:
            return self._so_far(note)
        note = note or (_OVERFLOW if self._printed > MAX_OUTPUT else "")
        return self._so_far(note, exit_code=result.exit_code) if note else self._whole(result)

    async def _watched(self, seconds: float) -> str:
        """Wait for the end, at most so long; why it had to come, where it was not for the time."""
        note, most, until = "", _peak() + MAX_GROWTH, self._loop.time() + seconds
        while not self._ended.done() and (left := until - self._loop.time()) > 0:
            await asyncio.wait([self._ended], timeout=min(LOOK, left))
            if not note and not self._ended.done() and _peak() > most:
                note, until = _TOO_LARGE, self._loop.time() + OVERTIME
                self._bash.cancel()
        return note

    def _work(self, command: str) -> None:
        try:
            result = self._bash.execute_sync(command, self._printing)
        except RuntimeError as error:
            self._tell(self._fail, error)
        else:
            self._tell(self._end, result)

    def _printing(self, stdout: str, stderr: str) -> None:
        """Pass on what came; called in the command's thread."""
        self._printed += len(stdout) + len(stderr)
        if self._printed > MAX_OUTPUT:
            self._bash.cancel()
            return
        self._tell(self._print, stdout, stderr)

    def _print(self, stdout: str, stderr: str) -> None:
        for stream, text in zip(self._streams, (stdout, stderr), strict=True):
            if text and not self._ended.done():
                stream.data_received(text.encode("utf-8", "replace"))

    def _end(self, result: Any) -> None:
        if not self._ended.done():
            self._ended.set_result(result)

    def _fail(self, error: RuntimeError) -> None:
        if not self._ended.done():
            self._ended.set_exception(OSError(errno.EIO, f"the virtual shell broke: {error}"))

    def _tell(self, what: Callable[..., None], *args: Any) -> None:
        # The loop may be closed by now: then nobody waits for this command.
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(what, *args)

    def _whole(self, result: Any) -> ShellResult:
        """Of a command that ended. What it printed comes in whole characters only here."""
        out, err = Output(self._limit, None), Output(self._limit, None)
        out.data_received(result.stdout_bytes)
        err.data_received(result.stderr_bytes)
        stderr = err.text()
        if result.stdout_truncated or result.stderr_truncated:
            stderr += "[the virtual shell has cut the output]\n"
        return ShellResult(
            exit_code=result.exit_code,
            stdout=out.text(),
            stderr=stderr,
            truncated=out.truncated or err.truncated or result.stdout_truncated or result.stderr_truncated,
        )

    def _so_far(self, note: str, exit_code: int | None = None) -> ShellResult:
        """Of a command that had to be ended: because of its time where there is no note."""
        out, err = self._streams
        return ShellResult(
            exit_code=exit_code,
            stdout=out.text(),
            stderr=err.text() + note,
            timed_out=not note,
            truncated=bool(note) or out.truncated or err.truncated,
        )


def _peak() -> int:
    """The most memory this process ever had, in bytes."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024
