"""How the events of a session become what is shown."""

import io
import time
from typing import Any

import pytest

from flux.events import (
    AssistantSaid,
    Cancelled,
    ChatResponse,
    Gated,
    ModelFailed,
    RunFailed,
    RunStarted,
    SessionEndedEntry,
    Token,
    ToolDone,
    ToolStarted,
    UserSaid,
)
from flux.messages import TextPart, ToolCall
from flux.surfaces.terminal.chat import usage_line
from flux.surfaces.terminal.commands import parse
from flux.surfaces.terminal.plain import PlainView
from flux.surfaces.terminal.view import Projection, followed


def shown(*events: Any, typed: str = "") -> str:
    out = io.StringIO()
    projection = Projection(PlainView(out, out))
    if typed:
        projection.typed(typed)
    for event in events:
        projection.feed(event)
    return out.getvalue()


def said(text: str, *calls: ToolCall, message: str = "m", **more: Any) -> AssistantSaid:
    return AssistantSaid(message_id=message, parts=(TextPart(text),), calls=calls, **more)


def done(outcome: Any, content: str = "") -> ToolDone:
    return ToolDone(call="c", name="t", status="error", outcome=outcome, content=content)


CALL = said("", ToolCall("c", "shell", {"command": "x"}))


def test_tokens_and_the_answer_are_shown_once() -> None:
    assert shown(Token("m", 1, "Hel"), Token("m", 1, "lo"), said("Hello")) == "Hello\n"
    assert shown(said("Hello")) == "Hello\n"
    assert shown(Token("m", 1, "Hel"), said("Hello")) == "Hello\n"


@pytest.mark.behaviour("terminal:answer:attempts")
def test_a_new_attempt_begins_anew() -> None:
    events = (Token("m", 1, "Hel"), Token("m", 2, "Good"), said("Good day"))
    assert shown(*events) == "Hel\n… trying again (attempt 2)\n\nGood day\n"


@pytest.mark.behaviour("terminal:answer:attempts")
def test_a_failed_call_says_when_it_is_made_again() -> None:
    failed = ModelFailed(
        message_id="m", attempt=1, error="overloaded", kind="transient", transient=True, retry_at=time.time() + 20
    )
    text = shown(Token("m", 1, "Hel"), failed, Token("m", 2, "Hi"), said("Hi"))
    assert text == "Hel\n… overloaded; trying again in 20 s (attempt 2)\n\nHi\n"


@pytest.mark.behaviour("terminal:tools:outcome")
@pytest.mark.parametrize(
    ("end", "words"),
    [
        (done("success", "fine"), "Done."),
        (done("error", "\nno such file\nmore"), "Failed: no such file"),
        (done("denied"), "Denied."),
        (done("cancelled"), "Cancelled."),
        (done("interrupted"), "Interrupted."),
        (done("timeout"), "Timed out."),
        (done("expired"), "Expired."),
    ],
)
def test_every_outcome_has_its_word(end: ToolDone, words: str) -> None:
    assert shown(CALL, ToolStarted(call="c", name="shell"), end) == f'Calling shell(command="x")... {words}\n'


def test_arguments_that_a_hook_changed_are_shown() -> None:
    gated = Gated(call="c", verdict="allow", args_digest="", rule="", args={"command": "y"})
    assert shown(CALL, gated, done("success")) == 'Calling shell(command="y")... Done.\n'


def test_messages_from_elsewhere_are_shown_where_they_are_consumed() -> None:
    message = UserSaid(id="u", mode="queue", parts=(TextPart("hi"),))
    started = RunStarted(run="r", inputs=("u",))
    assert shown(message, said("first"), started, said("second", message="n")) == "first\n> hi\n\nsecond\n"
    assert shown(message, started, said("answer"), typed="hi") == "answer\n"


def test_ends() -> None:
    assert shown(Token("m", 1, "Hel"), Cancelled()) == "Hel\nCancelled.\n"
    assert shown(RunFailed(message="bad", retryable=True)) == "Error: bad. /retry sends the message again.\n"
    assert "has ended" in shown(SessionEndedEntry(reason="stopped", turns=1))
    assert "output limit" in shown(said("cut", stop="length"))


@pytest.mark.behaviour("terminal:errors:hints")
def test_hints_stand_apart_and_only_where_they_help() -> None:
    hint = "/retry sends the message again."
    assert followed("openai cannot be reached at https://a.example", hint) == (
        "openai cannot be reached at https://a.example . /retry sends the message again."
    )
    assert followed("It is full.", hint) == "It is full. /retry sends the message again."
    out = io.StringIO()
    Projection(PlainView(out, out), hints=False).feed(RunFailed(message="bad", retryable=True))
    assert out.getvalue() == "Error: bad\n"


@pytest.mark.behaviour("terminal:two-clients:queued")
def test_a_message_that_waits_is_repeated_when_its_run_begins() -> None:
    theirs = UserSaid(id="t", mode="queue", parts=(TextPart("their question"),))
    ours = UserSaid(id="o", mode="queue", parts=(TextPart("our question"),))
    text = shown(
        theirs,
        RunStarted(run="1", inputs=("t",)),
        ours,
        said("Their answer."),
        ChatResponse(content="", turn=1),
        RunStarted(run="2", inputs=("o",)),
        said("Our answer.", message="n"),
        typed="our question",
    )
    assert text == (
        "1 new message elsewhere\n> their question\n(queued)\nTheir answer.\n> our question\n\nOur answer.\n"
    )


@pytest.mark.behaviour("terminal:two-clients:elsewhere")
def test_messages_from_elsewhere_are_announced() -> None:
    out = io.StringIO()
    projection = Projection(PlainView(out, out))
    projection.typed("ours")
    for id in "ab":
        projection.feed(UserSaid(id=id, mode="queue", parts=(TextPart(id),)))
    projection.announce()
    projection.announce()
    assert out.getvalue() == "2 new messages elsewhere\n"


@pytest.mark.behaviour("terminal:commands:known")
def test_what_is_a_command() -> None:
    assert parse("/model openai/gpt") == ("/model", "openai/gpt")
    assert parse("/help ") == ("/help", "")
    assert parse("/etc/hosts is a file") is None
    assert parse("hello /help") is None
    assert parse("/help\nme") is None


def test_usage_on_one_line() -> None:
    usage = {"input": 1200, "output": 5, "cache_read": 7, "cost": 0.01234}
    assert usage_line(usage, 1) == "Tokens: 1,200 in (7 cached), 5 out · $0.0123 · 1 turn"
    assert usage_line({"input": 0, "output": 0, "cost": None}, 2) == "Tokens: 0 in, 0 out · 2 turns"
