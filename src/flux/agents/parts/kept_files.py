"""Virtual sandboxes whose files outlive the process: what changed is in the database before a call has its result."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from bashkit import FileSystem
from msgspec import Struct

from flux.engine.running.run import Run
from flux.sandboxes.base import FileStat, Sandbox, ShellResult
from flux.sandboxes.in_memory import ROOT, VirtualSandbox
from flux.sandboxes.tree import Tree
from flux.store import files
from flux.store.files import KeptFile


class Looked(Struct, frozen=True):
    """What was seen of a file; another look of the same means the same content."""

    kind: str
    mode: int
    size: int
    modified: float


class KeptFiles:
    """Virtual files in memory and in the database: of a session and those that it drives, or of an instance."""

    def __init__(self, place: str) -> None:
        self.tree = Tree(ROOT)
        self.temporary = FileSystem()
        self._place = place
        self._known: dict[str, Looked] | None = None
        self._lock = asyncio.Lock()

    async def load(self, run: Run) -> None:
        """Read them, once."""
        async with self._lock:
            if self._known is None:
                kept = await run.database.scan(files.load(run.scope, self._place))
                await asyncio.to_thread(self._restore, kept)
                self._known = await asyncio.to_thread(self._looks)

    async def save(self, run: Run) -> None:
        """Keep what has changed.

        :raises Fenced: another worker owns the run now
        """
        async with self._lock:
            before = self._known or {}
            now = await asyncio.to_thread(self._looks)
            changed = [path for path, look in now.items() if before.get(path) != look]
            gone = before.keys() - now.keys()
            if not (changed or gone):
                return
            read = await asyncio.to_thread(lambda: [self._read(path, now[path]) for path in changed])
            await run.database.write(files.save(run.scope, run.id, run.epoch, self._place, read, gone))
            self._known = now

    def _looks(self) -> dict[str, Looked]:
        return {
            path: Looked(found["file_type"], found["mode"], found["size"], float(found["modified"]))
            for path, found in self.tree.entries()
        }

    def _read(self, path: str, look: Looked) -> KeptFile:
        match look.kind:
            case "symlink":
                return KeptFile(path, "symlink", look.mode, self.tree.files.read_link(path).encode())
            case "file":
                return KeptFile(path, "file", look.mode, self.tree.files.read_file(path))
            case _:
                return KeptFile(path, "directory", look.mode, b"")

    def _restore(self, kept: list[KeptFile]) -> None:
        into = self.tree.files
        for file in sorted(kept, key=lambda one: one.path):
            match file.kind:
                case "directory":
                    into.mkdir(file.path, recursive=True)
                case "symlink":
                    into.symlink(file.data.decode(), file.path)
                case "file":
                    into.write_file(file.path, file.data)
            if file.kind != "symlink":
                into.chmod(file.path, file.mode)


class KeptSandbox(VirtualSandbox):
    """The virtual sandbox of a run."""

    def __init__(self, run: Run, kept: KeptFiles) -> None:
        super().__init__(kept.tree, kept.temporary)
        self.kept = kept
        self._run = run

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
        """Run a command of bash."""
        await self.kept.load(self._run)
        try:
            return await super().exec(
                command, timeout=timeout, cwd=cwd, env=env, on_output=on_output, max_output_bytes=max_output_bytes
            )
        finally:
            await self.kept.save(self._run)

    async def read(self, path: str, *, limit: int | None = None) -> bytes:
        """The bytes of a file."""
        await self.kept.load(self._run)
        return await super().read(path, limit=limit)

    async def write(self, path: str, data: bytes) -> None:
        """Replace a file's content."""
        await self.kept.load(self._run)
        await super().write(path, data)
        await self.kept.save(self._run)

    async def stat(self, path: str) -> FileStat:
        """What is at `path`."""
        await self.kept.load(self._run)
        return await super().stat(path)

    async def list(self, path: str) -> tuple[str, ...]:
        """The sorted names in a directory."""
        await self.kept.load(self._run)
        return await super().list(path)

    async def exists(self, path: str) -> bool:
        """Whether something is at `path`."""
        await self.kept.load(self._run)
        return await super().exists(path)

    async def mkdir(self, path: str) -> None:
        """Make a directory and its parents."""
        await self.kept.load(self._run)
        await super().mkdir(path)
        await self.kept.save(self._run)

    async def remove(self, path: str, *, recursive: bool = False) -> None:
        """Remove a file, a link or a directory."""
        await self.kept.load(self._run)
        await super().remove(path, recursive=recursive)
        await self.kept.save(self._run)

    async def close(self) -> None:
        """Nothing: others may act in the same files."""


def sandbox_of(run: Run, above: Sandbox | None) -> KeptSandbox:
    """The virtual sandbox of a run: with the files of the session that drives it, where that has some."""
    return KeptSandbox(run, above.kept if isinstance(above, KeptSandbox) else KeptFiles(run.id))
