"""Scripted models: what they remember."""

import pytest

from flux.messages import TextPart, UserMessage
from flux.models.base import ModelRequest
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
