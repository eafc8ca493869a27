"""Ten thousand idle sessions, or paused workflows: what they cost a server that starts on them."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path
from typing import NamedTuple

import httpx

from flux.entries.workflows import WorkflowClaimed, WorkflowPaused, WorkflowScheduled, WorkflowStarted
from flux.events import Entry, Paused
from flux.store import executions, interrupts, log
from flux.store.database import LOCAL, Steps
from tests.benchmarks.children import flux_server
from tests.benchmarks.frame import TEXT, Row, Size, median
from tests.benchmarks.talk import embedded, with_past

EMPTY = "with none"
WORKFLOW, CALL = "default/sleeper", "pause:enough"
PAUSE = """
update executions set head = :n, epoch = 1, state = 'waiting', waiting_for = 'pause', due = null where id = :id"""


class Start(NamedTuple):
    """Seconds until a server is ready, and its megabytes then."""

    seconds: float
    memory: float


async def measure(size: Size, home: Path) -> list[Row]:
    """Starts with many sessions, with many workflows, and with none, in turn."""
    await with_past(home / "sessions", size.sleepers, 1)
    await _paused(home / "paused workflows", size.sleepers)
    await with_past(home / "none", 0, 1)
    starts: dict[str, list[Start]] = {name: [] for name in ("none", "sessions", "paused workflows")}
    for _ in range(size.starts):
        for name, found in starts.items():
            found.append(await _start(home / name))
    none = starts.pop("none")
    return [row for name, many in starts.items() for row in _rows(f"{size.sleepers:,} {name}", many, none)]


def _rows(what: str, many: list[Start], none: list[Start]) -> list[Row]:
    figures = [
        ("memory", "MB", [start.memory for start in many], [start.memory for start in none], 2.0, True),
        ("start to ready", "s", [start.seconds for start in many], [start.seconds for start in none], 0.5, False),
    ]
    return [
        Row(
            name=f"{what}: {name}", figure=median(found), unit=unit, limit=median(least),
            limit_is=EMPTY, target=target, over=over,
        )
        for name, unit, found, least, target, over in figures
    ]  # fmt: skip


async def _start(home: Path) -> Start:
    async with flux_server(home) as server, httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
        (await http.get("/ready")).raise_for_status()
        return Start(server.started, server.rss())


async def _paused(home: Path, count: int) -> None:
    """Workflows in the database of `home` that wait in a pause."""
    async with embedded(home, worker=False) as (_, process):
        await asyncio.gather(*(process.database.write(_pausing(uuid.uuid4().hex)) for _ in range(count)))


def _pausing(id: str) -> Steps[None]:
    asked = Paused(id=interrupts.interrupt_id(id, CALL), call=CALL, name="enough")
    shown = {"name": asked.name, "output": None}
    entries: list[Entry] = [
        WorkflowScheduled(workflow=WORKFLOW, input=TEXT, source_version=1),
        WorkflowClaimed(worker="gone"),
        WorkflowStarted(),
        asked,
        WorkflowPaused(waiting_for="pause", value=shown),
    ]
    yield from executions.create_workflow(LOCAL, id=id, workflow=WORKFLOW, source_version=1, pool="default")
    yield PAUSE, {"id": id, "n": len(entries)}
    yield from log.insert(id, entries, len(entries), id, 1)
    yield from interrupts.open_interrupt(
        LOCAL, id=asked.id, execution_id=id, call=CALL, kind="pause", payload={"name": asked.name}
    )
