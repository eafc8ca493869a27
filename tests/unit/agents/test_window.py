"""Working memory keeps what is newest, whole exchanges of calls and results, and the question."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux.agents.history import prompt
from flux.agents.history.window import WorkingMemory, tokens_of, windowed, working_memory
from flux.errors import InvalidInput
from flux.messages import AssistantMessage, CallPart, Message, TextPart, ToolCall, ToolResult, UserMessage, text_of

pytestmark = pytest.mark.behaviour("agents:working-memory:window")


def said(text: str) -> UserMessage:
    return UserMessage((TextPart(text),))


def answered(text: str) -> AssistantMessage:
    return AssistantMessage((TextPart(text),))


def called(*ids: str, result: str = "done") -> list[Message]:
    calls = tuple(ToolCall(id, "look", {"at": id}) for id in ids)
    return [AssistantMessage(tuple(CallPart(id) for id in ids), calls), *(ToolResult(call, result) for call in calls)]


@st.composite
def histories(draw: st.DrawFn) -> list[Message]:
    """A conversation as prompts hold it: any number of exchanges, the last one perhaps under way."""
    messages: list[Message] = []
    for turn in range(draw(st.integers(1, 8))):
        messages += [said(draw(st.text("ab", min_size=1, max_size=80))) for _ in range(draw(st.integers(1, 2)))]
        for step in range(draw(st.integers(0, 4))):
            ids = [f"{turn}.{step}.{n}" for n in range(draw(st.integers(1, 3)))]
            messages += called(*ids, result=draw(st.text("x", min_size=1, max_size=400)))
        if draw(st.booleans()):
            messages.append(answered("fine"))
    return messages


LIMITS = st.none() | st.integers(1, 60)


@given(histories(), LIMITS, LIMITS | st.integers(1, 2000))
def test_any_window_of_any_history_is_a_prompt_with_the_newest_question(
    history: list[Message], window: int | None, max_tokens: int | None
) -> None:
    kept = windowed(history, window, max_tokens)
    prompt.check(kept)
    assert isinstance(kept[0], UserMessage)
    assert [message for message in kept if isinstance(message, UserMessage)][-1] is [
        message for message in history if isinstance(message, UserMessage)
    ][-1]
    assert kept[-1] is history[-1]
    places = [next(at for at, other in enumerate(history) if other is message) for message in kept]
    assert places == sorted(set(places))


@given(histories(), st.integers(1, 60), st.integers(1, 2000))
def test_only_the_question_and_the_last_answer_go_beyond_the_limits(
    history: list[Message], window: int, max_tokens: int
) -> None:
    kept = windowed(history, window, max_tokens)
    least = windowed(history, 1, 1)
    assert len(kept) <= max(window, len(least))
    assert sum(map(tokens_of, kept)) <= max(max_tokens, sum(map(tokens_of, least)))


@given(histories(), LIMITS, LIMITS)
def test_a_window_of_a_window_is_the_same(history: list[Message], window: int | None, max_tokens: int | None) -> None:
    kept = windowed(history, window, max_tokens)
    assert windowed(kept, window, max_tokens) == kept


@given(histories())
def test_without_limits_everything_is_kept(history: list[Message]) -> None:
    assert windowed(history, None, None) == tuple(history)
    assert windowed(history, len(history), None) == tuple(history)


def test_old_exchanges_go_first_and_begin_with_a_question() -> None:
    history: list[Message] = [said("one"), answered("1"), said("two"), answered("2"), said("three")]
    assert [text_of(m.parts) for m in windowed(history, 4, None) if not isinstance(m, ToolResult)] == [
        "two",
        "2",
        "three",
    ]


def test_a_long_run_keeps_its_question_and_its_newest_results() -> None:
    history: list[Message] = [said("old"), answered("0"), said("go"), *called("a"), *called("b"), *called("c", "d")]
    assert windowed(history, 6, None) == (history[2], *history[5:])
    assert windowed(history, 2, None) == (history[2], *history[7:])


def test_a_history_without_a_question_stays_as_it_is() -> None:
    assert windowed([answered("hello")], 1, 1) == (answered("hello"),)
    assert windowed([], 1, 1) == ()


def test_each_working_memory_is_one_of_its_own() -> None:
    assert working_memory().key != working_memory().key
    made = working_memory(window=4, max_tokens=1000)
    assert made == WorkingMemory(4, 1000, made.key)


@pytest.mark.parametrize("limits", [{"window": 0}, {"max_tokens": -1}, {"window": True}, {"max_tokens": "many"}])
def test_a_limit_that_is_none_is_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=next(iter(limits))):
        working_memory(**limits)
