"""What a person waits for: imports, commands, and `flux chat` up to its prompt."""

from __future__ import annotations

import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pexpect
import pyte

from tests.benchmarks.children import FLUX, ROOT, cpu_of, flux_environment, rss, run_to_end
from tests.benchmarks.frame import Row, Size, median

NOTHING = "python -c pass"
PROMPT = "> "
PROMPT_SECONDS = 30
ROWS, COLUMNS = 30, 100


async def measure(size: Size, home: Path) -> list[Row]:
    """Each in a fresh process."""
    home.mkdir(exist_ok=True)
    commands: list[tuple[str, tuple[str, ...], float | None]] = [
        ("import flux", (sys.executable, "-c", "import flux"), 0.1),
        ("flux --help", (FLUX, "--help"), 0.15),
        ("flux agent list, embedded", (FLUX, "agent", "list", "--format", "json"), None),
    ]
    least = _cpu(size, home, sys.executable, "-c", "pass")
    rows = [
        Row(
            name=f"{name}: CPU", figure=_cpu(size, home, *command), unit="s", limit=least, limit_is=NOTHING,
            target=target,
        )
        for name, command, target in commands
    ]  # fmt: skip
    return rows + _chat(size, home, least)


def _cpu(size: Size, home: Path, *command: str) -> float:
    """Median processor seconds of a command; the first run fills caches and does not count."""
    environment = flux_environment(home)
    run_to_end(*command, environment=environment)
    return median([run_to_end(*command, environment=environment).cpu for _ in range(3 * size.starts)])


def _chat(size: Size, home: Path, least: float) -> list[Row]:
    wall, cpu = "flux chat to its prompt: wall", "flux chat to its prompt: CPU"
    if find_spec("flux.surfaces.terminal") is None:
        return [Row(name=wall, figure=None, unit="s", target=1.0, note="there is no flux.surfaces.terminal yet")]
    _to_prompt(home)
    walls, cpus, sizes = zip(*(_to_prompt(home) for _ in range(size.starts)), strict=True)
    return [
        Row(name=wall, figure=median(walls), unit="s", target=1.0),
        Row(name=cpu, figure=median(cpus), unit="s", limit=least, limit_is=NOTHING),
        Row(name="flux chat at its prompt: memory", figure=median(sizes), unit="MB", target=110.0),
    ]


def _to_prompt(home: Path) -> tuple[float, float, float]:
    """Wall seconds to the prompt, CPU seconds to there, megabytes there."""
    began = time.perf_counter()
    environment = flux_environment(home)
    child: pexpect.spawn[bytes] = pexpect.spawn(
        FLUX, ["chat"], cwd=str(ROOT), env=environment, dimensions=(ROWS, COLUMNS), encoding=None
    )
    assert child.pid is not None
    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.ByteStream(screen)
    while not any(line.startswith(PROMPT) for line in screen.display):
        stream.feed(child.read_nonblocking(1 << 16, PROMPT_SECONDS))
    wall = time.perf_counter() - began
    memory, cpu = rss(child.pid), cpu_of(child.pid)
    child.close(force=True)
    return wall, cpu, memory
