"""The engine of one process under an executor that a test controls."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any, ClassVar

import anyio

from flux.engine.dispatching.dispatch import Dispatch, Duty, EmbeddedDispatch
from flux.engine.dispatching.pools import DEFAULT_OFFER, Offer
from flux.engine.intake.admission import Admission
from flux.engine.intake.inputs import NewMessage
from flux.engine.running.recovery import Recovery, WorkerLock
from flux.engine.running.run import Executor, Run
from flux.engine.running.runner import Runner
from flux.errors import DatabaseUnavailable
from flux.events import ChatResponse, RunStarted, UserSaid
from flux.store import executions
from flux.store.database import Database
from flux.store.executions import Execution
from flux.store.feed import Feed, Frame
from flux.store.log import Then
from flux.store.workers import Presence
from tests.integration.states import ANN, a_session

GUARD = 20


async def answer_all(run: Run) -> None:
    """What a session does, without a model: one run per message, then rest."""
    log = await run.read(0)
    while True:
        done = {id for stored in log if isinstance(stored.entry, RunStarted) for id in stored.entry.inputs}
        said = [stored.entry for stored in log if isinstance(stored.entry, UserSaid) and stored.entry.id not in done]
        seen = log[-1].seq
        if said:
            id = run.run_id or str(uuid.uuid4())
            text = said[0].parts[0].text
            await run.append(RunStarted(run=id, inputs=(said[0].id,)), ChatResponse(content=f"re: {text}", turn=1))
        elif await run.append(seen=seen, then=Then("idle")):
            return
        log += await run.read(seen)


Dispatching = Callable[[Database], Dispatch]


class Engine:
    #: The dispatch of engines; the contract suite changes it.
    dispatching: ClassVar[Dispatching] = EmbeddedDispatch

    def __init__(
        self,
        database: Database,
        executor: Executor = answer_all,
        *,
        worker: str = "worker-1",
        offer: Offer = DEFAULT_OFFER,
    ) -> None:
        self.offer = offer
        self.database = database
        self.feed = Feed(database)
        self.dispatch = type(self).dispatching(database)
        self.admission = Admission(database, self.feed, self.dispatch)
        self.executor = executor
        self.ran: list[str] = []
        self.runner = Runner(database, self.feed, self.dispatch, {"session": self._execute}, Presence(worker), offer)

    async def _execute(self, run: Run) -> None:
        self.ran.append(run.id)
        await self.executor(run)

    def recovery(self, lock: WorkerLock, *, heartbeat: float = 5) -> Recovery:
        """Its recovery, which looks very often."""
        return Recovery(
            self.database,
            self.dispatch,
            self.runner,
            lock,
            pools=("default",),
            heartbeat=heartbeat,
            dead_after=20,
            tick=0.01,
        )

    @contextlib.asynccontextmanager
    async def watching(self, lock: WorkerLock) -> AsyncIterator[None]:
        """Work, and look after lost hints and dead workers."""
        watch = asyncio.create_task(self.recovery(lock).watch())
        try:
            async with self.working():
                yield
        finally:
            watch.cancel()
            await asyncio.wait((watch,))

    @contextlib.asynccontextmanager
    async def working(self, *, concurrency: int = 8, grace: float = GUARD) -> AsyncIterator[None]:
        """Work until the end of the block, then stop as on SIGTERM."""
        duty = Duty(pools=self.offer.pools, concurrency=concurrency, grace=grace, fits=self.offer.fits)
        task = asyncio.create_task(self.dispatch.work(self.runner, duty))
        try:
            with anyio.fail_after(GUARD):
                yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await self.feed.close()

    async def start(self, text: str = "hello", **session: Any) -> str:
        return (await self.admission.start(ANN, a_session(**session), NewMessage(text))).id

    async def row(self, id: str) -> Execution:
        found = await self.database.read(executions.get(ANN, id))
        assert found is not None
        return found

    async def until(self, id: str, type: str, times: int = 1) -> list[Frame]:
        """Everything a reader sees up to the n-th event of a type."""
        seen: list[Frame] = []
        async with contextlib.aclosing(self.feed.follow(ANN, id)) as batches:
            async for batch in batches:
                seen += batch
                if sum(frame.type == type for frame in seen) >= times:
                    break
        return seen

    async def row_when(self, id: str, told: Callable[[Execution], bool]) -> Execution:
        """The row of a session once something is true of it; what no event announces is looked up."""
        while not told(row := await self.row(id)):
            await anyio.lowlevel.checkpoint()
        return row

    async def at_rest(self, id: str) -> Execution:
        return await self.row_when(id, lambda row: row.state == "idle")


class Unreliable:
    """A database that does not answer for a while: the next writes fail, or those of the program `only`.

    `lost`: the answer fails, the commit does not.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.failures = 0
        self.error: BaseException = DatabaseUnavailable("the database does not answer")
        self.lost = False
        self.only = ""
        self.failed = asyncio.Event()

    async def write(self, steps: Any) -> Any:
        if not self.failures or (self.only and steps.__qualname__ != self.only):
            return await self._database.write(steps)
        self.failures -= 1
        self.failed.set()
        if self.lost:
            await self._database.write(steps)
        raise self.error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)


class Held:
    """A database that holds the programs of one name until it may go on."""

    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self._name = name
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()

    async def write(self, steps: Any) -> Any:
        if steps.__qualname__ == self._name:
            self.reached.set()
            await self.go_on.wait()
        return await self._database.write(steps)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)
