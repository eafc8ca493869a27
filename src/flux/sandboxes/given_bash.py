"""A sandbox of a bash that somebody else has made and set up."""

from __future__ import annotations

import asyncio
import errno
import shlex
from collections.abc import Callable, Mapping

from bashkit import Bash

from flux.sandboxes.base import ShellResult
from flux.sandboxes.in_memory import Execution, VirtualSandbox
from flux.sandboxes.processes import checked
from flux.sandboxes.tree import Tree, utf8


class BashSandbox(VirtualSandbox):
    """A bashkit `Bash`, with its own commands, variables, mounts and limits. Its directory is the workspace.

    What is in there is copied, once. Commands run one after another, each in the shell as it was given.

    :raises OSError: its directory is the root of its files
    """

    def __init__(self, bash: Bash) -> None:
        root = bash.shell_state().cwd
        if root == "/":
            reason = "the bash begins in /; give it a directory of its own, as in Bash(cwd='/project')"
            raise OSError(errno.EINVAL, reason)
        tree = Tree(root)
        if bash.exists(root):
            _copy(bash, root, tree)
        bash.mount(root, tree.files)
        super().__init__(tree)
        self.cwd = root
        self._bash = bash
        self._as_given = bash.snapshot(exclude_filesystem=True)
        self._lock = asyncio.Lock()
        self._last: Execution | None = None

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
        """Run a command of bash; it has its time from when those before it have ended. OSError EBUSY if they do not."""
        utf8(command, "a command")
        names = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in checked(env or {}).items())
        script = f"cd {shlex.quote(self.folder(cwd))}\n{names}{command}"
        async with self._lock:
            if self._last is not None and not await self._last.gone(timeout):
                raise OSError(errno.EBUSY, "a command that was ended before still runs")
            self._bash.clear_cancel()
            self._bash.restore_snapshot(self._as_given)
            self._last = Execution(self._bash, on_output, max_output_bytes)
            return await self._last.run(script, timeout, overtime=0.0)


def _copy(bash: Bash, root: str, tree: Tree) -> None:
    """Copy what a bash has below its directory."""
    found = Tree(root, bash.fs())
    for path, entry in found.entries(root):
        to = path.removeprefix(root)
        match entry["file_type"]:
            case "directory":
                tree.files.mkdir(to, recursive=True)
            case "symlink":
                tree.files.symlink(bash.read_link(path), to)
            case "file":
                tree.files.write_file(to, found.files.read_file(path))
                tree.files.chmod(to, entry["mode"])
