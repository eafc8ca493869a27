"""Crash sweeps: one process dies at a moment, another one finishes, for each of many moments, some at a time."""

import itertools
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tests.crash.process import Zygote
from tests.crash.stage import Plan

KILLED = f"signal {signal.SIGKILL.value}"
FINISHED = "exit 0"
#: Gives the URL of a fresh database; empty for the default one in the home.
NewDatabase = Callable[[], str]
C = TypeVar("C")
#: Crashes a process and lets another one finish, in a home and a database of their own; what is wrong then.
Recover = Callable[[Zygote, Path, C, str], list[str]]


@contextmanager
def zygotes_of(count: int) -> Iterator[list[Zygote]]:
    """So many processes that others are forked from."""
    made = [Zygote() for _ in range(count)]
    yield made
    for zygote in made:
        zygote.close()


def moments(commits: int) -> list[str]:
    """Before and after each of so many commits."""
    return [f"{when}:{n}" for when, n in itertools.product(("before", "after"), range(1, commits + 1))]


def unfinished(zygote: Zygote, home: Path, scenario: str, crash: str, database: str = "") -> list[str]:
    """Crash one process, then let another one finish; that it did not, if so."""
    zygote.play(Plan(str(home), scenario, database, crash))
    status = zygote.play(Plan(str(home), scenario, database))
    if status == FINISHED:
        return []
    return [f"{crash}: recovery ended with {status}: {(home / 'log').read_text()[-2000:]}"]


def sweep(
    zygotes: list[Zygote], folder: Path, crashes: Sequence[C], recover: Recover[C], new_database: NewDatabase = str
) -> list[str]:
    """All these crashes, as many at a time as there are zygotes; what is wrong after them."""

    def some(worker: int) -> list[str]:
        mine = crashes[worker :: len(zygotes)]
        homes = (folder / f"{worker}-{n}" for n in itertools.count())
        return [
            fault
            for crash, home in zip(mine, homes, strict=False)
            for fault in recover(zygotes[worker], home, crash, new_database())
        ]

    with ThreadPoolExecutor(len(zygotes)) as threads:
        return [fault for faults in threads.map(some, range(len(zygotes))) for fault in faults]
