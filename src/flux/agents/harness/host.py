"""The process of a program that runs sessions for its own code: one database, and what runs a session to its rest."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from pathlib import Path
from weakref import WeakKeyDictionary

from flux.agents.process import Process, open_process
from flux.engine.admission import NewSession, start_session_steps, title_of
from flux.engine.run import Executor
from flux.engine.upkeep import to_the_end
from flux.errors import FluxError, SessionBusy, SessionExists, SessionNotFound
from flux.events import Entry, Stored
from flux.models.registry import ModelFactory
from flux.settings import Settings, load_settings
from flux.store import callers, executions, log
from flux.store.channel import Cursor
from flux.store.database import LOCAL, Scope, one
from flux.store.executions import CALLER, Execution

#: Seconds between two looks at a session that somebody else is just giving back.
LOOK_SECONDS = 0.2


class Host:
    """Runs sessions in this process, each by what its caller wants done in it."""

    def __init__(self, process: Process, scope: Scope = LOCAL) -> None:
        self.process = process
        self.scope = scope
        self._busy: set[str] = set()
        self._going_on: dict[str, asyncio.Task[Execution]] = {}

    async def find(self, agent: str, instance: str, name: str) -> Execution | None:
        """The open session of that name; None when there is none."""
        return await self.process.database.read(callers.find(self.scope, agent, instance, name))

    async def create(self, agent: str, instance: str, name: str) -> Execution:
        """A new session.

        :raises SessionExists: there is one, perhaps of somebody else
        """
        new = NewSession(agent, "", instance=instance, name=name, pool=CALLER)
        program = start_session_steps(self.scope, new, None, self.process.dispatch)
        admitted, rows = await self.process.database.write(program)
        self.process.feed.publish(admitted.id, rows)
        return await self.row(admitted.id)

    async def found_or_created(self, agent: str, instance: str, name: str) -> Execution:
        """The session of that name, made if there is none.

        :raises SessionExists: somebody else has one
        """
        found = await self.find(agent, instance, name)
        if found is not None:
            return found
        try:
            return await self.create(agent, instance, name)
        except SessionExists:
            found = await self.find(agent, instance, name)
            if found is None:
                raise
            return found

    async def row(self, id: str) -> Execution:
        """A session's row.

        :raises SessionNotFound: it was deleted
        """
        row = await self.process.database.single(executions.get(self.scope, id))
        if row is None:
            raise SessionNotFound("there is no such session any more; it was deleted")
        return row

    def occupy(self, id: str) -> None:
        """Begin an operation in a session; `leave` ends it.

        :raises SessionBusy: another one is under way
        """
        if id in self._busy:
            raise SessionBusy("an operation is under way in this session; wait for it, or use another session")
        self._busy.add(id)

    def leave(self, id: str) -> None:
        """The operation is over."""
        self._busy.discard(id)

    async def run(
        self, id: str, entries: Sequence[Entry], work: Executor, *, run_id: str | None = None, text: str = ""
    ) -> list[Stored]:
        """Take a session, write its first entries, and let `work` run it until it rests; what was written since.

        `run_id` is that of the run which begins. The session's first `text` becomes its title.

        :raises SessionBusy, SessionEnded, SessionNotFound: it cannot be taken
        """
        await self._gone_on(id)
        program = callers.enter(self.scope, id, self.process.who, entries, run_id, title_of(text))
        self.process.session_executor.own[id] = work
        try:
            entered = await self.process.database.write(program)
            self.process.feed.publish(id, entered.rows)
            await self.process.runner.run_taken(entered.execution)
            await self._until_rest(id)
        except asyncio.CancelledError:
            await to_the_end(self._abandon(id))
            raise
        finally:
            self.process.session_executor.own.pop(id, None)
        return await self.written(id, entered.execution.head - len(entries))

    async def written(self, id: str, after: int = 0) -> list[Stored]:
        """The entries of a session, or of one that it has driven."""
        rows = await self.process.database.single(log.read(self.scope, id, after))
        return [row.stored() for row in rows]

    async def _abandon(self, id: str) -> None:
        """End what was being done in a session: this process leaves."""
        self.process.session_executor.own[id] = self.process.session_executor.settle
        await self.process.runner.run(id)

    def go_on(self, row: Execution, work: Executor) -> None:
        """Go on in the background with what was left to do: an answer was given while no code had the session open."""
        if row.state == "scheduled" and row.pool == CALLER and row.id not in self._going_on:
            task = asyncio.create_task(self._go_on(row.id, work), name=f"go on with {row.id}")
            self._going_on[row.id] = task
            task.add_done_callback(lambda _: self._going_on.pop(row.id, None))

    async def _go_on(self, id: str, work: Executor) -> Execution:
        self.process.session_executor.own[id] = work
        try:
            return await self._until_rest(id)
        finally:
            self.process.session_executor.own.pop(id, None)

    async def _gone_on(self, id: str) -> None:
        """Wait for what goes on in the background, unless that waits for a person."""
        task = self._going_on.get(id)
        while task is not None and not task.done() and (await self.row(id)).state != "waiting":
            await asyncio.wait((task,), timeout=LOOK_SECONDS)

    async def _until_rest(self, id: str) -> Execution:
        """Run a session until it is idle or has ended; what it waits for, wait for it too."""
        while True:
            row = await self.row(id)
            match row.state:
                case "idle" | "ended":
                    return row
                case "waiting":
                    await self._news(row)
                case "scheduled":
                    await asyncio.sleep(max(0.0, (row.due or 0.0) - await self._now()))
                    await self.process.runner.run(id)
                case _ if row.worker == self.process.worker_id:
                    await self.process.recovery.sweep()  # a hand-back whose answer was lost
                    await asyncio.sleep(LOOK_SECONDS)
                case _:
                    raise FluxError("the session was taken over by another process", debug=f"{id} of {row.worker}")

    async def _news(self, row: Execution) -> None:
        """Wait until something is written to a session, or its time has come."""
        delay = None if row.due is None else max(0.0, row.due - await self._now())
        with suppress(TimeoutError):
            async with (
                asyncio.timeout(delay),
                aclosing(self.process.feed.follow(self.scope, row.id, Cursor(row.head, row.epoch))) as batches,
            ):
                async for batch in batches:
                    if any(frame.entry for frame in batch):
                        return
        await self.process.database.write(executions.wake(row.id))

    async def _now(self) -> float:
        (now,), *_ = await self.process.database.read(one("select :now"))
        return float(now)


_hosts: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, str], AsyncGenerator[Host, None]]] = (
    WeakKeyDictionary()
)
_opened: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, str], asyncio.Task[Host]]] = WeakKeyDictionary()
#: Models of further prefixes, for every host that is opened from now on.
factories: dict[str, ModelFactory] = {}


async def host() -> Host:
    """The host of this loop, for the settings as they are now; it is closed with the loop, or by `close_hosts`."""
    settings = load_settings(os.environ)
    loop, key = asyncio.get_running_loop(), (settings.database, str(settings.home))
    opened = _opened.setdefault(loop, {})
    if key not in opened or _failed(opened[key]):
        generator = _open(settings)
        _hosts.setdefault(loop, {})[key] = generator
        opened[key] = asyncio.create_task(_first(generator), name="open host")
    return await asyncio.shield(opened[key])


def _failed(task: asyncio.Task[Host]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)


async def close_hosts() -> None:
    """Close what `host` has opened in this loop. What code has left running is settled."""
    loop = asyncio.get_running_loop()
    _opened.pop(loop, None)
    for generator in _hosts.pop(loop, {}).values():
        await generator.aclose()


async def _first(generator: AsyncGenerator[Host, None]) -> Host:
    return await anext(generator)


async def _open(settings: Settings) -> AsyncGenerator[Host, None]:
    # A generator, because a loop that ends closes those that are still open: nobody has to.
    workspace = Path.cwd()
    async with open_process(
        settings, environment=os.environ, workspace=workspace, factories=factories, caller=True
    ) as process:
        beating = asyncio.create_task(process.recovery.keep_beating())
        try:
            await process.recovery.sweep()  # what a process like this one has left when it died
            yield Host(process)
        finally:
            beating.cancel()
            await asyncio.wait((beating,))
            await process.recovery.leave()
