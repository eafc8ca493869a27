"""Conversations by a workflow whose process dies."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.acceptance.test_crash_children import MARGIN, new, some_of, urls, zygotes
from tests.crash import judge, talks
from tests.crash.process import Zygote
from tests.crash.stage import Plan
from tests.crash.sweep import FINISHED, moments, sweep

__all__ = ["urls", "zygotes"]


def crash_and_recover(zygote: Zygote, home: Path, crash: str, database: str) -> list[str]:
    """Crash a process, let another one finish; what is wrong then."""
    if zygote.play(Plan(str(home), "conversation", database, crash)) != FINISHED:
        status = zygote.play(Plan(str(home), "conversation", database))
        if status != FINISHED:
            return [f"{crash}: recovery ended with {status}: {(home / 'log').read_text()[-2000:]}"]
    return [f"{crash}: {fault}" for fault in talks.faults(home, database)]


@pytest.mark.timeout(240)
@pytest.mark.behaviour("durability:conversations:every-commit")
def test_a_kill_at_any_commit_of_a_conversation_loses_and_repeats_nothing(
    zygotes: list[Zygote], tmp_path: Path, urls: ExitStack
) -> None:
    whole, database = tmp_path / "whole", new(urls)
    assert zygotes[0].play(Plan(str(whole), "conversation", database)) == FINISHED, (whole / "log").read_text()
    assert talks.faults(whole, database) == []
    commits = judge.calls(whole)[-1].detail["commits"]
    crashes = moments(commits + MARGIN)
    assert len(crashes) > 30

    assert sweep(zygotes, tmp_path, some_of(crashes, urls), crash_and_recover, lambda: new(urls)) == []
