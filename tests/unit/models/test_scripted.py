"""Scripted models: what they remember."""

import msgspec
import pytest

from flux.messages import AssistantMessage, ReasoningDelta, TextPart, UserMessage, text_of
from flux.models.base import ModelRequest, OutputSchema
from flux.models.scripted import Reply, ScriptedModel, scripted


def saying(text: str) -> ModelRequest:
    return ModelRequest(system="", messages=(UserMessage((TextPart(text),)),))


async def ask(model: ScriptedModel, times: int) -> None:
    for number in range(times):
        async for _ in model.stream(saying(str(number))):
            pass


@pytest.mark.behaviour("models:scripted:bounded")
async def test_a_scripted_model_remembers_its_last_requests() -> None:
    model = ScriptedModel([Reply("x")])
    await ask(model, 1_200)
    assert model.requests == [saying(str(number)) for number in range(200, 1_200)]


@pytest.mark.behaviour("models:scripted:bounded")
async def test_bundled_models_remember_nothing() -> None:
    model = scripted("echo")
    assert isinstance(model, ScriptedModel)
    await ask(model, 3)
    assert model.requests == []


@pytest.mark.behaviour("models:output:native")
async def test_a_script_is_told_the_format_and_does_not_stream_its_object() -> None:
    model = ScriptedModel([Reply('{"n": 1}', reasoning="Hm.")])
    output = OutputSchema("Number", {"type": "object", "properties": {"n": {"type": "integer"}}})
    request = msgspec.structs.replace(saying("a number"), output=output)
    *deltas, answer = [event async for event in model.stream(request)]
    assert deltas == [ReasoningDelta("Hm.")]
    assert isinstance(answer, AssistantMessage)
    assert text_of(answer.parts) == '{"n": 1}'
    assert model.requests[0].output == output
