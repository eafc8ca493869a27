"""The host's files and shell: paths stay in the workspace, commands are not isolated."""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Literal, TypeVar

from flux.sandboxes.base import Entry, FileStat, Sandbox, ShellResult
from flux.sandboxes.processes import SHELL, Output, Program, checked, encodable, start

T = TypeVar("T")

ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "USER", "LOGNAME", "SHELL", "TMPDIR")
"""The variables a command may inherit; TERM is always `dumb`."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class LocalSandbox(Sandbox):
    """The `workspace` directory of this host.

    File operations cannot leave the workspace. Commands can: they run as this user, with the few
    variables of `environment` named in ENVIRONMENT (default: those of this process). `hidden` are directories in it
    that file operations refuse.
    NotADirectoryError when the workspace is not a directory.
    """

    name = "local"

    def __init__(
        self, workspace: Path | str, environment: Mapping[str, str] | None = None, hidden: Iterable[str] = ()
    ) -> None:
        root = os.path.realpath(workspace)
        if not os.path.isdir(root):
            raise NotADirectoryError(f"the workspace {workspace} is not a directory")
        self.cwd = root
        inside = (os.path.realpath(folder) for folder in hidden)
        self.hidden = tuple(folder for folder in inside if folder != root and _is_below(folder, root))
        given = os.environ if environment is None else environment
        self.environment = {name: given[name] for name in ENVIRONMENT if name in given}
        self.environment.setdefault("PATH", "/usr/local/bin:/usr/bin:/bin")
        self.environment["TERM"] = "dumb"

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
        """Run a shell command; `max_output_bytes` holds for each of stdout and stderr.

        What the command left running in its process group is killed when its shell ends. OSError when
        it cannot be started.
        """
        encodable(command, "a command")
        out, err = Output(max_output_bytes, on_output), Output(max_output_bytes, on_output)
        folder = self.cwd if cwd is None else await self._folder(cwd)
        with ExitStack() as stack:
            group = await start(self.program(command, folder, checked(env or {}), stack), (out, err), stack)
            timed_out = await group.run(timeout)
        return ShellResult(
            exit_code=None if timed_out else group.exit_code,
            stdout=out.text(),
            stderr=err.text(),
            timed_out=timed_out,
            truncated=out.truncated or err.truncated,
        )

    def program(self, command: str, folder: str, env: Mapping[str, str], stack: ExitStack) -> Program:
        """What is started for a command in a directory; `stack` closes what that holds open."""
        return Program((SHELL, "-c", command), folder, {**self.environment, **env})

    async def read(self, path: str, *, limit: int | None = None) -> bytes:
        """The bytes of a regular file; OSError EFBIG when there are more than `limit`."""
        return await self._at(path, lambda folder, name: _read(folder, name, limit))

    async def write(self, path: str, data: bytes) -> None:
        """Replace a file's content in one step; its mode is kept, missing parents are made."""
        await self._at(path, lambda folder, name: _replace(folder, name, data), make=True)

    async def stat(self, path: str) -> FileStat:
        """What is at `path`, links followed; `is_symbolic_link` is about the path itself."""

        def look(folder: int, name: str) -> FileStat:
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            return FileStat(
                is_file=stat.S_ISREG(found.st_mode),
                is_directory=stat.S_ISDIR(found.st_mode),
                is_symbolic_link=os.path.islink(os.path.join(self.cwd, path)),
                size=found.st_size,
                mtime=found.st_mtime,
            )

        return await self._at(path, look)

    async def list(self, path: str) -> tuple[str, ...]:
        """The sorted names in a directory."""
        return tuple(sorted(await self._at(path, _names)))

    async def exists(self, path: str) -> bool:
        """Whether something is at `path`; a link without a target is nothing."""
        try:
            await self.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    async def mkdir(self, path: str) -> None:
        """Make a directory and its parents; no error when it is there."""
        await self._at(path, _make, make=True)

    async def remove(self, path: str, *, recursive: bool = False) -> None:
        """Remove a file, a link (not its target), or a directory with all it holds."""
        await self._at(path, lambda folder, name: _remove(folder, name, recursive), follow=False)

    async def resolve(self, path: str) -> str:
        """The absolute path with links and `..` resolved; PermissionError when it leaves the workspace."""
        return os.path.join(self.cwd, *await asyncio.to_thread(self._inside, path, follow=True))

    async def walk(self, path: str, *, skip: frozenset[str], depth: int, limit: int) -> tuple[Entry, ...]:
        """What is below a directory; see HostSandbox."""

        def walk(folder: int, name: str) -> tuple[Entry, ...]:
            found: list[Entry] = []
            with _directory(folder, name) as directory:
                _walk(directory, "", skip, depth, limit, found)
            return tuple(found)

        return await self._at(path, walk)

    def rooted(self, workspace: str) -> LocalSandbox:
        """A local sandbox for another directory; a relative one is taken from `cwd`."""
        return LocalSandbox(os.path.join(self.cwd, workspace), self.environment, self.hidden)

    async def close(self) -> None:
        """Nothing is held between calls."""

    async def _folder(self, path: str) -> str:
        if not (await self.stat(path)).is_directory:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        return await self.resolve(path)

    async def _at(self, path: str, work: Callable[[int, str], T], *, follow: bool = True, make: bool = False) -> T:
        """Call `work` in a thread with the open parent directory of `path` and the last name.

        The path is resolved first and then opened name by name without following links, so a link
        put in its way meanwhile leads to an error, not outside.
        """

        def run() -> T:
            try:
                *parents, name = self._inside(path, follow=follow) or (".",)
                with _descend(self.cwd, parents, make=make) as folder:
                    return work(folder, name)
            except OSError as error:
                if error.errno:
                    error.filename, error.filename2 = path, None
                raise

        return await asyncio.to_thread(run)

    def _inside(self, path: str, *, follow: bool) -> tuple[str, ...]:
        """The names from the workspace to `path`, links resolved (the last one only with `follow`)."""
        encodable(path, "a path")
        asked = os.path.join(self.cwd, path)
        head, name = os.path.split(asked)
        whole = follow or name in ("", ".", "..")
        real = os.path.realpath(asked) if whole else os.path.join(os.path.realpath(head), name)
        if not _is_below(real, self.cwd):
            raise PermissionError(f"{path!r} is outside the workspace")
        if any(_is_below(real, folder) for folder in self.hidden):
            raise PermissionError(f"{path!r} is hidden in the workspace")
        relative = os.path.relpath(real, self.cwd)
        return () if relative == "." else tuple(relative.split(os.sep))


def _is_below(path: str, folder: str) -> bool:
    """Whether an absolute path is a directory's, or of something in it."""
    return os.path.commonpath((folder, path)) == folder


@contextmanager
def _descend(root: str, names: list[str], *, make: bool) -> Iterator[int]:
    """The open directory below `root`, entered name by name."""
    with ExitStack() as opened:
        current = os.open(root, _DIRECTORY)
        opened.callback(os.close, current)
        for name in names:
            current = opened.enter_context(_directory(current, name, make=make))
        yield current


@contextmanager
def _directory(folder: int, name: str, *, make: bool = False) -> Iterator[int]:
    """The directory `name` in an open one, opened; made first if wanted."""
    if make:
        with suppress(FileExistsError):
            os.mkdir(name, dir_fd=folder)
    opened = os.open(name, _DIRECTORY, dir_fd=folder)
    try:
        yield opened
    finally:
        os.close(opened)


def _read(folder: int, name: str, limit: int | None) -> bytes:
    opened = os.open(name, _READ, dir_fd=folder)
    try:
        found = os.fstat(opened)
        _require_regular(found.st_mode)
        _require_small(found.st_size, limit)
        with open(opened, "rb", closefd=False) as file:
            # A file that does not tell its size, or grows, is not read far beyond the limit either.
            data = file.read(-1 if limit is None else limit + 1)
        _require_small(len(data), limit)
        return data
    finally:
        os.close(opened)


def _names(folder: int, name: str) -> list[str]:
    with _directory(folder, name) as directory:
        return os.listdir(directory)


def _make(folder: int, name: str) -> None:
    with _directory(folder, name, make=True):
        pass


def _remove(folder: int, name: str, recursive: bool) -> None:
    if name == ".":
        raise PermissionError("the workspace itself cannot be removed")
    if not stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
        os.unlink(name, dir_fd=folder)
    elif recursive:
        shutil.rmtree(name, dir_fd=folder)
    else:
        os.rmdir(name, dir_fd=folder)


def _require_regular(mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "Not a regular file")


def _require_small(size: int, limit: int | None) -> None:
    if limit is not None and size > limit:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))


def _replace(folder: int, name: str, data: bytes) -> None:
    mode = _writable_mode(folder, name)
    temporary = f".flux-{secrets.token_hex(8)}.tmp"
    opened = os.open(temporary, _CREATE, 0o666, dir_fd=folder)
    try:
        with open(opened, "wb") as file:
            if mode is not None:
                os.fchmod(opened, mode)
            file.write(data)
        os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=folder)
        raise


def _writable_mode(folder: int, name: str) -> int | None:
    """The mode of the file to be replaced, None if there is none."""
    try:
        mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return None
    _require_regular(mode)
    if not os.access(name, os.W_OK, dir_fd=folder):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return stat.S_IMODE(mode)


def _walk(directory: int, prefix: str, skip: frozenset[str], depth: int, limit: int, found: list[Entry]) -> None:
    with os.scandir(directory) as entries:
        ordered = sorted(entries, key=lambda entry: os.fsencode(entry.name))
    for entry in ordered:
        if len(found) >= limit:
            return
        kind = _kind(entry)
        found.append(Entry(prefix + entry.name, kind))
        if kind == "directory" and entry.name not in skip and depth > 1:
            # It may be closed to us or gone by now: then it has nothing to show.
            with suppress(OSError), _directory(directory, entry.name) as inner:
                _walk(inner, f"{prefix}{entry.name}/", skip, depth - 1, limit, found)


def _kind(entry: os.DirEntry[str]) -> Literal["file", "directory", "link", "other"]:
    if entry.is_symlink():
        return "link"
    if entry.is_dir(follow_symlinks=False):
        return "directory"
    return "file" if entry.is_file(follow_symlinks=False) else "other"
