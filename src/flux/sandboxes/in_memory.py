"""The virtual sandbox: bash and files in memory, without anything of the host."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any

from bashkit import Bash, ExecutionProfile, FileSystem

from flux.sandboxes.base import FileStat, Sandbox, ShellResult
from flux.sandboxes.processes import Output, checked, encodable
from flux.sandboxes.tree import Tree

ROOT = "/workspace"
USER = "agent"

#: Bytes a command may print before it is ended; bashkit would gather all of it in this process's memory.
MAX_OUTPUT = 32_000_000

#: Passes of one loop. Without a limit, a loop inside awk or jq ends for no timeout.
MAX_PASSES = 1_000_000

#: Seconds beyond the timeout for what does not look at it.
OVERTIME = 1.0

_TIMEOUT = "execution timeout"
_OVERFLOW = "[ended: it printed more than {:,} bytes]\n"


class VirtualSandbox(Sandbox):
    """Bash and files of its own, in this process's memory: no host files, network or environment.

    Each command has a shell of its own; they share the files in /workspace and /tmp.
    """

    name = "virtual"
    cwd = ROOT

    def __init__(self) -> None:
        self.tree = Tree(ROOT)
        self._temporary = FileSystem()

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
        encodable(command, "a command")
        bash = Bash(
            profile=ExecutionProfile.Interactive,
            username=USER,
            hostname="sandbox",
            cwd=self._folder(cwd),
            env={"HOME": ROOT, "TERM": "dumb", **checked(env or {})},
            max_loop_iterations=MAX_PASSES,
            timeout_seconds=timeout,
        )
        bash.mount(ROOT, self.tree.files)
        bash.mount("/tmp", self._temporary)  # noqa: S108 - a path inside the sandbox
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
        self.tree, self._temporary = Tree(ROOT), FileSystem()

    def _folder(self, cwd: str | None) -> str:
        if cwd is None:
            return ROOT
        real, found = self.tree.look(cwd)
        if found["file_type"] != "directory":
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), cwd)
        return (ROOT + real).rstrip("/")


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

    async def run(self, command: str, timeout: float) -> ShellResult:
        """What came of the command."""
        threading.Thread(target=self._work, args=(command,), name="virtual shell", daemon=True).start()
        try:
            async with asyncio.timeout(timeout + OVERTIME):
                result = await self._ended
        except TimeoutError:
            return self._so_far("")
        finally:
            self._bash.cancel()
        if result.error is not None and _TIMEOUT in result.error:
            return self._so_far("")
        if self._printed > MAX_OUTPUT:
            return self._so_far(_OVERFLOW.format(MAX_OUTPUT), exit_code=result.exit_code)
        return self._whole(result)

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
        more = "[the output is cut here by the virtual shell]\n"
        stderr = err.text()
        if result.stdout_truncated or result.stderr_truncated:
            stderr += more
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
