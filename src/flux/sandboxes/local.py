"""The host's files and shell: paths stay in the workspace, commands are not isolated."""

from __future__ import annotations

import asyncio
import codecs
import errno
import os
import secrets
import shutil
import signal
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Literal, TypeVar

from flux.sandboxes.base import Entry, ExecResult, FileStat, Sandbox

T = TypeVar("T")

ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "USER", "LOGNAME", "SHELL", "TMPDIR")
"""The variables a command may inherit; TERM is always `dumb`."""

GRACE = 2.0
"""Seconds between SIGTERM and SIGKILL."""

DRAIN = 0.5
"""Seconds for the pipes of a shell that has ended, when something it left behind still holds them."""

_SHELL = "/bin/bash" if os.path.exists("/bin/bash") else "/bin/sh"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

# The leader of the command's process group. Its standard input is a pipe that only this process can
# write to: when this process is gone, however it died, the guard reads the end and kills the group.
# A death signal (PR_SET_PDEATHSIG) would reach the shell alone, not what the shell started.
_LEADER = """
exec 3<&0 4>&2 </dev/null 2>/dev/null
trap : HUP INT QUIT TERM
(trap '' HUP INT QUIT TERM; read -r _; kill -KILL 0) <&3 >/dev/null 3<&- 4>&- &
"$0" -c "$1" 2>&4 3<&- 4>&-
code=$?
kill -KILL $!
wait $!
exit $code
"""


class LocalSandbox(Sandbox):
    """The `workspace` directory of this host.

    File operations cannot leave the workspace. Commands can: they run as this user, with the few
    variables of `environment` named in ENVIRONMENT (default: those of this process).
    NotADirectoryError when the workspace is not a directory.
    """

    name = "local"

    def __init__(self, workspace: Path | str, environment: Mapping[str, str] | None = None) -> None:
        root = os.path.realpath(workspace)
        if not os.path.isdir(root):
            raise NotADirectoryError(f"the workspace {workspace} is not a directory")
        self.cwd = root
        given = os.environ if environment is None else environment
        self._environment = {name: given[name] for name in ENVIRONMENT if name in given}
        self._environment.setdefault("PATH", "/usr/local/bin:/usr/bin:/bin")
        self._environment["TERM"] = "dumb"

    async def exec(
        self,
        command: str,
        *,
        timeout: float,
        on_output: Callable[[str], None] | None = None,
        max_output_bytes: int = 1_000_000,
    ) -> ExecResult:
        """Run a shell command; `max_output_bytes` holds for each of stdout and stderr.

        What the command left running in its process group is killed when its shell ends. OSError when
        it cannot be started.
        """
        out, err = _Output(max_output_bytes, on_output), _Output(max_output_bytes, on_output)
        with ExitStack() as stack:
            group = await _start(command, self.cwd, self._environment, (out, err), stack)
            timed_out = await group.run(timeout)
        return ExecResult(
            exit_code=None if timed_out else group.exit_code,
            stdout=out.text(),
            stderr=err.text(),
            timed_out=timed_out,
            truncated=out.truncated or err.truncated,
        )

    async def read(self, path: str) -> bytes:
        """The bytes of a regular file."""
        return await self._at(path, _read)

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
        return LocalSandbox(os.path.join(self.cwd, workspace), self._environment)

    async def close(self) -> None:
        """Nothing is held between calls."""

    async def _at(
        self, path: str, work: Callable[[int, str], T], *, follow: bool = True, make: bool = False
    ) -> T:
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
        _encodable(path, "a path")
        asked = os.path.join(self.cwd, path)
        head, name = os.path.split(asked)
        whole = follow or name in ("", ".", "..")
        real = os.path.realpath(asked) if whole else os.path.join(os.path.realpath(head), name)
        if os.path.commonpath((self.cwd, real)) != self.cwd:
            raise PermissionError(f"{path!r} is outside the workspace")
        relative = os.path.relpath(real, self.cwd)
        return () if relative == "." else tuple(relative.split(os.sep))


def _encodable(text: str, what: str) -> None:
    try:
        if b"\0" in os.fsencode(text):
            raise OSError(errno.EINVAL, f"{what} cannot hold a NUL character")
    except UnicodeEncodeError as error:
        raise OSError(errno.EINVAL, f"{what} cannot hold a lone surrogate") from error


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


def _read(folder: int, name: str) -> bytes:
    opened = os.open(name, _READ, dir_fd=folder)
    try:
        _require_regular(os.fstat(opened).st_mode)
        with open(opened, "rb", closefd=False) as file:
            return file.read()
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


def _walk(
    directory: int, prefix: str, skip: frozenset[str], depth: int, limit: int, found: list[Entry]
) -> None:
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


class _Output(asyncio.Protocol):
    """What came through a pipe: its first and last bytes, and its text passed on as it arrives."""

    def __init__(self, limit: int, on_text: Callable[[str], None] | None) -> None:
        self.ended = asyncio.Event()
        self._half = max(limit // 2, 1)
        self._head, self._tail = bytearray(), bytearray()
        self._left_out = 0
        self._on_text = on_text
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    @property
    def truncated(self) -> bool:
        """Whether more came than is kept."""
        return self._left_out > 0

    def data_received(self, data: bytes) -> None:
        """Keep a piece and pass its text on."""
        room = self._half - len(self._head)
        self._head += data[:room]
        self._tail += data[room:]
        excess = len(self._tail) - self._half
        if excess > 0:
            del self._tail[:excess]
            self._left_out += excess
        self._pass_on(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """The pipe has ended."""
        self._pass_on(b"", final=True)
        self.ended.set()

    def text(self) -> str:
        """What is kept, as text; NUL and bytes that are no UTF-8 are replaced."""
        if not self.truncated:
            return _text(bytes(self._head + self._tail))
        # A character cut in two is left out as well.
        head = codecs.getincrementaldecoder("utf-8")("replace").decode(bytes(self._head))
        tail = _text(bytes(self._tail).lstrip(bytes(range(0x80, 0xC0))))
        return f"{_clean(head)}\n[... {self._left_out} bytes left out ...]\n{tail}"

    def _pass_on(self, data: bytes, *, final: bool = False) -> None:
        if self._on_text and (text := self._decoder.decode(data, final)):
            self._on_text(_clean(text))


def _text(data: bytes) -> str:
    return _clean(data.decode("utf-8", "replace"))


def _clean(text: str) -> str:
    return text.replace("\0", "\ufffd")


class _Group:
    """A running command: its process group and its pipes."""

    def __init__(self, process: asyncio.subprocess.Process, outputs: tuple[_Output, ...]) -> None:
        self._process = process
        self._outputs = outputs

    @property
    def exit_code(self) -> int | None:
        """The code of the ended shell; 128 + N when signal N ended it."""
        code = self._process.returncode
        return 128 - code if code is not None and code < 0 else code

    async def run(self, timeout: float) -> bool:
        """Wait for the end, at most `timeout` seconds; True when it had to be ended."""
        ended = False
        try:
            async with asyncio.timeout(timeout):
                await self._process.wait()
            ended = True
        except TimeoutError:
            pass
        finally:
            await self._end(polite=not ended)
        return not ended

    async def _end(self, *, polite: bool) -> None:
        """Leave nothing of the group; `polite` asks it to end first."""
        try:
            if polite:
                self._signal(signal.SIGTERM)
            await self._settled(GRACE if polite else DRAIN)
        finally:
            self._signal(signal.SIGKILL)
        await self._process.wait()
        await self._settled(DRAIN)

    async def _settled(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._process.wait()
                for output in self._outputs:
                    await output.ended.wait()

    def _signal(self, number: signal.Signals) -> None:
        # macOS answers EPERM for a group of which only zombies are left.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


async def _start(
    command: str, cwd: str, environment: Mapping[str, str], outputs: tuple[_Output, _Output], stack: ExitStack
) -> _Group:
    """Start a command; `stack` closes what this process holds of it."""
    _encodable(command, "a command")
    guard, held = os.pipe()
    stack.callback(os.close, held)
    with ExitStack() as given:
        given.callback(os.close, guard)
        out, err = [await _pipe(output, given, stack) for output in outputs]
        process = await asyncio.create_subprocess_exec(
            "/bin/sh", "-c", _LEADER, _SHELL, command,
            stdin=guard, stdout=out, stderr=err, cwd=cwd, env=environment, start_new_session=True,
        )  # fmt: skip
    return _Group(process, outputs)


async def _pipe(output: _Output, given: ExitStack, stack: ExitStack) -> int:
    """The end of a new pipe that a command writes to; `output` gets what comes."""
    source, end = os.pipe()
    given.callback(os.close, end)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: output, os.fdopen(source, "rb", buffering=0))
    stack.callback(transport.close)
    return end
