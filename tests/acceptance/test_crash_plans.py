"""Plans whose process dies: each change is in the log with its result or not at all, and a review stays open."""

from __future__ import annotations

from pathlib import Path

import pytest

from flux.events import InterruptAnswered, Planned, PlanReview
from tests.crash import judge, planning
from tests.crash.process import Zygote, set_fault
from tests.crash.stage import Plan
from tests.crash.sweep import FINISHED, KILLED, NewDatabase, moments, sweep, unfinished

#: Commits beyond those of the first run, in case another run has more.
MARGIN = 3


def crash_and_recover(zygote: Zygote, home: Path, crash: str, database: str) -> list[str]:
    """Crash one process, then let another one finish; what is wrong then."""
    return unfinished(zygote, home, "planning", crash, database) or [
        f"{crash}: {fault}" for fault in planning.faults(home, database)
    ]


@pytest.mark.timeout(180)
@pytest.mark.behaviour("durability:plans:every-commit")
def test_a_kill_at_any_commit_of_a_plan_loses_and_repeats_nothing(
    zygotes: list[Zygote], tmp_path: Path, new_database: NewDatabase
) -> None:
    whole, database = tmp_path / "whole", new_database()
    assert zygotes[0].play(Plan(str(whole), "planning", database)) == FINISHED
    assert planning.faults(whole, database) == []
    commits = judge.calls(whole)[-1].detail["commits"] + MARGIN
    crashes = moments(commits)
    assert len(crashes) > 50
    # What differs on Postgres is swept commit by commit in test_crash.py, and each death takes its time there.
    crashes = crashes[:: 4 if database else 1]

    assert sweep(zygotes, tmp_path, crashes, crash_and_recover, new_database) == []


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
