"""A server and a worker that are processes of their own, on one Postgres."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

import pytest

from flux.agents.define.definition import define
from flux.agents.process import Process, open_process
from flux.engine.intake.inputs import NewMessage
from flux.messages import TextDelta
from flux.models.base import ModelEvent, ModelRequest
from flux.settings import Settings
from flux.store.database import LOCAL, one
from flux.store.feed import Cursor, Frame
from flux.testing import Reply, ScriptedModel

GUARD = 20
WORDS = " ".join(f"word{n}" for n in range(200))


class Endless(ScriptedModel):
    """Begins and never ends."""

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """Say a word, and wait."""
        yield TextDelta("Well")
        await asyncio.Event().wait()


MODELS: dict[str, Callable[[], ScriptedModel]] = {
    "talks": lambda: ScriptedModel([Reply(WORDS)], delay=0.002),
    "endless": lambda: Endless([]),
}


class Apart:
    """A worker, and servers that run nothing."""

    def __init__(self, worker: Process, servers: list[Process]) -> None:
        self.worker = worker
        self.servers = servers

    async def start(self, model: str) -> str:
        agent = define({"name": "agent", "model": f"test/{model}"})
        await self.servers[0].agents.put(LOCAL, agent, create=True, update=True)
        return (await self.servers[0].sessions.start(LOCAL, "agent", NewMessage("go on"))).id


@pytest.fixture
async def apart(postgres_url: str, tmp_path: Path) -> AsyncIterator[Apart]:
    async with AsyncExitStack() as stack:

        async def opened(name: str, *, worker: bool) -> Process:
            return await stack.enter_async_context(
                open_process(
                    Settings(home=tmp_path / name, database_url=postgres_url),
                    environment={},
                    workspace=tmp_path,
                    factories={"test": lambda name: MODELS[name]()},
                    worker=worker,
                )
            )

        servers = [await opened(name, worker=False) for name in ("one", "two")]
        yield Apart(await opened("worker", worker=True), servers)


async def read(server: Process, id: str, after: Cursor, enough: int) -> list[Frame]:
    """Frames behind a place, up to so many deltas or the end of the run."""
    seen: list[Frame] = []
    async with asyncio.timeout(GUARD), aclosing(server.sessions.follow(LOCAL, id, after)) as batches:
        async for batch in batches:
            for frame in batch:
                seen.append(frame)
                if frame.type in ("chat_response", "cancelled") or sum(not one.entry for one in seen) == enough:
                    return seen
    return seen


@pytest.mark.behaviour("feed:elsewhere:exactly-once", "feed:elsewhere:moves", "feed:elsewhere:leaves-nothing")
async def test_a_reader_who_moves_between_servers_reads_the_whole_answer(
    apart: Apart, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flux.store.stream.KEEP_SECONDS", 0.2)
    id = await apart.start("talks")
    seen: list[Frame] = []
    for turn in range(20):
        server = apart.servers[turn % 2]
        seen += await read(server, id, seen[-1].cursor if seen else Cursor(0), 20)
        if seen[-1].type == "chat_response":
            break
    assert "".join(json.loads(frame.data)["text"] for frame in seen if frame.type == "token") == WORDS
    entries = [frame.cursor.seq for frame in seen if frame.entry]
    assert entries == list(range(1, len(entries) + 1))
    kinds = [frame.type for frame in seen]
    assert kinds.index("assistant_message") > len(kinds) - 1 - kinds[::-1].index("token")
    async with asyncio.timeout(GUARD):
        while await apart.worker.database.single(one("select count(*) from deltas")) != [(0,)]:
            pass


@pytest.mark.behaviour("feed:elsewhere:cancel")
async def test_a_run_is_cancelled_from_another_process_by_its_bell(
    apart: Apart, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flux.store._listen.LOOK_SECONDS", 1_000)
    id = await apart.start("endless")
    assert (await read(apart.servers[0], id, Cursor(0), 1))[-1].type == "token"
    assert await apart.servers[1].sessions.cancel(LOCAL, id) is not None
    assert (await read(apart.servers[0], id, Cursor(0), 1_000_000))[-1].type == "cancelled"
