"""A server that is a program: JSON-RPC on its standard input and output.

Unlike the transport of the SDK, this one bounds the length of a line, gives the program no more of the
environment than a shell gets, keeps its last words, and leaves nothing of it behind however this process ends.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import Any

import anyio
import mcp_types as types
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage

#: Bytes of one message.
LARGEST_MESSAGE = 10_000_000
#: Characters of standard error that are kept.
LAST_WORDS = 2_000
#: Seconds for a program to end when its standard input is closed, and again after SIGTERM.
GRACE = 1.0
CHUNK = 65_536
_ID = re.compile(rb'"id"\s*:\s*(\d+|"[^"\\]{1,100}")')

# The guard's pipe is written by nobody: its end tells that this process is gone, and the whole group with it.
_LEADER = """
(trap '' HUP INT QUIT TERM; read -r _ <&3; kill -KILL 0) </dev/null >/dev/null 2>&1 &
exec "$@" 3<&-
"""


class Program:
    """A running server; `said` is the end of what it wrote to standard error."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said = ""

    async def listen(self) -> None:
        """Keep the last words."""
        stream = self.process.stderr
        while stream is not None and (data := await stream.read(CHUNK)):
            self.said = (self.said + data.decode("utf-8", "replace"))[-LAST_WORDS:]

    def kill(self, number: signal.Signals) -> None:
        """Signal the whole group."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)

    async def end(self) -> None:
        """Close its input, and kill what does not end by itself."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(TimeoutError):
                async with asyncio.timeout(GRACE):
                    await self.process.wait()
            self.kill(number)


@asynccontextmanager
async def stdio(
    command: Sequence[str], environment: Mapping[str, str], cwd: str, ended: asyncio.Future[str]
) -> AsyncGenerator[tuple[Any, Any]]:
    """The streams of a program's standard input and output. `ended` gets its last words when it ends by itself.

    :raises OSError: it cannot be started
    """
    with ExitStack() as stack:
        program = await _start(command, environment, cwd, stack)
        inward, read = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        write, outward = anyio.create_memory_object_stream[SessionMessage](0)
        for stream in (inward, read, write, outward):
            stack.callback(stream.close)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(program.listen)
            tasks.start_soon(_read, program, inward, ended)
            tasks.start_soon(_write, program, outward)
            try:
                yield read, write
            finally:
                with anyio.CancelScope(shield=True):
                    await program.end()
                tasks.cancel_scope.cancel()


async def _start(command: Sequence[str], environment: Mapping[str, str], cwd: str, stack: ExitStack) -> Program:
    guard, held = os.pipe()
    stack.callback(os.close, held)
    try:
        process = await asyncio.create_subprocess_exec(
            "/bin/sh", "-c", f"exec 3</dev/fd/{guard}\n{_LEADER}", "sh", *command,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env=dict(environment), cwd=cwd, start_new_session=True, pass_fds=(guard,),
        )  # fmt: skip
    finally:
        os.close(guard)
    return Program(process)


async def _read(
    program: Program, inward: MemoryObjectSendStream[SessionMessage | Exception], ended: asyncio.Future[str]
) -> None:
    stream = program.process.stdout
    line = bytearray()
    async with inward:
        while stream is not None and (data := await stream.read(CHUNK)):
            *whole, rest = data.split(b"\n")
            for part in whole:
                _grow(line, part)
                message = _message(line)
                line.clear()
                if message is not None:
                    try:
                        await inward.send(message)
                    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                        return
            _grow(line, rest)
        await program.process.wait()
        if not ended.done():
            code = program.process.returncode
            ended.set_result(
                f"the program ended with code {code}" + (f": {program.said.strip()}" if program.said else "")
            )


def _grow(line: bytearray, part: bytes) -> None:
    """Add to a line; of one that is too long only its beginning is kept, and that it is too long."""
    if len(line) <= LARGEST_MESSAGE:
        line += part
    if len(line) > LARGEST_MESSAGE:
        del line[LARGEST_MESSAGE + 1 :]


def _message(line: bytearray) -> SessionMessage | Exception | None:
    if len(line) > LARGEST_MESSAGE:
        return _too_long(bytes(line[:CHUNK]))
    if not line.strip():
        return None
    try:
        return SessionMessage(types.jsonrpc_message_adapter.validate_json(bytes(line), by_name=False))
    except ValueError as error:
        return error


def _too_long(head: bytes) -> SessionMessage | Exception:
    """What stands for a message that is too long: the failure of the request it answers, if that can be told."""
    text = f"the server sent a message of more than {LARGEST_MESSAGE:,} bytes"
    found = _ID.search(head)
    if found is None:
        return ValueError(text)
    id = found[1].decode()
    error = types.ErrorData(code=types.INTERNAL_ERROR, message=text)
    return SessionMessage(types.JSONRPCError(jsonrpc="2.0", id=id.strip('"') if id[0] == '"' else int(id), error=error))


async def _write(program: Program, outward: MemoryObjectReceiveStream[SessionMessage]) -> None:
    stream = program.process.stdin
    async with outward:
        async for message in outward:
            if stream is None:
                return
            try:
                stream.write(message.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
                await stream.drain()
            except (ConnectionError, RuntimeError):
                return  # it has ended: the reader tells
