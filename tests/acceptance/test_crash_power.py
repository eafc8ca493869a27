"""Power cuts: what was synced is all that is left, and no promise is broken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flux.events import ChatResponse, ToolStarted, UserSaid
from tests.crash import judge
from tests.crash.power import build_disk, cut_power
from tests.crash.process import Zygote, set_fault
from tests.crash.stage import Plan
from tests.crash.sweep import FINISHED, KILLED

#: Each commit is on disk.
FULL = {"synchronous": "full"}


@pytest.fixture(scope="module")
def zygote(require_tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    """Starts processes whose syncs are kept."""
    library = build_disk(require_tool("gcc"), tmp_path_factory.mktemp("disk"))
    made = Zygote(LD_PRELOAD=str(library))
    yield made
    made.close()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def faults_after(zygote: Zygote, home: Path, lost: judge.Found | None) -> list[str]:
    """Recover after a power cut; what is wrong then."""
    status = zygote.play(Plan(str(home), settings=FULL))
    if status != FINISHED:
        return [f"recovery ended with {status}: {(home / 'log').read_text()[-2000:]}"]
    found = judge.session(home)
    wrong = judge.faults(found) + judge.recovery_faults(home, lost, found)
    answers, messages = len(found.entries(ChatResponse)), len(found.entries(UserSaid))
    return wrong + ([] if answers == messages == 2 else [f"{answers} answers to {messages} messages"])


@pytest.mark.behaviour("durability:power:full")
def test_a_power_cut_after_any_commit_loses_nothing_that_was_committed(zygote: Zygote, tmp_path: Path) -> None:
    wrong: list[str] = []
    n, status = 0, KILLED
    while status == KILLED:
        n += 1
        home = tmp_path / str(n)
        status = zygote.play(Plan(str(home), crash=f"after:{n}", settings=FULL))
        committed = judge.sessions(home)
        cut_power(home)
        left = judge.sessions(home)
        faults = [] if left == committed else ["a commit is gone"]
        faults += faults_after(zygote, home, left[0] if left else None)
        wrong += [f"after commit {n}: {fault}" for fault in faults]
    assert wrong == []
    assert (status, n > 20) == (FINISHED, True)


@pytest.mark.behaviour("durability:power:full")
@pytest.mark.parametrize(("moment", "happened"), [("before", 0), ("after", 1)])
def test_a_once_call_in_flight_at_a_power_cut_has_its_intent_on_disk(
    zygote: Zygote, home: Path, moment: str, happened: int
) -> None:
    set_fault(home, f"{moment} pay")
    assert zygote.play(Plan(str(home), settings=FULL)) == KILLED
    cut_power(home)
    left = judge.session(home)
    assert [entry.name for entry in left.entries(ToolStarted)][-1] == "pay"
    assert faults_after(zygote, home, left) == []
    assert judge.session(home).done()["pay", 4].outcome == "interrupted"
    assert sum(effect.detail["n"] == 4 for effect in judge.effects(home)) == happened


@pytest.mark.behaviour("durability:power:normal")
def test_a_power_cut_under_normal_loses_the_last_commits_and_leaves_a_usable_home(zygote: Zygote, home: Path) -> None:
    set_fault(home, "after pay")
    assert zygote.play(Plan(str(home), settings={"synchronous": "normal"})) == KILLED
    committed = judge.session(home)
    cut_power(home)
    left = judge.sessions(home)
    assert left == [] or left[0].row.head < committed.row.head
    assert zygote.play(Plan(str(home), settings=FULL)) == FINISHED
    assert judge.faults(judge.session(home)) == []
