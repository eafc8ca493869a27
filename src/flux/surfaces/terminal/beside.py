"""What goes on beside a run: redrawing, and a look at the server when nothing comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager

from flux.client import FluxClient
from flux.errors import ServerUnreachable
from flux.surfaces.terminal.view import View

TICK_SECONDS = 0.05
SILENT_SECONDS = 1.0


@asynccontextmanager
async def beside(*work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Run endless work until the block is left."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled():
                task.result()


async def tick(view: View) -> None:
    """Let the view draw what has changed."""
    while True:
        await asyncio.sleep(TICK_SECONDS)
        view.tick()


async def tell_when_lost(client: FluxClient, view: View, heard: Callable[[], float]) -> None:
    """Show while the server is away that it is; `heard` is when the last event came (loop time).

    The stream reconnects by itself and silently, so only the server's health shows that it is gone.
    """
    loop, lost = asyncio.get_running_loop(), False
    while True:
        await asyncio.sleep(SILENT_SECONDS)
        if not lost and loop.time() - heard() < SILENT_SECONDS:
            continue
        away = await _away(client)
        if away != lost:
            view.status("reconnecting…" if away else "")
        lost = away


async def _away(client: FluxClient) -> bool:
    try:
        await client.get("/health")
    except ServerUnreachable:
        return True
    return False
