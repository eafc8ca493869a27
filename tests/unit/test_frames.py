"""The events of a session in the documented words."""

from typing import Any

import pytest

from flux.deltas import SubagentDelta
from flux.events import (
    AssistantSaid,
    Cancelled,
    ChatResponse,
    Compacted,
    Elicited,
    Gated,
    InputRequired,
    InterruptAnswered,
    Paused,
    Planned,
    Progress,
    Reasoning,
    RunFailed,
    SessionEndedEntry,
    SubagentChanged,
    Token,
    ToolDone,
    ToolOutput,
    ToolStarted,
    UnknownEntry,
    UsageCounted,
    UserSaid,
)
from flux.messages import ReasoningPart, TextPart, ToolCall, Usage
from flux.surfaces.frames import Frames

CALL = ToolCall("c1", "shell", {"command": "ls"})


def said(text: str, *, reasoning: str = "", message: str = "m") -> AssistantSaid:
    parts = ((ReasoningPart(reasoning),) if reasoning else ()) + (TextPart(text),)
    return AssistantSaid(message_id=message, parts=parts, calls=(CALL,), usage=Usage(3, 2), cost=0.5)


def told(*events: Any) -> list[dict[str, Any]]:
    frames = Frames("helper")
    return [frame for event in events for frame in frames.feed(event)]


def pieces(frames: list[dict[str, Any]], kind: str = "token") -> list[tuple[int, str]]:
    return [(frame["attempt"], frame["text"]) for frame in frames if frame["type"] == kind]


@pytest.mark.behaviour("frames:text:complete")
@pytest.mark.parametrize("seen", [[], ["Hel"], ["Hel", "lo"], ["Hel", "lo", " there"]])
def test_whatever_was_seen_of_an_answer_the_pieces_together_are_the_answer(seen: list[str]) -> None:
    frames = told(*(Token("m", 1, piece) for piece in seen), said("Hello there", reasoning="Why"))
    assert "".join(text for _, text in pieces(frames)) == "Hello there"
    assert pieces(frames, "reasoning") == [(1, "Why")]


@pytest.mark.behaviour("frames:text:complete")
def test_a_later_attempt_is_completed_by_itself() -> None:
    frames = told(Token("m", 1, "Help"), Reasoning("m", 2, "W"), Token("m", 2, "Hel"), said("Hello", reasoning="Why"))
    assert pieces(frames) == [(1, "Help"), (2, "Hel"), (2, "lo")]
    assert pieces(frames, "reasoning") == [(2, "W"), (2, "hy")]


@pytest.mark.behaviour("frames:text:complete")
def test_an_answer_that_does_not_go_on_from_what_was_seen_is_left_to_the_response() -> None:
    assert pieces(told(Token("m", 1, "Help"), said("Hello"))) == [(1, "Help")]


@pytest.mark.behaviour("frames:words:documented")
def test_tools_are_told_with_the_arguments_in_force() -> None:
    edited = Gated(call="c1", verdict="allow", args_digest="d", rule="r", args={"command": "ls -l"})
    done = ToolDone(call="c1", name="shell", status="error", outcome="timeout", content="long")
    frames = told(said("x"), ToolStarted(call="c1", name="shell"), ToolOutput("c1", "a"), done)
    assert frames[-3:] == [
        {"type": "tool_start", "id": "c1", "name": "shell", "args": {"command": "ls"}},
        {"type": "tool_output", "id": "c1", "text": "a"},
        {"type": "tool_done", "id": "c1", "name": "shell", "status": "error", "outcome": "timeout"},
    ]
    assert told(said("x"), edited, ToolStarted(call="c1", name="shell"))[-1]["args"] == {"command": "ls -l"}
    assert told(ToolStarted(call="c9", name="shell"))[-1]["args"] == {}


@pytest.mark.behaviour("frames:words:documented")
@pytest.mark.parametrize(
    ("event", "frame"),
    [
        (ChatResponse(content="hi", turn=2), {"type": "response", "content": "hi", "turn": 2}),
        (RunFailed(message="m", retryable=True), {"type": "error", "message": "m", "retryable": True}),
        (SessionEndedEntry(reason="max_turns", turns=3), {"type": "session_end", "reason": "max_turns", "turns": 3}),
        (Planned(steps=({"name": "a"},), digest="d"), {"type": "plan", "steps": [{"name": "a"}], "digest": "d"}),
        (
            SubagentChanged(child="s", status="done", agent="a", call="c"),
            {"type": "subagent", "id": "c", "agent": "a", "status": "done", "session": "s"},
        ),
        (
            SubagentDelta("c", "s", ToolOutput("c2", "x")),
            {
                "type": "subagent_delta", "id": "c", "session": "s",
                "event": {"type": "tool_output", "call": "c2", "text": "x"},
            },
        ),
        (Progress("c", {"done": 1}, "n"), {"type": "progress", "id": "c", "name": "n", "value": {"done": 1}}),
        (
            UsageCounted(tokens=Usage(1, 2)),
            {
                "type": "usage", "cost": None,
                "tokens": {"input": 1, "output": 2, "cache_read": 0, "cache_write": 0, "total": 3},
            },
        ),
        (UnknownEntry("new", {"type": "new", "x": 1}), {"type": "new", "x": 1}),
        (
            Paused(id="i", name="wait", output={"a": 1}),
            {"type": "pause", "id": "i", "name": "wait", "output": {"a": 1}},
        ),
        (
            InputRequired(id="i", call="c", question="Which?", options=("a",)),
            {
                "type": "elicitation", "elicitation_id": "i", "id": "i", "url": None, "message": "Which?",
                "server_name": "helper", "mode": "input", "options": ["a"],
            },
        ),
    ],
)  # fmt: skip
def test_each_event_has_its_frame(event: Any, frame: dict[str, Any]) -> None:
    assert told(event) == [frame]


@pytest.mark.behaviour("frames:words:documented")
def test_a_cancelled_run_is_an_error_and_inner_entries_are_not_told() -> None:
    assert told(Cancelled())[0]["type"] == "error"
    assert (
        told(UserSaid(id="u", mode="queue", parts=(TextPart("x"),)), InterruptAnswered(id="i", decision="a", by="b"))
        == []
    )
    assert [frame["type"] for frame in told(Compacted(upto=3, summary="s"))] == ["compaction", "usage"]


@pytest.mark.behaviour("frames:questions:open")
def test_questions_are_open_until_they_are_answered_or_their_call_has_ended() -> None:
    frames = Frames("helper")
    form = Elicited(
        id="e", call="c3", mode="form", message="m", server_name="s", elicitation_id="el", schema={"type": "object"},
        session="child",
    )  # fmt: skip
    for event in (InputRequired(id="i", call="c1", question="?"), Paused(id="p", name="n", call="c2"), form):
        frames.feed(event)
    frames.feed(Paused(id="t", name="sleep", due=12.5))
    assert [frame["id"] for frame in frames.asked] == ["i", "p", "e"]
    assert (frames.asked[2]["schema"], frames.asked[2]["session"]) == ({"type": "object"}, "child")
    frames.feed(InterruptAnswered(id="i", decision="answer", by="me"))
    frames.feed(ToolDone(call="c2", name="x", status="error", outcome="expired", content=""))
    assert [frame["id"] for frame in frames.asked] == ["e"]
    frames.feed(Cancelled())
    assert frames.asked == []
