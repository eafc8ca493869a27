"""Workflows: a trivial one over HTTP, and in process tasks one by one, tasks at once, and going on after many."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from flux.agents.process import Process, open_process
from flux.client import FluxClient
from flux.client.workflows import WorkflowsClient
from flux.settings import load_settings
from flux.store.database import LOCAL, CommitObserver
from flux.store.feed import START, Cursor
from tests.benchmarks import replay
from tests.benchmarks.children import flux_server, replaying
from tests.benchmarks.commit import bare
from tests.benchmarks.frame import Row, Size, Spent, median, ms, own_cpu, p95, spent
from tests.benchmarks.turn import STREAM

SOURCE = b"""
from flux import pause, task, workflow


@task
async def double(n):
    return 2 * n


@workflow
async def trivial(ctx):
    return ctx.input


@workflow
async def one_by_one(ctx):
    for n in range(ctx.input):
        await double(n)
    await pause("enough")


@workflow
async def at_once(ctx):
    return len(await double.map(range(ctx.input)))
"""
#: Admission, claim, and the end with what it came to.
COMMITS = 3
COMMITTED, SELECT = "bare commits", "a bare select of the same rows"
READ = "select seq, type, run_id, epoch, at, body from events where execution_id = :id"
#: A run, and the seconds that it took.
Run = tuple[bytes, float]


async def measure(size: Size, home: Path) -> list[Row]:
    """Over sockets to a server of its own, then in process."""
    rows = await _served(size, home)
    commits = Commits()
    path = home / "embedded" / "flux.db"
    async with embedded(home / "embedded", commits) as process:
        return rows + await in_process(
            size, process, commits, Bare(partial(bare, path, size.commits, 1), partial(_select, path))
        )


# --- over HTTP


def posting(path: str, body: bytes) -> bytes:
    """A request with a body of JSON."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return head.encode() + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


def _trivial(caller: int) -> bytes:
    return posting("/workflows/default/trivial/run/sync", b"7")


class Caller:
    """A connection that sends one request again and again, and reads the answers as raw bytes."""

    def __init__(self, url: str, request: bytes) -> None:
        place = urlsplit(url)
        self._request = request
        self._host, self._port = place.hostname or "", place.port or 0
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def run(self) -> Run:
        """One run, from the request to the end of the answer."""
        return (found := await spent(self._answer()))[0], found[1].wall

    async def _answer(self) -> bytes:
        reader, writer = self._streams = self._streams or await asyncio.open_connection(self._host, self._port)
        writer.write(self._request)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise ConnectionError(f"the server said {head[:200]!r}")
        length = next((line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), None)
        return await (reader.readuntil(replay.LAST) if length is None else reader.readexactly(int(length[15:])))

    def close(self) -> None:
        """Hang up."""
        if self._streams is not None:
            self._streams[1].close()


async def _served(size: Size, home: Path) -> list[Row]:
    async with flux_server(home / "served") as server, FluxClient(server.url) as client:
        await WorkflowsClient(client).register(SOURCE)
        alone, _ = await calls(server.url, 1, size.warm_up, size.runs)
        many, took = await calls(server.url, size.callers, 1, size.rounds, server.cpu)
    async with replaying(replay.save(home / "answer.json", [many[0][0]])) as server:
        raw, raw_took = await calls(server.url, size.callers, 1, size.rounds, server.cpu)
    least = COMMITS * median(bare(home / "served" / "flux.db", size.commits, 1))
    right = sum(b'"state":"COMPLETED"' in answer for answer, _ in alone + many)
    waits = [wait for _, wait in alone]
    where = f"{size.callers} at once over HTTP"
    return [
        Row(
            name="over HTTP, sync: median", figure=ms(median(waits)), unit="ms", limit=ms(least),
            limit_is=f"{COMMITS} {COMMITTED}", target=5.0,
        ),
        Row(name="over HTTP, sync: p95", figure=ms(p95(waits)), unit="ms", limit=ms(least), limit_is=COMMITTED),
        Row(
            name=f"{where}: runs per second", figure=len(many) / took.wall, unit="/s",
            limit=len(raw) / raw_took.wall, limit_is=STREAM, target=400, at_least=True,
        ),
        Row(
            name=f"{where}: CPU per run", figure=ms(took.cpu / len(many)), unit="ms",
            limit=ms(raw_took.cpu / len(raw)), limit_is=STREAM,
        ),
        Row(
            name="runs that completed", figure=100 * right / len(alone + many), unit="%", target=100, at_least=True
        ),
    ]  # fmt: skip


async def calls(
    url: str,
    callers: int,
    warm_up: int,
    rounds: int,
    cpu: Any = lambda: 0.0,
    *,
    request: Callable[[int], bytes] = _trivial,
) -> tuple[list[Run], Spent]:
    """So many runs by each of so many callers, whose requests `request` gives."""
    opened = [Caller(url, request(number)) for number in range(callers)]

    async def several(caller: Caller, count: int) -> list[Run]:
        return [await caller.run() for _ in range(count)]

    await asyncio.gather(*(several(caller, warm_up) for caller in opened))
    found, took = await spent(asyncio.gather(*(several(caller, rounds) for caller in opened)), cpu)
    for caller in opened:
        caller.close()
    return [run for runs in found for run in runs], took


# --- in process


class Commits:
    """Counts commits."""

    def __init__(self) -> None:
        self.count = 0

    def before(self) -> None:
        """A commit begins."""

    def after(self) -> None:
        """A commit is made."""
        self.count += 1


@asynccontextmanager
async def embedded(home: Path, observer: CommitObserver, **settings: Any) -> AsyncIterator[Process]:
    """Flux in this process, with the workflows of the benchmarks."""
    settings_ = load_settings({}, cwd=home, home=str(home), **settings)
    async with open_process(settings_, environment=os.environ, workspace=home, observer=observer) as process:
        await process.workflows.register(LOCAL, SOURCE)
        yield process


class Bare(NamedTuple):
    """The same database without Flux: seconds of commits, and of reading the rows of a log; `where` names it."""

    commits: Callable[[], list[float]]
    select: Callable[[str], float]
    where: str = ""
    targets: bool = True


async def in_process(size: Size, process: Process, commits: Commits, without: Bare) -> list[Row]:
    """Tasks one by one, at once, and going on behind them."""
    tasks, where = size.tasks, without.where
    await _until(process, await _start(process, "one_by_one", size.warm_up), "WORKFLOW_PAUSED")
    began = own_cpu()
    raw = without.commits()
    raw_cpu = (own_cpu() - began) / len(raw)
    id = await _start(process, "one_by_one", tasks)
    _, single = await spent(_until(process, id, "WORKFLOW_PAUSED"))
    raw += without.commits()  # what a commit takes changes from second to second
    resumed = await _resume(process, id)
    before = commits.count
    wide = await _start(process, "at_once", tasks)
    _, parallel = await spent(_until(process, wide, "WORKFLOW_COMPLETED"))
    grouped = commits.count - before
    return [
        Row(
            name=f"{where}tasks one by one, per second", figure=tasks / single.wall, unit="/s",
            limit=len(raw) / sum(raw), limit_is=COMMITTED, target=800 if without.targets else None, at_least=True,
        ),
        Row(
            name=f"{where}tasks one by one: CPU per task", figure=ms(single.cpu / tasks), unit="ms", limit=ms(raw_cpu),
            limit_is=COMMITTED,
        ),
        Row(
            name=f"{where}{tasks:,} tasks at once: commits", figure=grouped, unit="", limit=tasks, limit_is="one each",
            target=tasks / 10,
        ),
        Row(name=f"{where}{tasks:,} tasks at once, per second", figure=tasks / parallel.wall, unit="/s"),
        Row(
            name=f"{where}going on behind {tasks:,} tasks", figure=resumed, unit="s", limit=without.select(id),
            limit_is=SELECT, target=0.2 if without.targets else None,
        ),
    ]  # fmt: skip


async def _start(process: Process, name: str, count: int) -> str:
    return (await process.executions.start(LOCAL, f"default/{name}", count)).id


async def _until(process: Process, id: str, type: str, after: Cursor = START) -> None:
    """Return when an entry of that type is shown."""
    async for batch in process.executions.follow(LOCAL, id, after):
        if any(frame.type == type for frame in batch):
            return


async def _resume(process: Process, id: str) -> float:
    """Seconds from the answer to a pause to the end."""

    async def go_on() -> None:
        answered = await process.executions.resume(LOCAL, id, None)
        await _until(process, id, "WORKFLOW_COMPLETED", Cursor(answered.seq))

    return (await spent(go_on()))[1].wall


def _select(path: Path, id: str) -> float:
    """Seconds that the rows of a log take to read."""
    with closing(sqlite3.connect(path)) as connection:
        began = time.perf_counter()
        connection.execute(READ, {"id": id}).fetchall()
        return time.perf_counter() - began
