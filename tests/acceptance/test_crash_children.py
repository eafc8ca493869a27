"""Runs with driven children whose process dies: agents that delegate, and agents in workflows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from flux.events import ChatResponse, SubagentChanged, ToolDone
from tests.acceptance import test_crash_workflows as workflows
from tests.crash import judge
from tests.crash.databases import fresh_schema
from tests.crash.process import Zygote
from tests.crash.stage import Plan
from tests.crash.sweep import FINISHED, moments, sweep, zygotes_of

MARGIN = 3


@pytest.fixture(scope="module")
def zygotes() -> Iterator[list[Zygote]]:
    """Some more than there are cores: recovery waits for back-off."""
    with zygotes_of(4) as made:
        yield made


@pytest.fixture(params=["sqlite", "postgres"])
def urls(request: pytest.FixtureRequest) -> Iterator[ExitStack]:
    """Where fresh databases come from: `new(urls)`."""
    with ExitStack() as stack:
        stack.server = request.getfixturevalue("postgres") if request.param == "postgres" else ""  # type: ignore[attr-defined]
        yield stack


def new(urls: ExitStack) -> str:
    """The URL of a fresh database; empty for the default one in the home."""
    server: str = urls.server  # type: ignore[attr-defined]
    return urls.enter_context(fresh_schema(server)) if server else ""


def some_of(crashes: list[str], urls: ExitStack) -> list[str]:
    """All of them on SQLite, a third on Postgres, where each takes longer."""
    return crashes[::3] if urls.server else crashes  # type: ignore[attr-defined]


def family_faults(home: Path, database: str) -> list[str]:
    """What is wrong after a family came to rest."""
    found = judge.session(home, database)
    wrong = judge.faults(found)
    logs = judge.children(home, database)
    wrong += [] if len(logs) == 1 else [f"there are {len(logs)} children"]
    wrong += [f"child: {fault}" for log in logs for fault in judge.log_faults(log)]
    wrong += [] if len(found.entries(ChatResponse)) == 1 else ["not one answer"]
    wrong += [] if found.entries(SubagentChanged)[-1].status == "done" else ["the sub-agent is not done"]
    happened = Counter((effect.name, effect.detail["n"]) for effect in judge.effects(home))
    wrong += [f"{key} happened {n} times" for key, n in happened.items() if key[0] in judge.ONCE and n > 1]
    results = [entry for log in [found.entries(ToolDone), *logs] for entry in log if isinstance(entry, ToolDone)]
    wrong += [f"{done.name} ended as {done.outcome}" for done in results if not _may_be(done)]
    wrong += [f"a prompt was broken: {c.detail['problem']}" for c in judge.calls(home) if c.detail.get("problem")]
    return wrong


def _may_be(done: ToolDone) -> bool:
    return done.outcome == "success" or (done.outcome == "interrupted" and done.name in judge.ONCE)


def crash_and_recover(zygote: Zygote, home: Path, crash: str, database: str) -> list[str]:
    """Crash a process, let another one finish; what is wrong then."""
    if zygote.play(Plan(str(home), "family", database, crash)) != FINISHED:
        asked = len(judge.calls(home))
        status = zygote.play(Plan(str(home), "family", database))
        if status != FINISHED:
            return [f"{crash}: recovery ended with {status}: {(home / 'log').read_text()[-2000:]}"]
        turns = Counter(call.detail["turn"] for call in judge.calls(home)[asked:] if call.name == "model")
        again = [f"{crash}: the model was asked {n} times for {turn}" for turn, n in turns.items() if n > 1]
    else:
        again = []
    return again + [f"{crash}: {fault}" for fault in family_faults(home, database)]


@pytest.mark.timeout(240)
@pytest.mark.behaviour("durability:children:every-commit")
def test_a_kill_at_any_commit_of_a_run_that_delegates_loses_and_repeats_nothing(
    zygotes: list[Zygote], tmp_path: Path, urls: ExitStack
) -> None:
    whole = tmp_path / "whole"
    assert zygotes[0].play(Plan(str(whole), "family", new(urls))) == FINISHED
    commits = judge.calls(whole)[-1].detail["commits"]
    crashes = moments(commits + MARGIN)
    assert len(crashes) > 50

    assert sweep(zygotes, tmp_path, some_of(crashes, urls), crash_and_recover, lambda: new(urls)) == []


@pytest.mark.timeout(240)
@pytest.mark.behaviour("durability:inline:every-commit")
def test_a_kill_at_any_commit_of_a_workflow_with_an_agent_loses_and_repeats_nothing(
    zygotes: list[Zygote], tmp_path: Path, urls: ExitStack
) -> None:
    crashes = workflows.moments_of(zygotes[0], tmp_path / "whole", "agent_workflow", new(urls))
    assert len(crashes) > 40
    recover = partial(workflows.crash_and_recover, "agent_workflow")
    assert sweep(zygotes, tmp_path, some_of(crashes, urls), recover, lambda: new(urls)) == []
