"""Sandboxes: what it takes to run a command that does nothing."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from flux.sandboxes import Sandbox, isolated, local, virtual
from flux.sandboxes.factories import isolation_problem
from tests.benchmarks.frame import Row, Size, median, ms

COMMAND = "true"
BARE = "bash -c true by subprocess"
VIRTUAL_MS, ISOLATED_MS = 2.0, 25.0


async def measure(size: Size, home: Path) -> list[Row]:
    """A command in each sandbox."""
    bare = median([_bare() for _ in range(size.turns)])
    rows = [
        _row("virtual", await _exec(await virtual().open(), size), target=VIRTUAL_MS),
        _row("local", await _exec(await local().open(workspace=str(home)), size), limit=ms(bare), limit_is=BARE),
    ]
    if problem := isolation_problem():
        return [*rows, Row(name="isolated: exec, median", figure=None, unit="ms", note=problem)]
    found = await _exec(await isolated().open(workspace=str(home)), size)
    return [*rows, _row("isolated", found, target=ISOLATED_MS, limit=ms(bare), limit_is=BARE, over=True)]


def _row(name: str, seconds: float, **more: float | str | bool | None) -> Row:
    return Row(name=f"{name}: exec, median", figure=ms(seconds), unit="ms", **more)  # type: ignore[arg-type]


async def _exec(sandbox: Sandbox, size: Size) -> float:
    took: list[float] = []
    for _ in range(size.warm_up + size.turns):
        began = time.perf_counter()
        await sandbox.exec(COMMAND, timeout=10)
        took.append(time.perf_counter() - began)
    return median(took[size.warm_up :])


def _bare() -> float:
    began = time.perf_counter()
    subprocess.run(["/bin/bash", "-c", COMMAND], check=True)
    return time.perf_counter() - began
