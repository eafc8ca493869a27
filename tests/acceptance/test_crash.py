"""Processes that die: after kill -9 at any commit, and at each named moment, nothing is lost or repeated."""

from __future__ import annotations

import itertools
import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from flux.events import (
    AssistantSaid,
    ChatResponse,
    Compacted,
    InterruptAnswered,
    RunFailed,
    ToolDone,
    ToolStarted,
    UserSaid,
)
from flux.testing import EffectCounter
from tests.crash import judge
from tests.crash.actors import MANY
from tests.crash.process import Zygote, set_fault, wait_for_line
from tests.crash.stage import Plan
from tests.crash.sweep import FINISHED, KILLED, NewDatabase, sweep

#: Commits beyond those of the first run, in case another run has more.
MARGIN = 3


@pytest.fixture
def zygote(zygotes: list[Zygote]) -> Zygote:
    return zygotes[0]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def moments(zygote: Zygote, home: Path, database: str = "") -> list[tuple[str, int]]:
    """Each commit of an undisturbed run, before and after."""
    assert zygote.play(Plan(str(home), database=database)) == FINISHED
    commits = judge.calls(home)[-1].detail["commits"]
    return list(itertools.product(("before", "after"), range(1, commits + MARGIN + 1)))


def crash_and_recover(zygote: Zygote, home: Path, crashes: tuple[str, ...], database: str) -> list[str]:
    """Crash one process after the other, then let one finish; what is wrong then."""
    first: judge.Found | None = None
    for crash in crashes:
        if zygote.play(Plan(str(home), database=database, crash=crash)) == FINISHED:
            break
        found = judge.sessions(home, database)
        first = found[0] if found else None
    status = zygote.play(Plan(str(home), database=database))
    if status != FINISHED:
        return [f"{crashes}: recovery ended with {status}: {(home / 'log').read_text()[-2000:]}"]
    last = judge.session(home, database)
    wrong = judge.faults(last) + judge.recovery_faults(home, first, last)
    wrong += [] if len(last.entries(ChatResponse)) == len(last.entries(UserSaid)) == 2 else ["not one answer a message"]
    return [f"{crashes}: {fault}" for fault in wrong]


@pytest.mark.timeout(120)
@pytest.mark.behaviour("durability:sweep:every-commit")
def test_a_kill_at_any_commit_loses_and_repeats_nothing(
    zygotes: list[Zygote], tmp_path: Path, new_database: NewDatabase
) -> None:
    commits = moments(zygotes[0], tmp_path / "whole", new_database())
    crashes: list[tuple[str, ...]] = [(f"{when}:{n}",) for when, n in commits]
    assert len(crashes) > 50
    assert sweep(zygotes, tmp_path, crashes, crash_and_recover, new_database) == []


@pytest.mark.timeout(120)
@pytest.mark.behaviour("durability:sweep:twice")
def test_a_second_kill_during_recovery_loses_and_repeats_nothing(zygotes: list[Zygote], tmp_path: Path) -> None:
    crashes: list[tuple[str, ...]] = [
        (f"{when}:{n}", f"before:{1 + n * 7 % 6}") for when, n in moments(zygotes[0], tmp_path / "whole") if n % 2
    ]
    assert sweep(zygotes, tmp_path, crashes, crash_and_recover) == []


@pytest.mark.timeout(120)
@pytest.mark.behaviour("durability:commit:unanswered")
def test_a_commit_whose_answer_is_lost_loses_and_repeats_nothing(
    zygotes: list[Zygote], tmp_path: Path, new_database: NewDatabase
) -> None:
    assert sweep(zygotes, tmp_path, [(f"lose:{n}",) for n in range(1, 13)], crash_and_recover, new_database) == []


@pytest.mark.behaviour("durability:admission:before-commit")
def test_a_kill_before_admission_commits_leaves_nothing(zygote: Zygote, home: Path) -> None:
    assert zygote.play(Plan(str(home), "admit", crash="before:2", worker=False)) == KILLED
    assert judge.sessions(home) == []
    assert zygote.play(Plan(str(home), "work")) == FINISHED
    found = judge.session(home)
    assert judge.faults(found) == []
    assert len(found.entries(UserSaid)) == len(found.entries(ChatResponse)) == 1


@pytest.mark.behaviour("durability:admission:after-commit", "sessions:idempotency:after-kill")
def test_an_admitted_message_is_worked_on_once(zygote: Zygote, home: Path) -> None:
    assert zygote.play(Plan(str(home), "admit", crash="after:2", worker=False)) == KILLED
    assert judge.session(home).row.state == "scheduled"
    assert zygote.play(Plan(str(home), "work")) == FINISHED
    found = judge.session(home)
    assert judge.faults(found) == []
    assert len(found.entries(UserSaid)) == len(found.entries(ChatResponse)) == 1


@pytest.mark.behaviour("durability:model:streaming")
def test_a_kill_while_the_model_streams_shows_a_new_attempt(zygote: Zygote, home: Path) -> None:
    set_fault(home, "streaming")
    assert zygote.play(Plan(str(home), "work")) == KILLED
    assert zygote.play(Plan(str(home), "work")) == FINISHED
    found = judge.session(home)
    assert judge.faults(found) == []
    answer = found.entries(AssistantSaid)[0].message_id
    seen = EffectCounter(home / "seen").read()
    tokens = [effect for effect in seen if effect.detail.get("message_id") == answer and effect.name == "token"]
    attempts = list(dict.fromkeys((token.process, token.detail["attempt"]) for token in tokens))
    (died, aborted), (lived, complete) = attempts
    assert died != lived
    assert aborted < complete
    shown = [token.detail["text"] for token in tokens if token.process == lived]
    assert "".join(shown) == "I look first."


@pytest.mark.behaviour("sessions:resume:after-kill")
def test_a_reader_goes_on_after_a_kill_where_it_stopped(zygote: Zygote, home: Path) -> None:
    set_fault(home, "after pay")
    assert zygote.play(Plan(str(home), "work")) == KILLED
    assert zygote.play(Plan(str(home), "work")) == FINISHED
    seqs = [effect.detail["seq"] for effect in EffectCounter(home / "seen").read() if "seq" in effect.detail]
    assert seqs == list(range(1, seqs[-1] + 1))


@pytest.mark.behaviour("durability:model:committed")
def test_a_committed_answer_is_not_asked_for_again(zygote: Zygote, home: Path) -> None:
    set_fault(home, "gate")
    assert zygote.play(Plan(str(home), "work")) == KILLED
    crashed = judge.session(home)
    assert len(crashed.entries(AssistantSaid)) == 1
    assert judge.effects(home) == []
    assert zygote.play(Plan(str(home), "work")) == FINISHED
    turns = [call.detail["turn"] for call in judge.calls(home) if call.name == "model"]
    assert turns == [0, 1, 2]
    assert judge.faults(judge.session(home)) == []


@pytest.mark.behaviour("durability:tools:read-in-flight", "durability:tools:idempotent-in-flight")
@pytest.mark.parametrize("tool", ["look", "note"])
def test_a_harmless_call_in_flight_runs_again(zygote: Zygote, home: Path, tool: str) -> None:
    set_fault(home, f"after {tool}")
    assert zygote.play(Plan(str(home), "work")) == KILLED
    assert zygote.play(Plan(str(home), "work")) == FINISHED
    found = judge.session(home)
    assert judge.faults(found) + judge.recovery_faults(home, None, found) == []
    first = next(effect for effect in judge.effects(home) if effect.name == tool).detail
    assert [effect.detail["call"] for effect in judge.effects(home) if effect.detail["n"] == first["n"]] == [
        first["call"],
        first["call"],
    ]
    assert found.done()[tool, first["n"]].outcome == "success"


@pytest.mark.behaviour("durability:tools:once-in-flight")
@pytest.mark.parametrize(("moment", "happened"), [("before", 0), ("after", 1)])
def test_a_once_call_in_flight_is_told_to_the_model_and_not_repeated(
    zygote: Zygote, home: Path, moment: str, happened: int
) -> None:
    set_fault(home, f"{moment} pay")
    assert zygote.play(Plan(str(home), "work")) == KILLED
    assert zygote.play(Plan(str(home), "work")) == FINISHED
    found = judge.session(home)
    assert judge.faults(found) + judge.recovery_faults(home, None, found) == []
    done = found.done()["pay", 4]
    assert (done.outcome, done.status) == ("interrupted", "error")
    assert "outcome is unknown" in done.content
    assert sum(effect.detail["n"] == 4 for effect in judge.effects(home)) == happened


@pytest.mark.behaviour("durability:tools:committed")
def test_a_committed_result_is_never_produced_again(zygote: Zygote, home: Path) -> None:
    set_fault(home, "model 1")
    assert zygote.play(Plan(str(home), "work")) == KILLED
    crashed = judge.session(home)
    assert zygote.play(Plan(str(home), "work")) == FINISHED
    found = judge.session(home)
    assert judge.faults(found) + judge.recovery_faults(home, crashed, found) == []
    assert [effect.detail["n"] for effect in judge.effects(home)].count(4) == 1
    assert len(judge.effects(home)) == 7


@pytest.mark.behaviour("durability:waiting:across-kill", "gate:approval:first-answer-wins")
def test_a_question_survives_a_kill_and_is_answered_once_through_another_process(zygote: Zygote, home: Path) -> None:
    set_fault(home, "waiting")
    assert zygote.play(Plan(str(home), "ask")) == KILLED
    assert judge.session(home).row.state == "waiting"
    assert zygote.play(Plan(str(home), "ask")) == FINISHED  # it finds the session waiting, and leaves
    assert [question.kind for question in judge.session(home).questions] == ["approval"]
    assert zygote.play(Plan(str(home), "answer", worker=False)) == FINISHED
    assert [call.detail for call in judge.calls(home) if call.name == "refused"] == [{"status": 409}]
    assert zygote.play(Plan(str(home), "work")) == FINISHED
    found = judge.session(home)
    assert judge.faults(found) + judge.recovery_faults(home, None, found) == []
    assert found.done()["wipe", 5].outcome == "success"


@pytest.mark.behaviour("durability:waiting:answered-not-run")
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_kill_around_the_commit_of_an_answer_runs_the_call_once(zygote: Zygote, home: Path, moment: str) -> None:
    assert zygote.play(Plan(str(home), "ask")) == FINISHED
    assert zygote.play(Plan(str(home), "answer", crash=f"{moment}:2", worker=False)) == KILLED
    answered = moment == "after"
    assert len(judge.session(home).entries(InterruptAnswered)) == answered
    assert judge.session(home).row.state == ("scheduled" if answered else "waiting")
    assert zygote.play(Plan(str(home), "work")) == FINISHED
    found = judge.session(home)
    assert judge.faults(found) + judge.recovery_faults(home, None, found) == []
    assert [effect.detail["n"] for effect in judge.effects(home)].count(5) == 1


@pytest.mark.behaviour("durability:compaction:in-flight")
def test_a_kill_while_the_history_is_summarised_summarises_it_again(zygote: Zygote, home: Path) -> None:
    set_fault(home, "summary")
    assert zygote.play(Plan(str(home), "long")) == KILLED
    assert judge.session(home).entries(Compacted) == []
    assert zygote.play(Plan(str(home), "long")) == FINISHED
    found = judge.session(home)
    assert judge.faults(found) == []
    assert [compacted.summary for compacted in found.entries(Compacted)] == ["They said much."]
    assert len(found.entries(ChatResponse)) == 2


@pytest.mark.behaviour("durability:worker:frozen")
def test_a_worker_that_wakes_after_its_death_is_refused(zygote: Zygote, home: Path) -> None:
    patient, strict = {"heartbeat": 0.1, "dead_after": 60}, {"heartbeat": 0.1, "dead_after": 0.5}
    set_fault(home, "after pay", "stop")
    frozen = zygote.start(Plan(str(home), "work", settings=patient))
    assert zygote.wait(frozen) == "stopped"
    set_fault(home, "model 1", "stop")
    heir = zygote.start(Plan(str(home), "work", settings=strict))
    assert zygote.wait(heir) == "stopped"  # in the middle of the run it took over
    before = judge.session(home)
    assert before.row.state == "running"
    assert before.done()["pay", 4].outcome == "interrupted"
    os.kill(frozen, signal.SIGCONT)
    wait_for_line(home / "log", "stops: This worker no longer owns the execution.")
    assert judge.session(home).log == before.log
    os.kill(heir, signal.SIGCONT)
    assert zygote.wait(heir) == FINISHED
    assert zygote.wait(frozen) == FINISHED
    after = judge.session(home)
    assert judge.faults(after) + judge.recovery_faults(home, None, after) == []


@pytest.mark.behaviour("durability:worker:poison")
def test_a_run_that_kills_its_process_each_time_fails_and_the_session_goes_on(zygote: Zygote, home: Path) -> None:
    set_fault(home, "before note", "kill always")
    twice = {"run_failures": 2}
    for _ in range(2):
        assert zygote.play(Plan(str(home), "work", settings=twice)) == KILLED
    assert zygote.play(Plan(str(home), "say_more", settings=twice)) == FINISHED
    found = judge.session(home)
    assert judge.faults(found) == []
    (failed,) = found.entries(RunFailed)
    assert "failed 2 times" in failed.message
    outcomes = [done.outcome for done in found.entries(ToolDone)]
    assert outcomes[:4] == ["success", "success", "cancelled", "cancelled"]
    assert len(found.entries(ChatResponse)) == 1


@pytest.mark.behaviour("durability:restart:long-after")
def test_a_run_goes_on_after_a_downtime_that_is_longer_than_a_run_may_take(zygote: Zygote, home: Path) -> None:
    set_fault(home, "model 1")
    assert zygote.play(Plan(str(home), "work")) == KILLED
    with closing(sqlite3.connect(home / "flux" / "flux.db")) as database, database:
        database.execute("update events set at = at - 36000")
        database.execute("update executions set created = created - 36000, updated = updated - 36000")
    crashed = judge.session(home)
    assert zygote.play(Plan(str(home), "work")) == FINISHED
    found = judge.session(home)
    assert judge.faults(found) + judge.recovery_faults(home, crashed, found) == []
    assert found.entries(RunFailed) == []
    assert len(found.entries(ChatResponse)) == 1


@pytest.mark.behaviour("durability:restart:crowd")
def test_two_thousand_interrupted_runs_are_all_running_again(zygote: Zygote, home: Path) -> None:
    all_at_once = {"concurrency": MANY, "synchronous": "normal"}
    set_fault(home, "all running")
    assert zygote.play(Plan(str(home), "crowd", settings=all_at_once)) == KILLED
    assert zygote.play(Plan(str(home), "recover", settings=all_at_once)) == FINISHED
    assert [call.name for call in judge.calls(home)] == ["all running", "all running", "finished"]
    found = judge.sessions(home)
    assert len(found) == MANY
    assert [fault for session in found for fault in judge.faults(session)] == []
    assert {len(session.entries(ChatResponse)) for session in found} == {1}


@pytest.mark.behaviour("durability:deploy:hand-over")
def test_sigterm_hands_over_and_marks_nothing_failed(zygote: Zygote, home: Path) -> None:
    set_fault(home, "model 1", "term")
    assert zygote.play(Plan(str(home), "work", settings={"grace": 0.0})) == FINISHED
    assert judge.calls(home)[-1].name == "terminated"
    handed = judge.session(home)
    assert (handed.row.state, handed.row.failures, handed.row.worker) == ("scheduled", 0, None)
    assert handed.entries(RunFailed) == []
    assert zygote.play(Plan(str(home), "work")) == FINISHED
    found = judge.session(home)
    assert judge.faults(found) + judge.recovery_faults(home, handed, found) == []
    assert len(found.entries(ChatResponse)) == 1


@pytest.mark.behaviour("durability:deploy:between-calls")
def test_sigterm_between_two_calls_begins_no_other_and_does_not_use_up_the_grace(zygote: Zygote, home: Path) -> None:
    set_fault(home, "after look", "term")
    assert zygote.play(Plan(str(home), "work", settings={"grace": 3600.0, "dead_after": 7200.0})) == FINISHED
    assert judge.calls(home)[-1].name == "terminated"
    handed = judge.session(home)
    assert (handed.row.state, handed.row.failures, handed.row.worker) == ("scheduled", 0, None)
    started = {entry.call for entry in handed.entries(ToolStarted)}
    assert started == {entry.call for entry in handed.entries(ToolDone)}
    assert len(handed.entries(AssistantSaid)) == 1
    assert zygote.play(Plan(str(home), "work")) == FINISHED
    found = judge.session(home)
    assert judge.faults(found) + judge.recovery_faults(home, handed, found) == []
    assert len(judge.effects(home)) == 7
    assert len(found.entries(ChatResponse)) == 1
