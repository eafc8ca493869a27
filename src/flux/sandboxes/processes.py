"""Shell commands in process groups of their own, which end with their shell, their time or this process."""

from __future__ import annotations

import asyncio
import codecs
import errno
import os
import re
import signal
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress

from msgspec import Struct

SHELL = "/bin/bash" if os.path.exists("/bin/bash") else "/bin/sh"

GRACE = 2.0
"""Seconds between SIGTERM and SIGKILL."""

DRAIN = 0.5
"""Seconds for the pipes of a shell that has ended, when something it left behind still holds them."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

# The leader of the command's process group. Its standard input is a pipe that only this process can
# write to: when this process is gone, however it died, the guard reads the end and kills the group.
# A death signal (PR_SET_PDEATHSIG) would reach the shell alone, not what the shell started.
_LEADER = """
exec 3<&0 4>&2 </dev/null 2>/dev/null
trap : HUP INT QUIT TERM
(trap '' HUP INT QUIT TERM; read -r _; kill -KILL 0) <&3 >/dev/null 3<&- 4>&- &
"$0" "$@" 2>&4 3<&- 4>&-
code=$?
kill -KILL $!
wait $!
exit $code
"""


class Output(asyncio.Protocol):
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


class Group:
    """A running command: its process group and its pipes."""

    def __init__(self, process: asyncio.subprocess.Process, outputs: tuple[Output, ...]) -> None:
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


class Program(Struct, frozen=True):
    """What is started: its arguments, directory, and environment; `fds` are what it gets open beside."""

    argv: tuple[str, ...]
    cwd: str
    env: Mapping[str, str]
    fds: tuple[int, ...] = ()


async def start(program: Program, outputs: tuple[Output, Output], stack: ExitStack) -> Group:
    """Start a program; `stack` closes what this process holds of it."""
    guard, held = os.pipe()
    stack.callback(os.close, held)
    with ExitStack() as given:
        given.callback(os.close, guard)
        out, err = [await _pipe(output, given, stack) for output in outputs]
        process = await asyncio.create_subprocess_exec(
            "/bin/sh", "-c", _LEADER, *program.argv,
            stdin=guard, stdout=out, stderr=err, cwd=program.cwd, env=program.env, pass_fds=program.fds,
            start_new_session=True,
        )  # fmt: skip
    return Group(process, outputs)


async def _pipe(output: Output, given: ExitStack, stack: ExitStack) -> int:
    """The end of a new pipe that a command writes to; `output` gets what comes."""
    source, end = os.pipe()
    given.callback(os.close, end)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: output, os.fdopen(source, "rb", buffering=0))
    stack.callback(transport.close)
    return end


def encodable(text: str, what: str) -> None:
    """OSError for text that the operating system cannot take; `what` names it."""
    try:
        if b"\0" in os.fsencode(text):
            raise OSError(errno.EINVAL, f"{what} cannot hold a NUL character")
    except UnicodeEncodeError as error:
        raise OSError(errno.EINVAL, f"{what} cannot hold a lone surrogate") from error


def checked(env: Mapping[str, str]) -> Mapping[str, str]:
    """Variables for a command. OSError for one that the operating system cannot take."""
    for name, value in env.items():
        encodable(value, f"the variable {name}")
        if not _VARIABLE.fullmatch(name):
            raise OSError(errno.EINVAL, f"{name[:100]!r} is no name of a variable")
    return env
