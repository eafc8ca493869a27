"""Files of a sandbox for code: what `session.fs` and `harness.fs` are."""

from __future__ import annotations

import errno
import os
import posixpath
from contextlib import suppress

from flux.sandboxes.base import FileStat, Sandbox


class Files:
    """Reads and writes the files of a sandbox; paths are relative to its `cwd`, or absolute inside it.

    PermissionError for a path that leads out of the workspace; other errors are the usual OSError subclasses.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    async def read_file(self, path: str) -> str:
        """A file's text. UnicodeDecodeError when it is not UTF-8."""
        return (await self._sandbox.read(path)).decode()

    async def read_file_buffer(self, path: str) -> bytes:
        """A file's bytes."""
        return await self._sandbox.read(path)

    async def write_file(self, path: str, content: str | bytes) -> None:
        """Replace a file's content; missing parent directories are made."""
        await self._sandbox.write(path, content.encode() if isinstance(content, str) else content)

    async def stat(self, path: str) -> FileStat:
        """What is at `path`, links followed."""
        return await self._sandbox.stat(path)

    async def readdir(self, path: str = ".") -> list[str]:
        """The sorted names in a directory."""
        return list(await self._sandbox.list(path))

    async def exists(self, path: str) -> bool:
        """Whether something is at `path`."""
        return await self._sandbox.exists(path)

    async def mkdir(self, path: str, *, recursive: bool = False) -> None:
        """Make a directory. Without `recursive` its parent must be there and itself not."""
        if not recursive:
            if await self._sandbox.exists(path):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
            await self._sandbox.stat(posixpath.dirname(path.rstrip("/")) or ".")
        await self._sandbox.mkdir(path)

    async def rm(self, path: str, *, recursive: bool = False, force: bool = False) -> None:
        """Remove a file or an empty directory; with `recursive` one with all it holds.

        With `force` it is no error that nothing is there.
        """
        with suppress(*((FileNotFoundError,) if force else ())):
            await self._sandbox.remove(path, recursive=recursive)
