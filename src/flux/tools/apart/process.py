"""The process apart, seen from the one that has the engine."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import signal
import socket
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress
from typing import Any

import msgspec

from flux.errors import DefinitionInvalid, ExecutionError, SourceUnusable
from flux.sandboxes.host import ENVIRONMENT
from flux.tools.apart.lines import MAX_LINE, Described, Line, Message, failure
from flux.tools.declared import secrets_in
from flux.tools.tool_file import ToolFile

logger = logging.getLogger(__name__)

#: Processes that are kept, of those that have nothing to do.
KEPT = 8
#: Seconds that a file gets to load, its process included.
LOAD_SECONDS = 30.0
#: Bytes of what tools print that go into one line of the log.
SHOWN_BYTES = 4_000
SAID = {cls.__name__: cls for cls in (DefinitionInvalid, SourceUnusable)}

#: Gets what the code of a run asks.
Hear = Callable[[Message], None]


class ToolProcess:
    """A process with the tools of one file."""

    def __init__(self, file: ToolFile, process: asyncio.subprocess.Process, line: Line) -> None:
        self.tools: list[Described] = []
        #: Those that the file writes out: whoever stored it had to be allowed them.
        self.secrets = secrets_in(file.source)
        self._file = file
        self._process = process
        self._line = line
        self._runs: dict[int, tuple[asyncio.Future[Any], Hear | None]] = {}
        self._count = itertools.count(1)
        self._loaded: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._work = [asyncio.ensure_future(self._listen()), asyncio.ensure_future(self._log())]

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self._process.returncode is None and not self._work[0].done()

    @property
    def busy(self) -> bool:
        """Whether something runs in it."""
        return bool(self._runs)

    async def load(self) -> None:
        """Load the file.

        :raises SourceUnusable: it does not load
        :raises DefinitionInvalid: a tool in it cannot be used
        """
        self._line.say(Message("load", file=self._file.model_dump()))
        try:
            async with asyncio.timeout(LOAD_SECONDS):
                said = await self._loaded
        except TimeoutError:
            said = self._unusable(f"it did not load within {LOAD_SECONDS:g} seconds")
        if said.op == "failed":
            raise SAID.get(said.kind, SourceUnusable)(said.message)
        self.tools = said.tools

    async def run(self, what: Message, hear: Hear | None = None) -> Any:
        """What a function there returns; `hear` gets what its code asks.

        :raises ExecutionError: it failed, or the process is gone
        """
        id, ended = next(self._count), asyncio.get_running_loop().create_future()
        if not self.alive:
            raise ExecutionError(self._gone())
        self._runs[id] = (ended, hear)
        try:
            self._line.say(msgspec.structs.replace(what, id=id))
            return await ended
        except asyncio.CancelledError:
            self._line.say(Message("cancel", id))
            raise
        finally:
            del self._runs[id]

    def answer(self, message: Message) -> None:
        """Answer what was asked."""
        self._line.say(message)

    async def close(self) -> None:
        """End it, with all it has started."""
        self._line.close()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()
        await asyncio.wait(self._work)

    async def _listen(self) -> None:
        async for message in self._line.messages():
            self._hear(message)
        if not self._loaded.done():
            self._loaded.set_result(self._unusable("its process ended while it was loaded"))
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()
        for ended, _ in self._runs.values():
            if not ended.done():
                ended.set_exception(ExecutionError(self._gone()))

    def _hear(self, message: Message) -> None:
        ended, hear = self._runs.get(message.run or message.id, (None, None))
        if message.op in ("loaded", "failed") and not self._loaded.done():
            self._loaded.set_result(message)
        elif message.op == "ask" and hear is not None:
            hear(message)
        elif message.op == "done" and ended is not None and not ended.done():
            ended.set_result(message.value)
        elif message.op == "raised" and ended is not None and not ended.done():
            ended.set_exception(failure(message))

    async def _log(self) -> None:
        """Pass on what tools print, so that the log hides in it what must not be seen."""
        output = self._process.stdout
        while output is not None and (said := await output.read(SHOWN_BYTES)):
            logger.info("%s: %s", self._file.name, said.decode(errors="replace").rstrip())

    def _unusable(self, why: str) -> Message:
        return Message("failed", message=f"the source of {self._file.name} cannot be used: {why}")

    def _gone(self) -> str:
        return f"the process of the tools of {self._file.name} ended ({self._process.returncode})"


class ToolProcesses:
    """Starts processes when they are needed, one per tenant and file, and keeps those used last."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = {name: environment[name] for name in ENVIRONMENT if name in environment}
        self._environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        self._kept: OrderedDict[tuple[str, str], ToolProcess] = OrderedDict()
        self._starting: dict[tuple[str, str], asyncio.Lock] = {}

    async def get(self, tenant: str, file: ToolFile) -> ToolProcess:
        """The process with the tools of a file.

        :raises SourceUnusable, DefinitionInvalid: they cannot be used
        """
        key = (tenant, file.digest)
        async with self._starting.setdefault(key, asyncio.Lock()):
            found = self._kept.get(key)
            if found is None or not found.alive:
                if found is not None:
                    await found.close()
                found = self._kept[key] = await self._start(file)
        self._kept.move_to_end(key)
        await self._end_some()
        return found

    async def close(self) -> None:
        """End all of them."""
        while self._kept:
            await self._kept.popitem()[1].close()

    async def _start(self, file: ToolFile) -> ToolProcess:
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "flux.tools.apart.child", str(theirs.fileno()),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
                env=self._environment, pass_fds=(theirs.fileno(),), start_new_session=True,
            )  # fmt: skip
        started = ToolProcess(file, process, Line(*await asyncio.open_connection(sock=ours, limit=MAX_LINE)))
        async with AsyncExitStack() as stack:
            stack.push_async_callback(started.close)
            await started.load()
            stack.pop_all()
        return started

    async def _end_some(self) -> None:
        idle = [key for key, one in self._kept.items() if not one.busy]
        for key in idle[: max(0, len(self._kept) - KEPT)]:
            await self._kept.pop(key).close()
            self._starting.pop(key, None)
