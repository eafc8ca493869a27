"""Ten thousand idle sessions: what they cost a server that starts on them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import httpx

from tests.benchmarks.children import flux_server
from tests.benchmarks.frame import Row, Size, median
from tests.benchmarks.talk import with_past

EMPTY = "with none"


class Start(NamedTuple):
    """Seconds until a server is ready, and its megabytes then."""

    seconds: float
    memory: float


async def measure(size: Size, home: Path) -> list[Row]:
    """Starts with many sessions and with none, in turn."""
    await with_past(home / "many", size.sleepers, 1)
    await with_past(home / "none", 0, 1)
    many: list[Start] = []
    none: list[Start] = []
    for _ in range(size.starts):
        none.append(await _start(home / "none"))
        many.append(await _start(home / "many"))
    figures = [
        ("memory", "MB", [start.memory for start in many], [start.memory for start in none], 2.0, True),
        ("start to ready", "s", [start.seconds for start in many], [start.seconds for start in none], 0.5, False),
    ]
    return [
        Row(
            name=f"{size.sleepers:,} sessions: {name}", figure=median(found), unit=unit, limit=median(least),
            limit_is=EMPTY, target=target, over=over,
        )
        for name, unit, found, least, target, over in figures
    ]  # fmt: skip


async def _start(home: Path) -> Start:
    async with flux_server(home) as server, httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
        (await http.get("/ready")).raise_for_status()
        return Start(server.started, server.rss())
