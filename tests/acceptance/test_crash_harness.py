"""Workflows that copy, summarise and delete sessions, whose process dies: none of it is done twice, or by half."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from flux.events import Compacted, Forked, Stored, UserSaid
from flux.messages import text_of
from tests.crash import flow_judge, judge
from tests.crash.process import Zygote
from tests.crash.stage import Plan
from tests.crash.sweep import FINISHED, sweep, unfinished

SCENARIO = "copy_script"
#: The commits before it are those of every script.
FORKS = 7


def told(home: Path) -> tuple[Any, Counter[str]]:
    """What the workflow came to, and how often its sessions hold what there must be once."""
    ends = [call.detail["output"] for call in judge.calls(home) if call.name == "came to"]
    (flow,) = flow_judge.flows(home).values()
    return ends[-1], Counter(filter(None, map(_known, flow.children)))


def _known(stored: Stored) -> str | None:
    match stored.entry:
        case UserSaid(parts=parts):
            return text_of(parts)
        case Forked() | Compacted():
            return type(stored.entry).__name__
    return None


@pytest.mark.timeout(300)
@pytest.mark.behaviour("durability:harness:every-commit")
def test_a_kill_at_any_commit_copies_summarises_and_deletes_once(zygotes: list[Zygote], tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    assert zygotes[0].play(Plan(str(whole), SCENARIO)) == FINISHED
    right = told(whole)
    assert right[0][0] is True
    assert [len(messages) for messages in right[0][1:]] == [2, 0, 4, 2]
    assert right[1] == {"two": 2, "three": 1, "four": 1, "one": 2, "Forked": 3, "Compacted": 2}
    commits = judge.calls(whole)[-1].detail["commits"]

    def recover(zygote: Zygote, home: Path, crash: str, database: str) -> list[str]:
        found = unfinished(zygote, home, SCENARIO, crash)
        return found if found or told(home) == right else [f"{crash}: {told(home)}, not {right}"]

    assert commits > 30
    assert sweep(zygotes, tmp_path, [f"after:{n}" for n in range(FORKS, commits + 1)], recover) == []
