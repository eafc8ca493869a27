"""Plans that are executed while the process dies: no action twice, none lost, and the report tells the truth."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from tests.crash import judge, roles
from tests.crash.process import Zygote, set_fault
from tests.crash.stage import Plan
from tests.crash.sweep import FINISHED, KILLED, sweep, unfinished

#: Every so many commits one is a place to die: each death takes its time.
STRIDE = 3


def crash_and_recover(zygote: Zygote, home: Path, crash: str, database: str) -> list[str]:
    """Crash one process, then let another one finish; what is wrong then."""
    return unfinished(zygote, home, "books", crash, database) or [f"{crash}: {fault}" for fault in roles.faults(home)]


@pytest.mark.timeout(180)
@pytest.mark.behaviour("durability:roles:every-commit")
def test_a_kill_at_any_commit_of_a_plan_loses_and_repeats_no_action(zygotes: list[Zygote], tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    assert zygotes[0].play(Plan(str(whole), "books")) == FINISHED, (whole / "log").read_text()[-2000:]
    assert roles.faults(whole) == []
    commits = judge.calls(whole)[-1].detail["commits"]
    crashes = [f"{when}:{n}" for n, when in itertools.product(range(1, commits + 3), ("before", "after"))][::STRIDE]

    assert sweep(zygotes, tmp_path, crashes, crash_and_recover) == []


@pytest.mark.behaviour("durability:roles:inside-an-action")
@pytest.mark.parametrize(("point", "times"), [("paid-rent", 1), ("labelled", 2), ("paid-loan", 1), ("paid-ana", 1)])
def test_a_kill_inside_an_action_repeats_only_what_may_be_repeated(
    zygotes: list[Zygote], tmp_path: Path, point: str, times: int
) -> None:
    set_fault(tmp_path, point)
    assert zygotes[0].play(Plan(str(tmp_path), "books")) == KILLED
    assert zygotes[0].play(Plan(str(tmp_path), "books")) == FINISHED
    assert roles.faults(tmp_path) == []
    done = [effect for effect in judge.effects(tmp_path) if point.endswith(effect.detail.get("bill", "labelled"))]
    assert len(done) == times
