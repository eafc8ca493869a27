"""Requests and their outcomes, as the tests of this folder write them."""

from typing import Any

from flux.messages import AssistantMessage, Message, ModelFailure, TextPart, UserMessage
from flux.models.base import Model, ModelEvent, ModelRequest


def said(text: str) -> UserMessage:
    return UserMessage((TextPart(text),))


def asking(*messages: Message | str, **options: Any) -> ModelRequest:
    told = tuple(said(message) if isinstance(message, str) else message for message in messages)
    return ModelRequest(system="Be brief.", messages=told, **options)


async def events(model: Model, request: ModelRequest) -> list[ModelEvent]:
    return [event async for event in model.stream(request)]


async def answered(model: Model, request: ModelRequest) -> AssistantMessage:
    outcome = (await events(model, request))[-1]
    assert isinstance(outcome, AssistantMessage), outcome
    return outcome


async def failed(model: Model, request: ModelRequest) -> ModelFailure:
    found = await events(model, request)
    assert isinstance(found[-1], ModelFailure), found
    return found[-1]
