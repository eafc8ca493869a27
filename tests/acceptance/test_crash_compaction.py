"""Sessions whose history is compacted while their process dies."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash import compacting, judge
from tests.crash.process import Zygote
from tests.crash.stage import Plan
from tests.crash.sweep import FINISHED, NewDatabase, moments, sweep, unfinished

#: Commits beyond those of the first run, in case another run has more.
MARGIN = 2


def crash_and_recover(zygote: Zygote, home: Path, crash: str, database: str) -> list[str]:
    """Kill one process, then let another one finish; what is wrong then."""
    return unfinished(zygote, home, "compacting", crash, database) or [
        f"{crash}: {fault}" for fault in compacting.faults(home, database)
    ]


@pytest.mark.timeout(180)
@pytest.mark.behaviour("durability:compaction:every-commit")
def test_a_kill_at_any_commit_of_a_session_that_is_compacted_loses_and_repeats_nothing(
    zygotes: list[Zygote], tmp_path: Path, new_database: NewDatabase
) -> None:
    whole, database = tmp_path / "whole", new_database()
    assert zygotes[0].play(Plan(str(whole), "compacting", database)) == FINISHED
    assert compacting.faults(whole, database) == []
    commits = judge.calls(whole)[-1].detail["commits"] + MARGIN
    assert commits > 20  # a busy machine puts some into one
    crashes = moments(commits)
    crashes = crashes[:: 5 if database else 1]

    assert sweep(zygotes, tmp_path, crashes, crash_and_recover, new_database) == []
