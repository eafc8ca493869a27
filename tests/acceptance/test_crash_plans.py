"""Plans whose process dies: each change is in the log with its result or not at all, and a review stays open."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from flux.events import InterruptAnswered, Planned, PlanReview
from tests.crash import judge, planning
from tests.crash.databases import fresh_schema
from tests.crash.process import Zygote, set_fault
from tests.crash.stage import Plan

KILLED = f"signal {signal.SIGKILL.value}"
FINISHED = "exit 0"
#: Commits beyond those of the first run, in case another run has more.
MARGIN = 3

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
    """Crash one process, then let another one finish; what is wrong then."""
    zygote.play(Plan(str(home), "planning", database, crash))
    status = zygote.play(Plan(str(home), "planning", database))
    if status != FINISHED:
        return [f"{crash}: recovery ended with {status}: {(home / 'log').read_text()[-2000:]}"]
    return [f"{crash}: {fault}" for fault in planning.faults(home, database)]


@pytest.mark.timeout(180)
@pytest.mark.behaviour("durability:plans:every-commit")
def test_a_kill_at_any_commit_of_a_plan_loses_and_repeats_nothing(
    zygotes: list[Zygote], tmp_path: Path, new_database: NewDatabase
) -> None:
    whole, database = tmp_path / "whole", new_database()
    assert zygotes[0].play(Plan(str(whole), "planning", database)) == FINISHED
    assert planning.faults(whole, database) == []
    commits = judge.calls(whole)[-1].detail["commits"] + MARGIN
    crashes = [f"{when}:{n}" for when, n in itertools.product(("before", "after"), range(1, commits + 1))]
    assert len(crashes) > 50
    # What differs on Postgres is swept commit by commit in test_crash.py, and each death takes its time there.
    crashes = crashes[:: 4 if database else 1]

    def some(worker: int) -> list[str]:
        homes = (tmp_path / f"{worker}-{n}" for n in itertools.count())
        mine = zip(crashes[worker :: len(zygotes)], homes, strict=False)
        return [
            fault for crash, home in mine for fault in crash_and_recover(zygotes[worker], home, crash, new_database())
        ]

    with ThreadPoolExecutor(len(zygotes)) as threads:
        assert [fault for faults in threads.map(some, range(len(zygotes))) for fault in faults] == []


@pytest.mark.behaviour("durability:plans:review")
def test_a_plan_under_review_survives_a_kill_and_is_decided_once_through_another_process(
    zygotes: list[Zygote], tmp_path: Path
) -> None:
    zygote = zygotes[0]
    set_fault(tmp_path, "waiting")
    assert zygote.play(Plan(str(tmp_path), "review")) == KILLED
    waiting = judge.session(tmp_path)
    assert (waiting.row.state, waiting.row.waiting_for) == ("waiting", "plan")
    assert [question.kind for question in waiting.questions] == ["plan"]
    assert waiting.entries(Planned) == []
    assert zygote.play(Plan(str(tmp_path), "decide", worker=False)) == FINISHED
    assert judge.calls(tmp_path)[-2].detail == {"status": 409}
    assert judge.session(tmp_path).entries(Planned) == []
    assert zygote.play(Plan(str(tmp_path), "planning")) == FINISHED
    found = judge.session(tmp_path)
    assert judge.faults(found) == []
    assert [step["name"] for step in found.entries(Planned)[0].steps] == ["count", "pay", "file", "rest"]
    assert len(found.entries(PlanReview)) == len(found.entries(InterruptAnswered)) == 2
