"""What the loop does next, for each state a log can be in."""

from collections.abc import Sequence
from typing import Any

import pytest

from flux.agents.history.cuts import Compact
from flux.agents.turn.steps import (
    CallModel,
    Finish,
    Idle,
    Park,
    Policy,
    Settle,
    StartRun,
    Step,
    Tools,
    next_step,
)
from flux.events import (
    Cancelled,
    ChatResponse,
    CompactDone,
    Compacted,
    CompactRequested,
    Entry,
    RunEnd,
    RunFailed,
    Stored,
    UserSaid,
)
from flux.messages import TextPart
from tests.unit.agents.logs import (
    NOW,
    allowed,
    answer,
    answered,
    asked,
    definition,
    done,
    failed,
    needs_input,
    policy,
    run,
    session,
    started,
    stop,
    transcript,
    user,
)

BEGUN = (session(), user("u1"), run("u1"))
LIMITED = {"run": {"max_tokens": 10}}


def step(
    *entries: Entry, failures: int = 0, policy_: Policy | None = None, now: float = NOW + 1, begun: bool = True
) -> Step:
    log = transcript(*(BEGUN if begun else ()), *entries)
    return next_step(log, failures, policy_ or policy(), now)


def calls(found: Step) -> list[str]:
    assert isinstance(found, (Tools, Settle))
    return [state.call.id for state in found.calls]


def end(found: Step) -> RunEnd:
    assert isinstance(found, (Settle, Finish))
    return found.end


def message(found: Step) -> str:
    assert isinstance(found, StartRun)
    return found.message.id


@pytest.mark.behaviour("loop:runs:start")
@pytest.mark.parametrize(
    ("said", "first"),
    [
        ([("u1", "queue"), ("u2", "queue")], "u1"),
        ([("u1", "steer"), ("u2", "queue")], "u2"),
        ([("u1", "steer"), ("u2", "interrupt")], "u2"),
        ([("u1", "steer"), ("u2", "steer")], "u1"),
    ],
)
def test_a_run_starts_with_the_oldest_message_that_is_no_steer(said: Sequence[tuple[str, str]], first: str) -> None:
    entries = [user(id, mode) for id, mode in said]  # type: ignore[arg-type]
    assert message(step(session(), *entries, begun=False)) == first


@pytest.mark.behaviour("loop:runs:idle")
def test_without_a_message_there_is_nothing_to_do() -> None:
    assert step(session(), begun=False) == Idle()
    assert step(answer("done"), ChatResponse(content="done", turn=1)) == Idle()
    assert step(RunFailed(message="no")) == Idle()
    assert step(Cancelled()) == Idle()


@pytest.mark.behaviour("loop:inputs:consumed-by-lists")
def test_a_message_logged_before_an_answer_that_did_not_read_it_is_not_forgotten() -> None:
    found = step(user("u2"), answer("done", id="m1"), ChatResponse(content="done", turn=1))
    assert message(found) == "u2"


@pytest.mark.behaviour("loop:model:called")
def test_an_unanswered_message_calls_the_model_with_the_steers() -> None:
    assert step() == CallModel("test/one", (), False, 0.0)
    assert step(user("u2", "steer"), user("u3")) == CallModel("test/one", ("u2",), False, 0.0)


@pytest.mark.behaviour("loop:model:called")
def test_a_message_may_name_the_model_of_its_run() -> None:
    said = UserSaid(id="u1", mode="queue", parts=(TextPart("hi"),), options={"model": "test/other"})
    found = step(session(), said, run("u1"), begun=False)
    assert isinstance(found, CallModel)
    assert found.model == "test/other"


@pytest.mark.behaviour("loop:runs:finish")
def test_an_answer_without_calls_ends_the_run() -> None:
    found = step(answer("done"))
    assert end(found) == ChatResponse(content="done", turn=1)
    assert end(step(answer("done"), user("u2"))) == ChatResponse(content="done", turn=1)


@pytest.mark.behaviour("sessions:modes:steer")
def test_a_steer_that_came_before_the_end_extends_the_run() -> None:
    assert step(answer("done"), user("u2", "steer")) == CallModel("test/one", ("u2",), False, 0.0)


@pytest.mark.behaviour("loop:tools:resolved")
@pytest.mark.parametrize(
    ("entries", "ready"),
    [
        ([answer("", "c1", "c2")], ["c1", "c2"]),
        ([answer("", "c1", "c2"), allowed("c1"), allowed("c2"), started("c1")], ["c1", "c2"]),
        ([answer("", "c1", "c2"), started("c1"), done("c1")], ["c2"]),
        ([answer("", "c1", "c2"), *asked("c1"), allowed("c2")], ["c2"]),
        ([answer("", "c1", "c2"), *asked("c1"), *asked("c2", "q2"), answered("q2")], ["c2"]),
        ([answer("", "c1"), *asked("c1"), answered()], ["c1"]),
        ([answer("", "c1"), *asked("c1"), answered(decision="reject")], ["c1"]),
        ([answer("", "c1"), allowed("c1"), started("c1"), needs_input("c1"), answered(decision="answer")], ["c1"]),
        ([answer("", "c1"), answered(), *asked("c1")], ["c1"]),
        ([answer("", "c1"), *asked("c1"), answered(), started("c1")], ["c1"]),
    ],
)
def test_calls_without_a_result_are_resolved_unless_they_wait(entries: list[Entry], ready: list[str]) -> None:
    assert calls(step(*entries)) == ready


@pytest.mark.behaviour("loop:tools:resolved")
def test_when_every_call_has_its_result_the_model_is_called() -> None:
    assert step(answer("", "c1"), done("c1")) == CallModel("test/one", (), False, 0.0)


@pytest.mark.behaviour("loop:waiting:parks")
@pytest.mark.parametrize(
    ("question", "kind"),
    [(asked("c1"), "approval"), ([allowed("c1"), started("c1"), needs_input("c1")], "input")],
)
def test_a_run_whose_calls_all_wait_is_parked(question: Sequence[Entry], kind: str) -> None:
    assert step(answer("", "c1"), *question) == Park(kind)


@pytest.mark.behaviour("loop:waiting:parks")
def test_a_second_question_of_a_call_waits_for_its_own_answer() -> None:
    found = step(answer("", "c1"), *asked("c1"), answered(), started("c1"), needs_input("c1", "q2"))
    assert found == Park("input")


@pytest.mark.behaviour("loop:cancel:settles")
def test_a_cancelled_run_settles_its_open_calls_and_consumes_its_steers() -> None:
    found = step(answer("", "c1", "c2"), done("c1"), user("u2", "steer"), user("u3"), stop())
    assert calls(found) == ["c2"]
    assert end(found) == Cancelled(inputs=("u2",))


@pytest.mark.behaviour("loop:cancel:names-its-run")
def test_a_cancel_counts_for_the_run_it_names_wherever_it_stands() -> None:
    early = (session(), user("u1"), stop(), run("u1"))
    assert isinstance(end(step(*early, begun=False)), Cancelled)
    late = (answer("done"), ChatResponse(content="done", turn=1), stop(), user("u2"), run("u2", id="r2"))
    assert isinstance(step(*late), CallModel)


@pytest.mark.behaviour("loop:failures:run-fails")
@pytest.mark.parametrize(("failures", "settled"), [(2, False), (3, True), (4, True)])
def test_a_run_that_failed_too_often_ends(failures: int, settled: bool) -> None:
    found = step(answer("", "c1"), failures=failures)
    assert isinstance(found, Settle) is settled
    if settled:
        assert isinstance(end(found), RunFailed)
        assert calls(found) == ["c1"]


@pytest.mark.behaviour("loop:limits:time")
def test_a_run_ends_after_its_time_but_waiting_for_a_person_takes_none() -> None:
    late = NOW + 101
    assert isinstance(end(step(now=late)), RunFailed)
    assert step(answer("", "c1"), *asked("c1"), now=late) == Park("approval")


@pytest.mark.behaviour("loop:limits:time")
def test_after_days_of_waiting_an_answer_still_counts() -> None:
    log = transcript(*BEGUN, answer("", "c1"), *asked("c1"))
    days = NOW + 300_000
    at = log.head + 1
    log.extend([Stored(at, 1, days, answered())])
    assert isinstance(next_step(log, 0, policy(), days + 1), Tools)


@pytest.mark.behaviour("loop:limits:time")
def test_waiting_for_a_provider_to_recover_takes_none_of_the_run_s_time() -> None:
    found = step(failed(retry_at=NOW + 5000), now=NOW + 5001)
    assert isinstance(found, CallModel)


@pytest.mark.behaviour("loop:limits:budget")
@pytest.mark.parametrize(
    ("budget", "over"),
    [
        ({"run": {"max_tokens": 10}}, True),
        ({"run": {"max_tokens": 11}}, False),
        ({"run": {"max_cost_usd": 0.5}}, True),
        ({"session": {"max_tokens": 10}}, True),
        ({"session": {"max_cost_usd": 0.51}}, False),
    ],
)
def test_a_used_up_budget_ends_the_run_before_it_costs_more(budget: dict[str, object], over: bool) -> None:
    found = step(answer("", "c1"), done("c1"), policy_=policy(budget=budget))
    assert isinstance(found, Settle) is over
    if over:
        failure = end(found)
        assert isinstance(failure, RunFailed)
        assert "budget" in failure.message


@pytest.mark.behaviour("loop:limits:budget")
def test_an_answer_that_is_paid_for_is_given() -> None:
    assert isinstance(end(step(answer("done"), policy_=policy(budget=LIMITED))), ChatResponse)


@pytest.mark.behaviour("loop:limits:budget")
def test_what_the_session_spent_before_counts_for_its_budget() -> None:
    ended = (answer("done"), ChatResponse(content="done", turn=1), user("u2"), run("u2", id="r2"))
    assert isinstance(step(*ended, policy_=policy(budget=LIMITED)), CallModel)
    over = policy(budget={"session": {"max_tokens": 10}})
    assert isinstance(step(*ended, policy_=over), Settle)


def failing(times: int) -> list[Entry]:
    return [
        entry for n in range(times) for entry in (answer("", f"c{n}", id=f"m{n}", tokens=0), done(f"c{n}", "error"))
    ]


@pytest.mark.behaviour("loop:repeats:fails")
def test_the_fifth_failure_of_the_same_call_in_a_row_ends_the_run() -> None:
    assert isinstance(step(*failing(4)), CallModel)
    assert isinstance(end(step(*failing(5))), RunFailed)


@pytest.mark.behaviour("loop:repeats:fails")
def test_a_success_between_failures_starts_the_count_again() -> None:
    between = [answer("", "ok", id="ok"), done("ok")]
    assert isinstance(step(*failing(4), *between, *failing(4)), CallModel)


@pytest.mark.behaviour("loop:limits:final-answer")
@pytest.mark.parametrize(
    ("limits", "final"),
    [
        ({"max_tool_calls": 2}, True),
        ({"max_tool_calls": 3}, False),
        ({"max_turns": 2}, True),
        ({"max_turns": 3}, False),
    ],
)
def test_the_last_allowed_call_must_answer(limits: dict[str, Any], final: bool) -> None:
    rounds = [answer("", "c1", id="m1"), done("c1"), answer("", "c2", id="m2"), done("c2")]
    found = step(*rounds, policy_=policy(**limits))
    assert isinstance(found, CallModel)
    assert found.final is final
    said = end(step(*rounds, answer("I stop.", id="m3"), policy_=policy(**limits)))
    assert isinstance(said, ChatResponse)
    assert (said.content, said.limit) == ("I stop.", next(iter(limits)) if final else None)


@pytest.mark.behaviour("loop:model:retries")
def test_a_transient_failure_is_tried_again_at_its_time() -> None:
    assert step(failed(retry_at=NOW + 5)) == CallModel("test/one", (), False, NOW + 5)


@pytest.mark.behaviour("loop:model:long-retry-parks")
def test_a_retry_far_away_gives_up_the_worker() -> None:
    found = step(failed(retry_at=NOW + 60))
    assert found == Park("retry", NOW + 60)
    assert isinstance(step(failed(retry_at=NOW + 60), now=NOW + 61), CallModel)


@pytest.mark.behaviour("loop:model:fallback")
def test_each_model_that_is_given_up_is_followed_by_the_next() -> None:
    two = policy(fallback_models=["test/two"])
    assert step(failed(), policy_=two) == CallModel("test/two", (), False, 0.0)
    failure = end(step(failed(), failed("rejected", attempt=2), policy_=two))
    assert failure == RunFailed(message="no", retryable=False)
    assert end(step(failed())) == RunFailed(message="no", retryable=True)


HISTORY = (answer("done"), ChatResponse(content="done", turn=1), user("u2"), run("u2", id="r2"))


@pytest.mark.behaviour("loop:overflow:compacts")
def test_an_overflow_is_compacted_once_and_the_call_made_again() -> None:
    compact = step(*HISTORY, failed("overflow"))
    assert isinstance(compact, Compact)
    compacted = (*HISTORY, failed("overflow"), Compacted(upto=compact.upto, summary="They met."))
    assert step(*compacted) == CallModel("test/one", (), False, 0.0)
    assert isinstance(end(step(*compacted, failed("overflow", attempt=2))), RunFailed)


@pytest.mark.behaviour("loop:overflow:compacts")
def test_an_overflow_without_history_is_a_clear_failure() -> None:
    assert isinstance(end(step(failed("overflow"))), RunFailed)


@pytest.mark.behaviour("loop:overflow:compacts")
def test_a_summary_alone_is_not_summarised_again() -> None:
    compacted = (*HISTORY, Compacted(upto=5, summary="They met."), failed("overflow"))
    assert isinstance(end(step(*compacted)), RunFailed)


@pytest.mark.behaviour("loop:overflow:ahead")
def test_history_near_the_window_is_compacted_before_the_call() -> None:
    full = (answer("done", tokens=900), ChatResponse(content="done", turn=1), user("u2"), run("u2", id="r2"))
    assert isinstance(step(*full, policy_=policy(window=1000)), Compact)
    assert isinstance(step(*full, policy_=policy(window=2000)), CallModel)
    assert isinstance(step(*full, policy_=policy(window=1000, compaction=False)), CallModel)
    compacted = (*full, Compacted(upto=5, summary="They met."))
    assert isinstance(step(*compacted, policy_=policy(window=1000)), CallModel)


@pytest.mark.behaviour("compaction:reserve")
@pytest.mark.parametrize(
    ("window", "output", "reserve", "free"),
    [
        (200_000, None, None, 20_000),
        (200_000, 64_000, None, 20_000),
        (200_000, 8_000, None, 8_000),
        (3_000, 8_000, None, 1_000),
        (200_000, 8_000, 50_000, 50_000),
    ],
)
def test_the_reserve_is_what_the_model_may_answer_and_a_third_of_a_small_window_at_most(
    window: int, output: int | None, reserve: int | None, free: int
) -> None:
    def at(tokens: int) -> Step:
        full = (answer("done", tokens=tokens), ChatResponse(content="done", turn=1), user("u2"), run("u2", id="r2"))
        limits = Policy(definition(compaction={"reserve_tokens": reserve}), 3, 100.0, window, output)
        return step(*full, policy_=limits)

    assert isinstance(at(window - free - 20), CallModel)
    assert isinstance(at(window - free + 20), Compact)


ASKED = (*BEGUN, answer("done " * 99), ChatResponse(content="done", turn=1), CompactRequested(id="c", by="me"))


@pytest.mark.behaviour("compaction:asked")
@pytest.mark.parametrize("compaction", [False, {"keep_recent_tokens": 10}])
def test_a_request_is_a_run_that_compacts_once_and_calls_no_model(compaction: Any) -> None:
    keeps = policy(compaction=compaction)
    assert message(next_step(transcript(*ASKED, user("u2")), 0, keeps, NOW)) == "c"
    begun = (*ASKED, user("u2"), run("c", id="r2"))
    if compaction is False:
        assert end(next_step(transcript(*begun), 0, keeps, NOW)) == CompactDone(compacted=False)
        return
    found = next_step(transcript(*begun), 0, keeps, NOW)
    assert isinstance(found, Compact)
    made = (*begun, Compacted(upto=found.upto, summary="They met."))
    assert end(next_step(transcript(*made), 0, keeps, NOW)) == CompactDone()
    assert message(next_step(transcript(*made, CompactDone()), 0, keeps, NOW)) == "u2"
    assert end(next_step(transcript(*made, stop("r2")), 0, keeps, NOW)) == Cancelled()
