"""Calls whose provider cannot even be set up, SDKs that have changed, and models that are not kept."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from flux.errors import MissingPackage
from flux.models import providers, registry, wire, wire_anthropic, wire_openai
from flux.models.base import ModelEvent, ModelLimits
from flux.models.endpoint import Endpoint
from flux.models.providers import ProviderModel
from tests.integration.models.calls import answered, asking, failed
from tests.integration.models.conftest import WEATHER, Connect
from tests.integration.models.server import Reply, Server
from tests.integration.models.wires import BY_NAME, Wire

KEY = "test-key-of-nobody"


@pytest.mark.behaviour("models:failures:set-up")
@pytest.mark.parametrize("format", ["openai-chat", "openai-responses", "anthropic", "google", "ollama", "openrouter"])
@pytest.mark.parametrize("url", ["http://[::1", "http://host:port", "http://xn--/v1", "no address", ""])
async def test_an_address_that_no_client_takes_is_a_failed_call(format: Any, url: str) -> None:
    model = ProviderModel(Endpoint("own", format, url, KEY), "gpt-4.1")
    failure = await failed(model, asking("hello"))
    assert "own" in failure.message
    assert KEY not in failure.message
    assert isinstance(await model.limits(), ModelLimits)
    await model.preload()
    await model.aclose()


@pytest.mark.behaviour("models:failures:set-up")
@pytest.mark.parametrize(
    ("error", "message"),
    [
        (AttributeError(f"no\nattribute, {KEY}"), "own cannot be called: no attribute, ***"),
        (RuntimeError(), "own cannot be called: RuntimeError"),
        (MissingPackage("models of openai need the package openai"), "models of openai need the package openai"),
    ],
)
async def test_an_sdk_that_cannot_be_loaded_is_a_failed_call(
    monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    def broken(*_: object) -> Any:
        raise error

    monkeypatch.setattr(providers, "_module", broken)
    model = ProviderModel(Endpoint("own", "openai-chat", "http://127.0.0.1:1", KEY), "m")
    failure = await failed(model, asking("hello"))
    assert (failure.message, failure.transient) == (message, False)
    assert await model.limits() == ModelLimits()
    await model.preload()


class Newer:
    """An SDK's client of a later version."""

    def _process_response_data(self, *, payload: object, cast_to: Any, response: Any, strict: bool) -> Any: ...


class Moved:
    """One that does it elsewhere."""


@pytest.mark.behaviour("models:sdk:changed")
def test_our_clients_are_used_only_where_their_hook_is() -> None:
    assert wire.has_hook(AsyncOpenAI)
    assert wire.has_hook(AsyncAnthropic)
    assert not wire.has_hook(Newer)
    assert not wire.has_hook(Moved)


@pytest.mark.behaviour("models:sdk:changed")
@pytest.mark.parametrize("name", ["openai", "openai-chat", "anthropic", "ollama", "openrouter", "own"])
async def test_the_plain_client_answers_as_well(
    monkeypatch: pytest.MonkeyPatch, server: Server, connect: Connect, name: str
) -> None:
    for module in (wire_openai, wire_anthropic):
        monkeypatch.setattr(module, "has_hook", lambda _: False)
        monkeypatch.setattr(module, "_Client", None)
    wire = BY_NAME[name]
    server.replies = [Reply(wire.answer(["fi", "ne"]))]
    answer = await answered(connect(server.url).get(wire.model), asking("hello", tools=(WEATHER,)))
    assert "".join(getattr(part, "text", "") for part in answer.parts) == "fine"


def connected(model: Any) -> bool:
    return model._wire is not None


@pytest.mark.behaviour("models:names:bounded")
async def test_a_model_that_is_dropped_ends_its_call_and_then_closes(
    wire: Wire, server: Server, connect: Connect
) -> None:
    server.replies = [Reply(wire.answer(["fi", "ne"])), Reply(wire.answer(["fine"]))]
    models = connect(server.url)
    busy, idle = models.get(wire.model), models.get(f"{wire.provider}/idle")
    await idle.preload()
    stream: AsyncGenerator[ModelEvent, None] = busy.stream(asking("hello"))
    events = [await anext(stream)]
    for number in range(registry.KEPT):
        models.get(f"{wire.provider}/{number}")
    await asyncio.gather(*models._closing)
    assert not connected(idle)
    assert connected(busy)
    events += [event async for event in stream]
    assert not connected(busy)
    await answered(busy, asking("hello"))
    assert not connected(busy)
