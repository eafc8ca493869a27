"""Following one run: does it work, wait for a person, or has it ended?"""

from typing import Any

import pytest

from flux.events import (
    ApprovalRequired,
    AssistantSaid,
    Cancelled,
    CancelRequested,
    ChatResponse,
    InputRequired,
    InterruptAnswered,
    Paused,
    RunFailed,
    RunStarted,
    SessionEndedEntry,
    Token,
    ToolDone,
    ToolStarted,
    ToolWaiting,
    UnknownEntry,
    UserSaid,
)
from flux.messages import CallPart, TextPart, ToolCall
from flux.watch import RunWatch


def said(id: str) -> UserSaid:
    return UserSaid(id=id, mode="queue", parts=(TextPart("hi"),))


def started(*inputs: str, run: str = "r") -> RunStarted:
    return RunStarted(run=run, inputs=inputs)


def answer(*calls: str, inputs: tuple[str, ...] = ()) -> AssistantSaid:
    return AssistantSaid(
        message_id="m",
        parts=tuple(CallPart(call) for call in calls),
        inputs=inputs,
        calls=tuple(ToolCall(call, "tool") for call in calls),
    )


def asked(call: str, id: str | None = None) -> InputRequired:
    return InputRequired(id=id or f"q-{call}", call=call, question="?")


def answered(call: str) -> InterruptAnswered:
    return InterruptAnswered(id=f"q-{call}", decision="answer", by="ann")


def done(call: str) -> ToolDone:
    return ToolDone(call=call, name="tool", status="success", outcome="success", content="")


def rests(call: str) -> ToolWaiting:
    return ToolWaiting(call=call)


def begins(call: str) -> ToolStarted:
    return ToolStarted(call=call, name="tool")


INSIDE = Paused(id="q-a", call="nested", name="sure", within="a")
END = ChatResponse(content="Hi.", turn=1)
FAILED = RunFailed(message="no")
STOPPED = SessionEndedEntry(reason="user_exit", turns=0)
APPROVE = ApprovalRequired(id="q-a", call="a", agent="x", tool="tool", args={}, digest="d")


def told(message: str | None, entries: list[Any]) -> list[str]:
    watch = RunWatch(message)
    return [watch.feed(entry) for entry in entries]


@pytest.mark.behaviour("events:watch:ends-with-its-run")
@pytest.mark.parametrize(
    ("message", "entries", "states"),
    [
        ("m1", [said("m1"), started("m1"), answer(), END], "working working working ended"),
        ("m1", [said("m1"), started("m1"), FAILED], "working working ended"),
        ("m1", [said("m1"), started("m1"), CancelRequested(run="r"), Cancelled()], "working working working ended"),
        ("m2", [started("m1"), END, started("m2"), END], "working working working ended"),
        ("m2", [started("m1"), answer(inputs=("m2",)), END], "working working ended"),
        ("m2", [started("m1"), Cancelled(inputs=("m2",))], "working ended"),
        ("m2", [started("m1"), Cancelled()], "working working"),
        ("m2", [said("m2"), STOPPED], "working ended"),
        (None, [answer("a"), INSIDE, rests("a"), answered("a"), done("a")], "working working waiting working working"),
        (None, [answer("a", "b"), INSIDE, rests("a"), done("b")], "working working working waiting"),
        (None, [answer("a"), rests("a"), begins("a"), INSIDE], "working working working working"),
        (None, [answer("a"), INSIDE, begins("a"), rests("a")], "working working working waiting"),
        (None, [started("m1"), END, started("m2"), END], "working ended working ended"),
        (None, [UnknownEntry("x", {}), Token("m", 1, "t")], "working working"),
    ],
)
def test_a_message_is_followed_to_the_end_of_the_run_that_took_it(
    message: str | None, entries: list[Any], states: str
) -> None:
    assert told(message, entries) == states.split()


@pytest.mark.behaviour("events:watch:waits-for-a-person")
@pytest.mark.parametrize(
    ("entries", "states"),
    [
        ([answer("a"), asked("a"), answered("a"), done("a"), END], "working waiting working working ended"),
        ([answer("a"), APPROVE, answered("a")], "working waiting working"),
        ([answer("a", "b"), asked("a"), done("b")], "working working waiting"),
        ([answer("a", "b"), asked("a"), asked("b"), answered("a")], "working working waiting working"),
        ([answer("a"), asked("a"), done("a")], "working waiting working"),
        ([Paused(id="p", name="n"), InterruptAnswered(id="p", decision="answer", by="x")], "waiting working"),
        ([answer("a"), asked("a"), FAILED], "working waiting ended"),
    ],
)
def test_a_run_waits_when_all_that_is_open_is_a_question(entries: list[Any], states: str) -> None:
    assert told("m1", [started("m1"), *entries])[1:] == states.split()


@pytest.mark.behaviour("events:watch:waits-for-a-person")
def test_a_question_of_another_run_is_not_waited_for() -> None:
    assert told("m2", [started("m1"), answer("a"), asked("a"), said("m2")]) == ["working"] * 4


@pytest.mark.behaviour("events:watch:waits-for-a-person")
def test_a_pause_before_any_run_is_waited_for() -> None:
    first = Paused(id="q-x", name="x")
    assert told("m1", [said("m1"), first, answered("x"), started("m1"), END]) == [
        "working", "waiting", "working", "working", "ended",
    ]  # fmt: skip


@pytest.mark.behaviour("events:watch:ends-with-its-run")
def test_the_end_is_kept() -> None:
    watch = RunWatch("m1")
    for entry in (started("m1"), END):
        watch.feed(entry)
    assert (watch.state, watch.end) == ("ended", END)
