"""One durable commit, bare and through the store."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from pathlib import Path

from flux.store import workers
from flux.store.opening import open_database
from tests.benchmarks.frame import Row, Size, Spent, median, ms, own_cpu, spent

GROUP = 64
RAW, RAW_GROUP = "a bare commit", "the same in one bare commit"


async def measure(size: Size, home: Path) -> list[Row]:
    """The same statement: one after the other, and 64 at once."""
    ones, grouped, took = await _store(size, home / "flux.db")
    before = own_cpu()
    raw = bare(home / "flux.db", size.commits, 1)
    cpu, raw_cpu = took.cpu / len(ones), (own_cpu() - before) / len(raw)
    raw_grouped = bare(home / "flux.db", max(1, size.commits // 10), GROUP)
    return [
        Row(name="one program, median", figure=ms(median(ones)), unit="ms", limit=ms(median(raw)), limit_is=RAW),
        Row(name="one program, CPU", figure=ms(cpu), unit="ms", limit=ms(raw_cpu), limit_is=RAW),
        Row(
            name=f"{GROUP} at once, per program", figure=ms(median(grouped) / GROUP), unit="ms",
            limit=ms(median(raw_grouped) / GROUP), limit_is=RAW_GROUP,
        ),
    ]  # fmt: skip


async def _store(size: Size, path: Path) -> tuple[list[float], list[float], Spent]:
    database = await open_database(f"sqlite:///{path}")

    async def one() -> None:
        await database.write(workers.beat(workers.Presence("one")))

    async def group() -> None:
        await asyncio.gather(*(database.write(workers.beat(workers.Presence(f"w{n}"))) for n in range(GROUP)))

    async def several(what: object, count: int) -> list[float]:
        return [(await spent(one() if what is one else group()))[1].wall for _ in range(count)]

    await several(one, 20)
    ones, took = await spent(several(one, size.commits))
    grouped = await several(group, max(1, size.commits // 10))
    await database.close()
    return ones, grouped, took


def bare(path: Path, commits: int, statements: int) -> list[float]:
    """Seconds that each of so many commits takes without Flux, on a database that the store has made."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("pragma journal_mode=wal")
    connection.execute("pragma synchronous=full")
    found = [_commit(connection, statements) for _ in range(commits)]
    connection.close()
    return found


def _commit(connection: sqlite3.Connection, statements: int) -> float:
    began = time.perf_counter()
    connection.execute("begin immediate")
    for n in range(statements):
        connection.execute(workers.BEAT, {"id": f"w{n}", "now": time.time()})
    connection.execute("commit")
    return time.perf_counter() - began
