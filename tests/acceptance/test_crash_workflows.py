"""Workflows whose process dies: what is in the journal never runs again, and the rest goes on."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from flux.entries.workflows import TaskFailed, WorkflowFailed
from flux.events import InterruptAnswered
from tests.crash import flow_judge, judge
from tests.crash.process import Zygote, set_fault, wait_for_line
from tests.crash.stage import EXIT, Plan
from tests.crash.sweep import FINISHED, KILLED, NewDatabase, moments, sweep, zygotes_of
from tests.crash.workflows import UNKNOWN

#: Commits beyond those of the first run, in case another run has more.
MARGIN = 3


@pytest.fixture(scope="module")
def zygotes() -> Iterator[list[Zygote]]:
    """Some more than there are cores: a workflow spends most of its time asleep."""
    with zygotes_of(4) as made:
        yield made


@pytest.fixture
def zygote(zygotes: list[Zygote]) -> Zygote:
    return zygotes[0]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def moments_of(zygote: Zygote, home: Path, scenario: str, database: str = "") -> list[str]:
    """Each commit of an undisturbed run, before and after."""
    assert zygote.play(Plan(str(home), scenario, database)) == FINISHED
    assert flow_judge.faults(home, flow_judge.flows(home, database)) == []
    commits = judge.calls(home)[-1].detail["commits"]
    return moments(commits + MARGIN)


def crash_and_recover(scenario: str, zygote: Zygote, home: Path, crash: str, database: str) -> list[str]:
    """Crash one process, then let another one finish; what is wrong then."""
    if zygote.play(Plan(str(home), scenario, database, crash)) == FINISHED:
        return [f"{crash}: {fault}" for fault in flow_judge.faults(home, flow_judge.flows(home, database))]
    crashed, before = flow_judge.flows(home, database), len(judge.effects(home))
    if zygote.play(Plan(str(home), scenario, database)) != FINISHED:
        return [f"{crash}: the second process did not finish: {(home / 'log').read_text()[-2000:]}"]
    found = flow_judge.flows(home, database)
    wrong = flow_judge.faults(home, found)
    wrong += flow_judge.recovery_faults(crashed, found, judge.effects(home)[before:])
    return [f"{crash}: {fault}" for fault in wrong]


@pytest.mark.timeout(300)
@pytest.mark.behaviour("durability:workflows:every-commit")
def test_a_kill_at_any_commit_of_a_workflow_loses_and_repeats_nothing(
    zygotes: list[Zygote], tmp_path: Path, new_database: NewDatabase
) -> None:
    crashes = moments_of(zygotes[0], tmp_path / "whole", "whole_workflow", new_database())
    assert len(crashes) > 40
    assert sweep(zygotes, tmp_path, crashes, partial(crash_and_recover, "whole_workflow"), new_database) == []


@pytest.mark.timeout(300)
@pytest.mark.behaviour("durability:workflows:unanswered")
def test_a_commit_of_a_workflow_whose_answer_is_lost_loses_and_repeats_nothing(
    zygotes: list[Zygote], tmp_path: Path, new_database: NewDatabase
) -> None:
    crashes = [f"lose:{n}" for n in range(1, 36)]
    assert sweep(zygotes, tmp_path, crashes, partial(crash_and_recover, "whole_workflow"), new_database) == []


@pytest.mark.timeout(120)
@pytest.mark.behaviour("durability:scripts:every-commit")
def test_a_script_that_is_killed_at_any_commit_goes_on_by_its_id(
    zygotes: list[Zygote], tmp_path: Path, new_database: NewDatabase
) -> None:
    crashes = moments_of(zygotes[0], tmp_path / "whole", "run_script", new_database())
    assert len(crashes) > 20
    assert sweep(zygotes, tmp_path, crashes, partial(crash_and_recover, "run_script"), new_database) == []


@pytest.mark.behaviour("durability:scripts:unanswered")
def test_a_script_goes_on_when_the_answer_to_a_commit_is_lost(zygotes: list[Zygote], tmp_path: Path) -> None:
    assert sweep(zygotes, tmp_path, [f"lose:{n}" for n in range(1, 25)], partial(crash_and_recover, "run_script")) == []


@pytest.mark.behaviour("durability:scripts:server-keeps-off")
@pytest.mark.parametrize("point", ["after look", "after pay", "after double"])
def test_a_server_hands_back_what_a_killed_script_ran_and_does_not_run_it(
    zygote: Zygote, home: Path, point: str
) -> None:
    set_fault(home, point)
    assert zygote.play(Plan(str(home), "run_script")) == KILLED
    crashed, done = flow_judge.flows(home), len(judge.effects(home))
    assert zygote.play(Plan(str(home), "serve_workflows")) == FINISHED
    handed = flow_judge.flows(home)
    for name, flow in crashed.items():
        assert handed[name].row.state in ("scheduled", "waiting")
        assert (handed[name].row.worker, handed[name].log) == (None, flow.log)
    assert [effect.name for effect in judge.effects(home)[done:]] == ["greet"]
    assert zygote.play(Plan(str(home), "run_script")) == FINISHED
    found = flow_judge.flows(home)
    later = judge.effects(home)[done:]
    assert flow_judge.faults(home, found) + flow_judge.recovery_faults(crashed, found, later) == []


@pytest.mark.behaviour("durability:scripts:stopped")
@pytest.mark.parametrize("point", ["before look", "after double"])
def test_a_script_that_is_stopped_hands_back_and_goes_on_by_its_id(zygote: Zygote, home: Path, point: str) -> None:
    set_fault(home, point, "term")
    assert zygote.play(Plan(str(home), "run_script")) == FINISHED
    assert judge.calls(home)[-1].name == "terminated"
    handed, done = flow_judge.flows(home), len(judge.effects(home))
    row = handed["crash/unattended"].row
    assert (row.worker, row.failures) == (None, 0)
    assert {flow.row.state for flow in handed.values()} <= {"scheduled", "waiting"}
    assert zygote.play(Plan(str(home), "run_script")) == FINISHED
    found = flow_judge.flows(home)
    later = judge.effects(home)[done:]
    assert flow_judge.faults(home, found) + flow_judge.recovery_faults(handed, found, later) == []


@pytest.mark.behaviour("durability:scripts:answered-elsewhere")
def test_an_answer_through_a_server_is_kept_for_the_script(zygote: Zygote, home: Path) -> None:
    assert zygote.play(Plan(str(home), "pause_script")) == FINISHED
    assert zygote.play(Plan(str(home), "serve_workflows")) == FINISHED
    answered = flow_judge.flows(home)["crash/asks"]
    assert (answered.row.state, answered.row.failures) == ("scheduled", 0)
    assert zygote.play(Plan(str(home), "pause_script")) == FINISHED
    found = flow_judge.flows(home)
    assert flow_judge.faults(home, found) == []
    assert len(judge.effects(home)) == 3


@pytest.mark.behaviour("durability:workflows:result-committed")
def test_a_recorded_result_of_a_task_is_never_produced_again(zygote: Zygote, home: Path) -> None:
    set_fault(home, "before shaky")
    assert zygote.play(Plan(str(home), "work_workflow")) == KILLED
    crashed, done = flow_judge.flows(home), len(judge.effects(home))
    assert len(crashed["crash/unattended"].results()) == done == 12
    assert zygote.play(Plan(str(home), "work_workflow")) == FINISHED
    assert [effect.name for effect in judge.effects(home)[done:]] == ["shaky", "shaky", "pay", "double"]
    assert flow_judge.faults(home, flow_judge.flows(home)) == []


@pytest.mark.behaviour("durability:workflows:in-flight")
def test_a_task_in_flight_runs_again_as_the_same_call(zygote: Zygote, home: Path) -> None:
    set_fault(home, "after look")
    assert zygote.play(Plan(str(home), "work_workflow")) == KILLED
    assert zygote.play(Plan(str(home), "work_workflow")) == FINISHED
    calls = [effect.detail["call"] for effect in judge.effects(home) if effect.name == "look"]
    assert len(calls) == 3
    assert calls[0] == calls[1]
    assert flow_judge.faults(home, flow_judge.flows(home)) == []


@pytest.mark.behaviour("durability:workflows:once-in-flight")
@pytest.mark.parametrize(("moment", "happened"), [("before", 0), ("after", 1)])
def test_a_once_task_in_flight_is_told_to_the_workflow_and_not_repeated(
    zygote: Zygote, home: Path, moment: str, happened: int
) -> None:
    set_fault(home, f"{moment} pay")
    assert zygote.play(Plan(str(home), "work_workflow")) == KILLED
    assert zygote.play(Plan(str(home), "work_workflow")) == FINISHED
    found = flow_judge.flows(home)
    assert flow_judge.faults(home, found) == []
    assert found["crash/unattended"].output["paid"] == UNKNOWN
    (failed,) = found["crash/unattended"].entries(TaskFailed)
    assert (failed.name, failed.error) == ("pay", "execution_interrupted")
    assert sum(effect.name == "pay" for effect in judge.effects(home)) == happened


def days_pass(home: Path) -> None:
    """Let ten days have passed since everything."""
    with closing(sqlite3.connect(home / "flux" / "flux.db")) as database, database:
        database.execute("update events set at = at - 864000")
        database.execute("update executions set created = created - 864000, updated = updated - 864000")
        database.execute("update executions set due = due - 864000 where due is not null")


@pytest.mark.behaviour("durability:workflows:paused")
@pytest.mark.parametrize("crash", ["", "before:3", "after:3"])
def test_a_paused_workflow_takes_one_answer_days_later(zygote: Zygote, home: Path, crash: str) -> None:
    set_fault(home, "waiting")
    assert zygote.play(Plan(str(home), "ask_workflow")) == KILLED
    days_pass(home)
    paused = flow_judge.flows(home)["crash/asks"]
    assert (paused.row.state, paused.row.waiting_for) == ("waiting", "pause")
    if crash:
        assert zygote.play(Plan(str(home), "answer_workflow", crash=crash, worker=False)) == KILLED
        answered = flow_judge.flows(home)["crash/asks"]
        assert len(answered.entries(InterruptAnswered)) == crash.startswith("after")
    if not crash.startswith("after"):
        assert zygote.play(Plan(str(home), "answer_workflow", worker=False)) == FINISHED
        assert [call.name for call in judge.calls(home)][-2:] == ["refused", "finished"]
    assert zygote.play(Plan(str(home), "rest_workflows")) == FINISHED
    found = flow_judge.flows(home)
    assert flow_judge.faults(home, found) == []
    assert len(found["crash/asks"].entries(InterruptAnswered)) == 1
    assert len(judge.effects(home)) == 2


@pytest.mark.behaviour("durability:workflows:sleeping")
@pytest.mark.parametrize("late", [False, True])
def test_a_sleeping_workflow_wakes_on_time_or_as_soon_as_somebody_is_there(
    zygote: Zygote, home: Path, late: bool
) -> None:
    set_fault(home, "waiting")
    assert zygote.play(Plan(str(home), "nap_workflow")) == KILLED
    if late:
        days_pass(home)
    asleep = flow_judge.flows(home)["crash/naps"]
    assert (asleep.row.state, asleep.row.waiting_for) == ("waiting", "timer")
    assert zygote.play(Plan(str(home), "rest_workflows")) == FINISHED
    found = flow_judge.flows(home)
    assert flow_judge.faults(home, found) == []
    assert asleep.row.due is not None
    assert found["crash/naps"].row.updated >= asleep.row.due
    assert len(judge.effects(home)) == 2


@pytest.mark.behaviour("durability:workflows:calling")
def test_a_workflow_that_waits_for_another_one_hears_of_its_end(zygote: Zygote, home: Path) -> None:
    set_fault(home, "waiting")
    assert zygote.play(Plan(str(home), "call_workflow")) == KILLED
    waiting = flow_judge.flows(home)["crash/calls_naps"].row
    assert (waiting.state, waiting.waiting_for) == ("waiting", "child")
    assert zygote.play(Plan(str(home), "rest_workflows")) == FINISHED
    found = flow_judge.flows(home)
    assert sorted(found) == ["crash/calls_naps", "crash/naps"]
    assert flow_judge.faults(home, found) == []
    assert found["crash/naps"].row.parent == waiting.id


@pytest.mark.behaviour("durability:workflows:frozen")
def test_a_worker_that_wakes_after_its_death_writes_nothing_to_a_workflow(zygote: Zygote, home: Path) -> None:
    patient, strict = {"heartbeat": 0.1, "dead_after": 60}, {"heartbeat": 0.1, "dead_after": 0.5}
    set_fault(home, "after step", "stop")
    frozen = zygote.start(Plan(str(home), "work_workflow", settings=patient))
    assert zygote.wait(frozen) == "stopped"
    set_fault(home, "before shaky", "stop")
    heir = zygote.start(Plan(str(home), "work_workflow", settings=strict))
    assert zygote.wait(heir) == "stopped"  # in the middle of what it took over
    before = flow_judge.flows(home)["crash/unattended"]
    assert before.row.state == "running"
    os.kill(frozen, signal.SIGCONT)
    wait_for_line(home / "log", "stops: This worker no longer owns the execution.")
    assert flow_judge.flows(home)["crash/unattended"].log == before.log
    os.kill(heir, signal.SIGCONT)
    assert zygote.wait(heir) == FINISHED
    assert zygote.wait(frozen) == FINISHED
    assert flow_judge.faults(home, flow_judge.flows(home)) == []


@pytest.mark.behaviour("durability:workflows:poison")
def test_a_workflow_that_ends_its_process_each_time_fails_and_the_worker_lives_on(zygote: Zygote, home: Path) -> None:
    set_fault(home, "before shaky", "exit always")
    twice = {"run_failures": 2}
    for _ in range(2):
        assert zygote.play(Plan(str(home), "work_workflow", settings=twice)) == f"exit {EXIT}"
    assert zygote.play(Plan(str(home), "serve_workflows", settings=twice)) == FINISHED
    assert zygote.play(Plan(str(home), "rest_workflows", settings=twice)) == FINISHED
    found = flow_judge.flows(home)
    poison = found.pop("crash/unattended")
    (failed,) = poison.entries(WorkflowFailed)
    assert "given up after 2 failures in a row: its worker stopped" in failed.message
    assert poison.row.outcome == "failed"
    assert found["crash/greets"].output == "hello"
    assert not poison.entries(TaskFailed)
