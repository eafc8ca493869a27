"""What every benchmark shares: its size, its rows, statistics, and how a row is held against its target."""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

T = TypeVar("T")

#: A message of 50 words: `scripted/echo` answers it with 50 tokens.
TOKENS = 50
TEXT = " ".join(f"word{n:02}" for n in range(TOKENS))
HEADER = ("", "measure", "figure", "limit in this run", "beyond the limit", "target", "")


@dataclass(frozen=True)
class Size:
    """How much a benchmark does."""

    turns: int = 100
    warm_up: int = 20
    sessions: int = 50
    rounds: int = 4
    history: int = 106
    entries: int = 5_000
    long_sessions: int = 5
    sleepers: int = 10_000
    readers: int = 1_000
    events: int = 10
    idle_seconds: float = 5.0
    starts: int = 3
    commits: int = 300
    runs: int = 200
    callers: int = 200
    tasks: int = 2_000
    memories: int = 100_000
    questions: int = 100
    page_seconds: float = 5.0


QUICK = Size()
LONG = Size(
    turns=1_000,
    warm_up=100,
    rounds=40,
    long_sessions=20,
    events=50,
    idle_seconds=30.0,
    starts=15,
    commits=3_000,
    runs=1_000,
)
TINY = Size(
    turns=4, warm_up=1, sessions=3, rounds=1, history=4, entries=40, long_sessions=2, sleepers=10, readers=5,
    events=1, idle_seconds=0.1, starts=1, commits=5, runs=4, callers=3, tasks=5,
    memories=50, questions=3, page_seconds=0.2,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure beside what bounds it.

    `target` holds for the figure itself, or for what it is `over` the limit; `at_least`: more is better.
    A figure of None was not measured, and `note` says why.
    """

    name: str
    figure: float | None
    unit: str
    limit: float | None = None
    limit_is: str = ""
    target: float | None = None
    over: bool = False
    at_least: bool = False
    note: str = ""

    @property
    def beyond(self) -> float | None:
        """What the figure has on top of its limit, where that is what the target bounds; else their ratio."""
        if self.figure is None or not self.limit:
            return None
        return self.figure - self.limit if self.over else self.figure / self.limit

    @property
    def verdict(self) -> Literal["ok", "over", ""]:
        """Whether the target is met; nothing when there is none."""
        held = self.beyond if self.over else self.figure
        if self.target is None or held is None:
            return ""
        met = held >= self.target if self.at_least else held <= self.target
        return "ok" if met else "over"


class Spent(NamedTuple):
    """Seconds by the clock and on processors."""

    wall: float
    cpu: float


def own_cpu() -> float:
    """Processor seconds of this process so far, all threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def spent(work: Awaitable[T], cpu: Callable[[], float] = own_cpu) -> tuple[T, Spent]:
    """The result of `work` and what it took; `cpu` reads the processor seconds of the measured process."""
    wall_before, cpu_before = time.perf_counter(), cpu()
    result = await work
    return result, Spent(time.perf_counter() - wall_before, cpu() - cpu_before)


def median(values: Sequence[float]) -> float:
    """The middle of the values."""
    return statistics.median(values)


def p95(values: Sequence[float]) -> float:
    """The value that 95 of 100 stay under."""
    return sorted(values)[min(len(values) - 1, int(len(values) * 0.95))]


def ms(seconds: float) -> float:
    """Seconds as milliseconds."""
    return seconds * 1e3


def table(groups: dict[str, list[Row]]) -> str:
    """All rows of all benchmarks, aligned."""
    cells: list[tuple[str, ...]] = [HEADER]
    for name, rows in groups.items():
        cells += [(name if row is rows[0] else "", *_cells(row)) for row in rows]
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEADER))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    return "\n".join([lines[0], "-" * sum(widths, 2 * (len(widths) - 1)), *lines[1:]])


def _cells(row: Row) -> tuple[str, ...]:
    if row.figure is None:
        return row.name, "not measured", row.note, "", _target(row), ""
    limit = f"{_number(row.limit)} {row.limit_is}" if row.limit is not None else ""
    beyond = ""
    if row.beyond is not None:
        beyond = f"{row.beyond:+.2f} {row.unit}" if row.over else f"x {row.beyond:.2f}"
    return row.name, f"{_number(row.figure)} {row.unit}", limit, beyond, _target(row), row.verdict


def _target(row: Row) -> str:
    if row.target is None:
        return ""
    return f"{'>=' if row.at_least else '<='} {row.target:g}{' over the limit' if row.over else ''}"


def _number(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 100 else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def report(groups: dict[str, list[Row]]) -> dict[str, Any]:
    """All rows with what was derived from them, and the machine, as JSON."""
    rows = [
        {"benchmark": name, **asdict(row), "beyond": row.beyond, "verdict": row.verdict}
        for name, rows in groups.items()
        for row in rows
    ]
    machine = {
        "python": platform.python_version(),
        "system": platform.platform(),
        "processors": os.cpu_count(),
        "load": os.getloadavg(),
    }
    return {"at": time.time(), "machine": machine, "rows": rows}


def save(path: Path, groups: dict[str, list[Row]]) -> None:
    """Write the report."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report(groups), indent=2) + "\n")
