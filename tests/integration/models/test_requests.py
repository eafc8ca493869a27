"""What goes over the wire: limits, tool choice, caching, and nothing that was not asked for."""

import json

import pytest

from flux.messages import AssistantMessage, TextPart, ToolCall, ToolResult, UserMessage
from tests.integration.models.calls import answered, asking, failed, said
from tests.integration.models.conftest import WEATHER, Connect
from tests.integration.models.server import Reply, Server, error
from tests.integration.models.wires import BY_NAME, Wire


@pytest.mark.behaviour("models:requests:max-tokens")
async def test_max_tokens_bounds_what_is_visible(wire: Wire, server: Server, connect: Connect) -> None:
    server.replies = [Reply(wire.answer(["fine"]))]
    await answered(connect(server.url).get(wire.model), asking("hello", max_tokens=321))
    assert wire.limit(server.requests[0].body) == 321


@pytest.mark.behaviour("models:requests:final")
async def test_the_final_answer_keeps_the_tools_and_forbids_calls(wire: Wire, server: Server, connect: Connect) -> None:
    server.replies = [Reply(wire.answer(["fine"]))]
    call = ToolCall("ours", "get_weather", {"city": "Rome"})
    history = (said("weather"), AssistantMessage((), (call,)), ToolResult(call, "rain"))
    await answered(connect(server.url).get(wire.model), asking(*history, tools=(WEATHER,), final=True))
    body = server.requests[0].body
    assert wire.choice(body) == "none"
    assert "The weather of a city." in json.dumps(body["tools"])


@pytest.mark.behaviour("models:requests:plain")
async def test_sampling_is_left_to_the_provider_and_empty_text_is_not_sent(
    wire: Wire, server: Server, connect: Connect
) -> None:
    server.replies = [Reply(wire.answer(["fine"]))]
    empty = (UserMessage((TextPart(""), TextPart("hello"))), AssistantMessage((TextPart(""),)))
    call = ToolCall("ours", "get_weather")
    history = (*empty, AssistantMessage((), (call,)), ToolResult(call, ""))
    await answered(connect(server.url).get(wire.model), asking(*history, tools=(WEATHER,)))
    sent = json.dumps(server.requests[0].body)
    for word in ("temperature", "top_p", "topP", '"text": ""', '"content": ""', '"content": []'):
        assert word not in sent
    assert "Be brief." in sent


async def test_the_key_goes_to_its_provider_in_the_header_only(wire: Wire, server: Server, connect: Connect) -> None:
    server.replies = [Reply(wire.answer(["fine"]))]
    await answered(connect(server.url).get(wire.model), asking("hello"))
    request = server.requests[0]
    carried = [name for name, value in request.headers.items() if "test-key-of-nobody" in value]
    assert len(carried) == 1
    assert "test-key" not in request.path


@pytest.mark.behaviour("models:requests:cached")
async def test_anthropic_caches_tools_system_and_the_last_message(server: Server, connect: Connect) -> None:
    wire = BY_NAME["anthropic"]
    server.replies = [Reply(wire.answer(["fine"]))]
    await answered(connect(server.url).get(wire.model), asking("hello", tools=(WEATHER,)))
    body = server.requests[0].body
    for place in (body["tools"][-1], body["system"][-1], body["messages"][-1]["content"][-1]):
        assert place["cache_control"]["type"] == "ephemeral"


@pytest.mark.behaviour("models:requests:cached")
async def test_a_history_that_grew_is_sent_with_the_same_beginning(
    wire: Wire, server: Server, connect: Connect
) -> None:
    server.replies = [Reply(wire.answer(calls=[("a", "get_weather", "{}")], finish="calls"))]
    model = connect(server.url).get(wire.model)
    first = said("weather")
    asked = await answered(model, asking(first, tools=(WEATHER,)))
    result = ToolResult(asked.calls[0], "rain")
    await answered(model, asking(first, asked, result, tools=(WEATHER,)))
    await answered(model, asking(first, asked, result, "and?", tools=(WEATHER,)))
    shorter, longer = (
        json.dumps(request.body).replace('"cache_control": {"type": "ephemeral", "ttl": "5m"}', "")
        for request in server.requests[1:]
    )
    until = shorter.index("rain")
    assert longer[:until] == shorter[:until]


async def test_nothing_is_stored_at_openai(server: Server, connect: Connect) -> None:
    wire = BY_NAME["openai"]
    server.replies = [Reply(wire.answer(["fine"]))]
    await answered(connect(server.url).get(wire.model), asking("hello"))
    assert server.requests[0].body["store"] is False


@pytest.mark.behaviour("models:requests:one-attempt")
async def test_a_failed_call_is_not_repeated_by_the_sdk(wire: Wire, server: Server, connect: Connect) -> None:
    server.replies = [error(500, {"error": {"message": "oops"}})]
    await failed(connect(server.url).get(wire.model), asking("hello"))
    assert len(server.requests) == 1


@pytest.mark.behaviour("roles:prompt:wire")
async def test_a_cache_key_goes_to_those_that_know_one(wire: Wire, server: Server, connect: Connect) -> None:
    server.replies = [Reply(wire.answer(["fine"]))]
    await answered(connect(server.url).get(wire.model), asking("hello", cache_key="flux-key", reasoning=None))
    body = server.requests[0].body
    knows = wire.provider in ("openai", "openai-chat")
    assert body.get("prompt_cache_key") == ("flux-key" if knows else None)
    assert ("flux-key" in json.dumps(body)) is knows
