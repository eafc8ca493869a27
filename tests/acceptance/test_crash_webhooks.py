"""Webhooks whose process dies: whatever became of a session is told, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash import hooks, judge
from tests.crash.process import Zygote
from tests.crash.stage import Plan
from tests.crash.sweep import FINISHED, NewDatabase, moments, sweep

#: Commits beyond those of the first run, in case another run has more.
MARGIN = 2


def crash_and_recover(zygote: Zygote, home: Path, crash: str | None, database: str) -> list[str]:
    """Crash one process, then let another one finish; what is wrong then."""
    home.mkdir()
    with hooks.receiving(home) as receiver:
        (home / "port").write_text(str(receiver.port))
        if crash is not None:
            zygote.play(Plan(str(home), "hooked", database, crash))
        status = zygote.play(Plan(str(home), "hooked", database))
        if status != FINISHED:
            return [f"{crash}: recovery ended with {status}: {(home / 'log').read_text()[-2000:]}"]
        return [f"{crash}: {fault}" for fault in hooks.faults(home, receiver, database)]


@pytest.mark.timeout(180)
@pytest.mark.behaviour("durability:webhooks:every-commit")
def test_a_kill_at_any_commit_loses_nothing_that_is_to_be_told(
    zygotes: list[Zygote], tmp_path: Path, new_database: NewDatabase
) -> None:
    whole, database = tmp_path / "whole", new_database()
    assert crash_and_recover(zygotes[0], whole, None, database) == []
    commits = judge.calls(whole)[-1].detail["commits"] + MARGIN
    crashes = moments(commits)
    assert len(crashes) > 20
    crashes = crashes[:: 9 if database else 3]

    assert sweep(zygotes, tmp_path, crashes, crash_and_recover, new_database) == []
