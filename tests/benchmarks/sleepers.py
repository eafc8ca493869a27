"""Ten thousand idle sessions: what they cost a server that starts on them."""

from __future__ import annotations

from pathlib import Path

import httpx

from tests.benchmarks.children import flux_server
from tests.benchmarks.frame import Row, Size, median
from tests.benchmarks.talk import with_past

EMPTY = "with none"


async def measure(size: Size, home: Path) -> list[Row]:
    """Starts with many sessions and with none, in turn."""
    await with_past(home / "many", size.sleepers, 1)
    await with_past(home / "none", 0, 1)
    many: list[tuple[float, float]] = []
    none: list[tuple[float, float]] = []
    for _ in range(size.starts):
        none.append(await _start(home / "none"))
        many.append(await _start(home / "many"))
    (seconds, memory), (least, least_memory) = (tuple(map(median, zip(*found))) for found in (many, none))
    name = f"{size.sleepers:,} sessions"
    return [
        Row(name=f"{name}: memory", figure=memory, unit="MB", limit=least_memory, limit_is=EMPTY, target=2.0, over=True),
        Row(name=f"{name}: start to ready", figure=seconds, unit="s", limit=least, limit_is=EMPTY, target=0.5, over=True),
    ]


async def _start(home: Path) -> tuple[float, float]:
    """Seconds until a server is ready, and its megabytes then."""
    async with flux_server(home) as server, httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
        (await http.get("/ready")).raise_for_status()
        return server.started, server.rss()
