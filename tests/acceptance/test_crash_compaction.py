"""Sessions whose history is compacted while their process dies."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.crash import compacting, judge
from tests.crash.databases import fresh_schema
from tests.crash.process import Zygote
from tests.crash.stage import Plan

FINISHED = "exit 0"
#: Commits beyond those of the first run, in case another run has more.
MARGIN = 2

#: Gives the URL of a fresh database; empty for the default one in the home.
NewDatabase = Callable[[], str]


@pytest.fixture(scope="module")
def zygotes() -> Iterator[list[Zygote]]:
    made = [Zygote(), Zygote()]
    yield made
    for zygote in made:
        zygote.close()


@pytest.fixture(params=["sqlite", "postgres"])
def new_database(request: pytest.FixtureRequest) -> Iterator[NewDatabase]:
    """Fresh databases of each kind."""
    if request.param == "sqlite":
        yield lambda: ""
        return
    server: str = request.getfixturevalue("postgres")
    with ExitStack() as stack:
        yield lambda: stack.enter_context(fresh_schema(server))


def crash_and_recover(zygote: Zygote, home: Path, crash: str, database: str) -> list[str]:
    """Kill one process, then let another one finish; what is wrong then."""
    zygote.play(Plan(str(home), "compacting", database, crash))
    status = zygote.play(Plan(str(home), "compacting", database))
    if status != FINISHED:
        return [f"{crash}: recovery ended with {status}: {(home / 'log').read_text()[-2000:]}"]
    return [f"{crash}: {fault}" for fault in compacting.faults(home, database)]


@pytest.mark.timeout(180)
@pytest.mark.behaviour("durability:compaction:every-commit")
def test_a_kill_at_any_commit_of_a_session_that_is_compacted_loses_and_repeats_nothing(
    zygotes: list[Zygote], tmp_path: Path, new_database: NewDatabase
) -> None:
    whole, database = tmp_path / "whole", new_database()
    assert zygotes[0].play(Plan(str(whole), "compacting", database)) == FINISHED
    assert compacting.faults(whole, database) == []
    commits = judge.calls(whole)[-1].detail["commits"] + MARGIN
    assert commits > 30
    crashes = [f"{when}:{n}" for when, n in itertools.product(("before", "after"), range(1, commits + 1))]
    crashes = crashes[:: 5 if database else 1]

    def some(worker: int) -> list[str]:
        homes = (tmp_path / f"{worker}-{n}" for n in itertools.count())
        mine = zip(crashes[worker :: len(zygotes)], homes, strict=False)
        return [
            fault for crash, home in mine for fault in crash_and_recover(zygotes[worker], home, crash, new_database())
        ]

    with ThreadPoolExecutor(len(zygotes)) as threads:
        assert [fault for faults in threads.map(some, range(len(zygotes))) for fault in faults] == []
