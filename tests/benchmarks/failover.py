"""A worker goes in mid-run: how long until another one runs what it ran."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

from tests.benchmarks.frame import Row, Size, median
from tests.scale.machines import (
    DEAD_AFTER,
    Machines,
    Started,
    machines,
    register_ledger,
    start_ledger,
    until,
)
from tests.scale.private import NoPostgres, own_postgres

KILLED = "killed on another machine: until its work runs elsewhere, median"
TOLD = "told to leave (SIGTERM): until its work runs elsewhere, median"


async def measure(size: Size, home: Path) -> list[Row]:
    """On Postgres, with a dead time of a few seconds."""
    try:
        killed, told = await asyncio.to_thread(_measure, size, home)
    except NoPostgres as lack:
        return [Row(name=name, figure=None, unit="s", note=str(lack)) for name in (KILLED, TOLD)]
    return [
        Row(
            name=KILLED, figure=median(killed), unit="s", limit=DEAD_AFTER, limit_is="the dead time", target=1.0,
            over=True,
        ),
        Row(name=TOLD, figure=median(told), unit="s", target=1.0),
    ]  # fmt: skip


def _measure(size: Size, home: Path) -> tuple[list[float], list[float]]:
    with own_postgres() as postgres, machines(home, postgres.url) as many:
        url = many.server()
        register_ledger(many, url)
        workers = {worker.id: worker for worker in (many.worker(), many.worker())}
        found: dict[int, list[float]] = {signal.SIGKILL: [], signal.SIGTERM: []}
        for _ in range(size.starts):
            for number, seconds in found.items():
                seconds.append(_followed(many, url, workers, number))
                worker = many.worker()
                workers[worker.id] = worker
        return found[signal.SIGKILL], found[signal.SIGTERM]


def _followed(many: Machines, url: str, workers: dict[str, Started], number: int) -> float:
    """Seconds from the end of a worker to the claim of another."""
    ledger = start_ledger(many, url, 10_000)
    first = until(lambda: many.owner(ledger))
    settled = many.effects.count("settle")
    until(lambda: many.effects.count("settle") > settled)
    began = time.perf_counter()
    gone = workers.pop(first)
    gone.process.send_signal(number)
    until(lambda: many.owner(ledger) not in (first, None))
    took = time.perf_counter() - began
    many.query("delete from executions where id = %s", ledger)
    gone.process.wait()
    return took
