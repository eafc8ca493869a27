"""A server with nothing to do: processor and memory, alone and while somebody reads a session."""

from __future__ import annotations

import asyncio
from pathlib import Path

from flux.client import FluxClient
from tests.benchmarks.children import Child, flux_server
from tests.benchmarks.frame import Row, Size
from tests.benchmarks.readers import events, reading
from tests.benchmarks.talk import make_agent, sessions


async def measure(size: Size, home: Path) -> list[Row]:
    """Two servers rest at the same time; one has a reader."""
    async with flux_server(home / "alone") as alone, flux_server(home / "read") as read:
        async with FluxClient(read.url) as client:
            await make_agent(client)
            (session,) = await sessions(client, 1)
        rss = alone.rss()
        async with reading(read, events(f"/sessions/{session.id}/events"), 1):
            loads = await asyncio.gather(_load(alone, size), _load(read, size))
    names = [("alone", 0.5), ("with one reader", None)]
    return [
        *(
            Row(name=f"{name}: processor", figure=load, unit="% of one", target=target)
            for (name, target), load in zip(names, loads, strict=True)
        ),
        Row(name="alone: memory", figure=rss, unit="MB", target=80.0),
    ]


async def _load(server: Child, size: Size) -> float:
    """Percent of a processor."""
    await asyncio.sleep(min(1.0, size.idle_seconds))  # what follows a start is not idling
    before = server.cpu()
    await asyncio.sleep(size.idle_seconds)
    return 100 * (server.cpu() - before) / size.idle_seconds
