"""Each message is converted once, for as long as it lives."""

import gc
import weakref

import pytest
from pydantic_ai.messages import ModelRequest, ModelResponse, ToolCallPart, ToolReturnPart

from flux.messages import AssistantMessage, Message, TextPart, ToolCall, ToolResult, UserMessage
from flux.models.convert import Converter


def exchange(number: int) -> list[Message]:
    call = ToolCall(f"ours{number}", "tool", {"n": number}, f"wire{number}")
    return [
        UserMessage((TextPart(f"question {number}"),)),
        AssistantMessage((TextPart("let me see"),), (call,), model="openai/m"),
        ToolResult(call, "result"),
        AssistantMessage((TextPart("answer"),), model="openai/m"),
    ]


@pytest.mark.behaviour("models:convert:once")
def test_a_history_that_grew_converts_only_what_is_new() -> None:
    converter = Converter("openai", "openai")
    history = exchange(1)
    first = converter.history(history)
    again = converter.history([*history, *exchange(2)])
    answers = [message for message in first if isinstance(message, ModelResponse)]
    assert [message for message in again if isinstance(message, ModelResponse)][:2] == answers
    kept = [message for message in again if isinstance(message, ModelResponse)][:2]
    assert all(one is other for one, other in zip(kept, answers, strict=True))
    assert isinstance(first[0], ModelRequest)
    assert isinstance(again[0], ModelRequest)
    assert again[0].parts[0] is first[0].parts[0]


@pytest.mark.behaviour("models:convert:once")
def test_a_conversion_goes_with_its_message() -> None:
    converter = Converter("openai", "openai")
    history = exchange(1)
    answer = converter.history(history)[1]
    conversion = weakref.ref(answer)
    assert converter.history(history)[1] is answer
    del answer, history
    gc.collect()
    assert conversion() is None


def test_a_result_follows_its_call_when_the_history_before_it_changes() -> None:
    converter = Converter("openai", "openai")
    question, asked, result, _ = exchange(1)
    assert ids(converter, question, asked, result) == ["wire1", "wire1"]
    assert isinstance(asked, AssistantMessage)
    earlier = AssistantMessage((), asked.calls[:1], model="openai/m")
    assert ids(converter, earlier, result) == ["wire1", "wire1"]
    foreign = AssistantMessage((), asked.calls, model="anthropic/m")
    assert ids(converter, foreign, result) == ["ours1", "ours1"]


def ids(converter: Converter, *messages: Message) -> list[str]:
    parts = [part for message in converter.history(messages) for part in message.parts]
    return [part.tool_call_id for part in parts if isinstance(part, ToolCallPart | ToolReturnPart)]
