"""The engine of one process under an executor that a test controls."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio

from flux.engine.admission import Admission, NewMessage
from flux.engine.dispatch import EmbeddedDispatch
from flux.engine.run import Executor, Run
from flux.engine.runner import Runner
from flux.errors import DatabaseUnavailable
from flux.events import ChatResponse, RunStarted, UserSaid
from flux.store import executions
from flux.store.database import Database
from flux.store.executions import Execution
from flux.store.feed import Feed, Frame
from flux.store.log import Then
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


class Engine:
    def __init__(self, database: Database, executor: Executor = answer_all, *, worker: str = "worker-1") -> None:
        self.database = database
        self.feed = Feed(database)
        self.dispatch = EmbeddedDispatch(database)
        self.admission = Admission(database, self.feed, self.dispatch)
        self.executor = executor
        self.ran: list[str] = []
        self.runner = Runner(database, self.feed, self.dispatch, {"session": self._execute}, worker)

    async def _execute(self, run: Run) -> None:
        self.ran.append(run.id)
        await self.executor(run)

    @contextlib.asynccontextmanager
    async def working(self, *, concurrency: int = 8, grace: float = GUARD) -> AsyncIterator[None]:
        """Work until the end of the block, then stop as on SIGTERM."""
        work = self.dispatch.work("default", self.runner, concurrency=concurrency, grace=grace)
        task = asyncio.create_task(work)
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
    """A database that does not answer for a while."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.failures = 0

    async def write(self, steps: Any) -> Any:
        if self.failures:
            self.failures -= 1
            raise DatabaseUnavailable("the database does not answer")
        return await self._database.write(steps)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)
