"""Answers in a format: what asks for them on each wire, and the JSON object that comes back as text."""

import asyncio
import json
from typing import Any

import pytest
from pydantic import BaseModel, Field, create_model

from flux.agents.define.output import output_schema, parse_output
from flux.messages import AssistantMessage, ReasoningDelta, TextDelta, ToolResult, text_of
from flux.models.base import ModelRequest, OutputSchema, ToolSchema
from tests.aimock import Aimock
from tests.integration.models.calls import answered, asking, events, failed
from tests.integration.models.conftest import WEATHER, Connect
from tests.integration.models.formats import BY_TOOL, NATIVE, NATIVE_ALONE, TOOL, Means
from tests.integration.models.server import Reply, Server
from tests.integration.models.wires import anthropic

JSON = '{"city": "Rome", "days": [{"sky": "rain"}]}'
CALL = ("call_a", "get_weather", '{"city": "Rome"}')
GIVEN = ("call_b", TOOL, JSON)


class Day(BaseModel):
    sky: str
    wind: float | None = None


class Forecast(BaseModel):
    """The weather to come."""

    city: str
    days: list[Day]


class Place(BaseModel):
    name: str
    inside: list["Place"] = []


class Free(BaseModel):
    counts: dict[str, int]


FORECAST = output_schema(Forecast)
native = pytest.mark.parametrize("means", NATIVE, ids=lambda means: means.model)
alone = pytest.mark.parametrize("means", NATIVE_ALONE, ids=lambda means: means.model)
by_tool = pytest.mark.parametrize("means", BY_TOOL, ids=lambda means: means.model)
every = pytest.mark.parametrize("means", list(dict.fromkeys([*NATIVE, *BY_TOOL])), ids=lambda means: means.model)


def forecast(output: OutputSchema = FORECAST, **options: Any) -> ModelRequest:
    return asking("weather", output=output, **options)


@pytest.mark.behaviour("models:output:native")
@alone
async def test_a_model_with_means_of_its_own_is_sent_the_schema(means: Means, server: Server, connect: Connect) -> None:
    server.replies = [Reply(means.wire.answer([JSON[:9], JSON[9:]]))]
    *deltas, answer = await events(connect(server.url).get(means.model), forecast())
    body = server.requests[0].body
    schema = means.native(body)
    assert schema is not None
    assert set(schema["properties"]) == {"city", "days"}
    assert "sky" in json.dumps(schema)
    assert "tools" not in body
    assert deltas == []
    assert isinstance(answer, AssistantMessage)
    assert (text_of(answer.parts), answer.calls, answer.stop) == (JSON, (), "stop")


@pytest.mark.behaviour("models:output:tool")
@by_tool
@pytest.mark.parametrize("words", [[], ["Here you are."]], ids=["silent", "with words"])
async def test_any_other_model_has_to_call_a_tool_whose_arguments_become_the_text(
    means: Means, words: list[str], server: Server, connect: Connect
) -> None:
    server.replies = [Reply(means.wire.answer(words, calls=[GIVEN], finish="calls"))]
    *deltas, answer = await events(connect(server.url).get(means.model), forecast(tools=(WEATHER,)))
    body = server.requests[0].body
    assert means.native(body) is None
    assert list(means.tools(body)) == ["get_weather", TOOL]
    assert set(means.tools(body)[TOOL]["properties"]) == {"city", "days"}
    assert means.forced(body) == "any"
    assert means.history(body).count('"role": "system"') <= 1
    assert deltas == []
    assert isinstance(answer, AssistantMessage)
    assert (json.loads(text_of(answer.parts)), answer.calls, answer.stop) == (json.loads(JSON), (), "stop")


@pytest.mark.behaviour("models:output:tools-first")
@native
async def test_tools_may_be_called_before_a_native_answer(means: Means, server: Server, connect: Connect) -> None:
    server.replies = [
        Reply(means.wire.answer(["Let me see."], calls=[CALL], finish="calls")),
        Reply(means.wire.answer([JSON])),
    ]
    model = connect(server.url).get(means.model)
    asked = await answered(model, forecast(tools=(WEATHER,)))
    assert means.forced(server.requests[0].body) == "auto"
    assert ([call.name for call in asked.calls], asked.stop) == (["get_weather"], "calls")
    result = ToolResult(asked.calls[0], "rain")
    answer = await answered(model, asking("weather", asked, result, tools=(WEATHER,), output=FORECAST))
    assert text_of(answer.parts) == JSON
    assert means.native(server.requests[1].body) is not None


@pytest.mark.behaviour("models:output:tools-first")
@by_tool
@pytest.mark.parametrize("calls", [[CALL], [GIVEN, CALL]], ids=["alone", "beside an answer made too early"])
async def test_tools_are_called_before_the_output_tool(
    means: Means, calls: list[Any], server: Server, connect: Connect
) -> None:
    server.replies = [
        Reply(means.wire.answer(calls=calls, finish="calls")),
        Reply(means.wire.answer(calls=[GIVEN], finish="calls")),
    ]
    model = connect(server.url).get(means.model)
    asked = await answered(model, forecast(tools=(WEATHER,)))
    assert ([call.name for call in asked.calls], asked.stop) == (["get_weather"], "calls")
    result = ToolResult(asked.calls[0], "rain")
    answer = await answered(model, asking("weather", asked, result, tools=(WEATHER,), output=FORECAST))
    assert parse_output(Forecast, text_of(answer.parts)).days == [Day(sky="rain")]
    assert f'"{TOOL}"' not in means.history(server.requests[1].body)


@pytest.mark.behaviour("models:output:final")
@every
async def test_the_forced_final_answer_is_the_object_too(means: Means, server: Server, connect: Connect) -> None:
    reply = {"texts": [JSON]} if means in NATIVE_ALONE else {"calls": [GIVEN], "finish": "calls"}
    server.replies = [Reply(means.wire.answer(**reply))]
    answer = await answered(connect(server.url).get(means.model), forecast(tools=(WEATHER,), final=True))
    body = server.requests[0].body
    if means.native(body) is not None:
        assert means.forced(body) == "none"
    else:
        assert means.forced(body) == TOOL
    assert "get_weather" in means.tools(body)
    assert (json.loads(text_of(answer.parts)), answer.calls) == (json.loads(JSON), ())


@pytest.mark.behaviour("models:output:tool")
@by_tool
async def test_the_output_tool_gives_way_to_a_tool_of_its_name(means: Means, server: Server, connect: Connect) -> None:
    own = ToolSchema(TOOL, "A tool of somebody.", {"type": "object", "properties": {}})
    server.replies = [
        Reply(means.wire.answer(calls=[("call_a", TOOL, "{}")], finish="calls")),
        Reply(means.wire.answer(calls=[("call_b", f"{TOOL}_", JSON)], finish="calls")),
    ]
    model = connect(server.url).get(means.model)
    first = await answered(model, forecast(tools=(own,)))
    assert list(means.tools(server.requests[0].body)) == [TOOL, f"{TOOL}_"]
    assert [call.name for call in first.calls] == [TOOL]
    assert json.loads(text_of((await answered(model, forecast(tools=(own,)))).parts)) == json.loads(JSON)


@pytest.mark.behaviour("models:output:history")
@every
async def test_an_answer_goes_back_as_text_to_every_provider(means: Means, server: Server, connect: Connect) -> None:
    given = means in BY_TOOL
    reply = {"calls": [GIVEN], "finish": "calls"} if given else {"texts": [JSON]}
    server.replies = [Reply(means.wire.answer(**reply))]
    models = connect(server.url)
    answer = await answered(models.get(means.model), forecast(tools=(WEATHER,)))
    for other in (means, *NATIVE[:4]):
        server.replies = [Reply(other.wire.answer([JSON]))]
        await answered(models.get(other.model), asking("weather", answer, "and then?", output=FORECAST))
        history = other.history(server.requests[-1].body)
        assert "Rome" in history
        assert f'"{TOOL}"' not in history


@pytest.mark.behaviour("models:output:history")
async def test_reasoning_before_the_output_tool_is_shown_and_not_sent_back(server: Server, connect: Connect) -> None:
    deltas = [
        {"type": "thinking_delta", "thinking": "Rome, then."},
        {"type": "signature_delta", "signature": "c2lnbmVk"},
    ]
    thinking = {"type": "thinking", "thinking": "", "signature": "", "_deltas": deltas}
    server.replies = [Reply(anthropic(calls=[GIVEN], finish="calls", before=[thinking])), Reply(anthropic(["ok"]))]
    model = connect(server.url).get("anthropic/claude-haiku-4-5")
    output = output_schema(Free)
    *shown, answer = await events(model, forecast(output, reasoning="low"))
    assert shown == [ReasoningDelta("Rome, then.")]
    assert isinstance(answer, AssistantMessage)
    assert [getattr(part, "text", "") for part in answer.parts] == ["Rome, then.", JSON]
    await answered(model, asking("weather", answer, "and then?"))
    assert server.requests[1].body["messages"][1]["content"] == [{"type": "text", "text": JSON}]


@pytest.mark.behaviour("models:output:thinking")
@pytest.mark.parametrize("final", [False, True], ids=["any", "final"])
@pytest.mark.parametrize(
    ("model", "output"),
    [
        ("claude-haiku-4-5", FORECAST),
        ("claude-haiku-4-5", output_schema(Free)),
        ("claude-sonnet-5-5", output_schema(Free)),
        ("kimi-k2", FORECAST),
    ],
)
async def test_anthropic_is_not_forced_to_call_while_it_thinks(
    model: str, output: OutputSchema, final: bool, server: Server, connect: Connect
) -> None:
    server.replies = [Reply(anthropic([JSON]))]
    request = forecast(output, tools=(WEATHER,), final=final, reasoning="low")
    answer = await answered(connect(server.url).get(f"anthropic/{model}"), request)
    body = server.requests[0].body
    assert body["thinking"]["type"] in ("enabled", "adaptive")
    assert body["tool_choice"]["type"] in ("auto", "none")
    if final:
        assert body["tool_choice"]["type"] == "none" or [tool["name"] for tool in body["tools"]] == [TOOL]
    assert text_of(answer.parts) == JSON


@pytest.mark.behaviour("models:output:broken")
@pytest.mark.parametrize("means", [means for means in BY_TOOL if means.wire.args_are_json], ids=lambda m: m.model)
@pytest.mark.parametrize(
    ("written", "finish", "text"),
    [
        ('{"city": "Ro', "calls", '{"city": "Ro'),
        ("{'city': 'Rome',}", "calls", '{"city": "Rome"}'),
        ("[1]", "calls", "[1]"),
        ('{"city": "Ro', "length", '{"city": "Ro'),
        ("", "length", ""),
    ],
    ids=["broken", "repaired", "a list", "cut off", "cut off at once"],
)
async def test_arguments_that_are_no_object_are_the_text_as_it_is(
    means: Means, written: str, finish: str, text: str, server: Server, connect: Connect
) -> None:
    server.replies = [Reply(means.wire.answer(calls=[("call_b", TOOL, written)], finish=finish))]
    answer = await answered(connect(server.url).get(means.model), forecast(tools=(WEATHER,)))
    assert (text_of(answer.parts), answer.calls) == (text, ())
    assert answer.stop == ("length" if finish == "length" else "stop")


@pytest.mark.behaviour("models:output:schemas")
@every
@pytest.mark.parametrize("tools", [(), (WEATHER,)], ids=["alone", "with tools"])
async def test_nested_long_and_recursive_schemas_reach_every_model(
    means: Means, tools: tuple[ToolSchema, ...], server: Server, connect: Connect
) -> None:
    fields: dict[str, Any] = {f"field_{n}": (list[Day], Field(description="x" * 200)) for n in range(150)}
    long = create_model("Long", place=(Place, ...), **fields)
    server.replies = [Reply(means.wire.answer([JSON]))]
    for type_, names in ((long, ["field_0", "field_149", "sky", "inside"]), (Place, ["name", "inside"])):
        await answered(connect(server.url).get(means.model), forecast(output_schema(type_), tools=tools))
        body = server.requests[-1].body
        sent = means.native(body) or means.tools(body)[TOOL]
        assert sent["type"] == "object"
        assert all(f'"{name}"' in json.dumps(sent) for name in names)
        assert _loose(sent) == []


def _loose(schema: dict[str, Any]) -> list[str]:
    """References that lead nowhere."""
    found = json.dumps(schema).split('"$ref": "')[1:]
    names = {part.split('"')[0] for part in found}
    return [name for name in names if name != "#" and name.rsplit("/", 1)[-1] not in schema.get("$defs", {})]


@pytest.mark.behaviour("models:output:schemas")
@pytest.mark.parametrize("provider", ["openai", "openai-chat"])
async def test_openai_is_strict_where_the_schema_lets_it_be(provider: str, server: Server, connect: Connect) -> None:
    means = Means(f"{provider}/gpt-4.1")
    server.replies = [Reply(means.wire.answer([JSON]))]
    model = connect(server.url).get(means.model)
    for type_ in (Forecast, Free):
        await answered(model, forecast(output_schema(type_)))
    strict, free = (request.body for request in server.requests)
    assert _strict(strict) is True
    assert means.native(strict)["$defs"]["Day"]["required"] == ["sky", "wind"]
    assert _strict(free) is False
    assert means.native(free)["properties"]["counts"]["additionalProperties"] == {"type": "integer"}


def _strict(body: dict[str, Any]) -> Any:
    found = body["response_format"]["json_schema"] if "response_format" in body else body["text"]["format"]
    return found["strict"]


@pytest.mark.behaviour("models:output:schemas")
@pytest.mark.parametrize(
    "output",
    [
        output_schema(Free),
        output_schema(Place),
        output_schema(create_model("Optional", **{f"field_{n}": (int, n) for n in range(30)})),  # type: ignore[call-overload]
    ],
    ids=["free keys", "recursive", "many optional fields"],
)
async def test_what_anthropic_does_not_take_as_a_schema_becomes_a_tool(
    output: OutputSchema, server: Server, connect: Connect
) -> None:
    server.replies = [Reply(anthropic(calls=[GIVEN], finish="calls"))]
    answer = await answered(connect(server.url).get("anthropic/claude-haiku-4-5"), forecast(output))
    body = server.requests[0].body
    assert "output_config" not in body
    assert body["tool_choice"]["type"] == "any"
    assert json.loads(text_of(answer.parts)) == json.loads(JSON)


OLD = ["gpt-4", "gpt-4-turbo", "gpt-4o-2024-05-13", "gpt-3.5-turbo-0125", "ft:gpt-3.5-turbo:me", "chatgpt-4o-latest"]
NEW = ["gpt-4o", "gpt-4o-mini-2024-07-18", "ft:gpt-4o-mini:me", "gpt-4.1", "gpt-4.5-preview", "gpt-5.6-sol", "o3", "o1"]


@pytest.mark.behaviour("models:output:native")
@pytest.mark.parametrize("prefix", ["openai-chat", "openrouter/openai"])
@pytest.mark.parametrize("name", [*OLD, *NEW])
async def test_models_of_openai_are_told_apart(prefix: str, name: str, server: Server, connect: Connect) -> None:
    means = Means(f"{prefix}/{name}")
    server.replies = [Reply(means.wire.answer([JSON]))]
    await answered(connect(server.url).get(means.model), forecast())
    assert (means.native(server.requests[0].body) is None) == (name in OLD)


@pytest.mark.behaviour("models:output:tool")
@pytest.mark.parametrize("name", ["gpt-oss:120b-cloud", "glm-4.6:cloud"])
async def test_the_cloud_of_ollama_has_to_call_a_tool(name: str, server: Server, connect: Connect) -> None:
    means = Means(f"ollama/{name}")
    server.replies = [Reply(means.wire.answer(calls=[GIVEN], finish="calls"))]
    await answered(connect(server.url).get(means.model), forecast())
    assert list(means.tools(server.requests[0].body)) == [TOOL]


@pytest.mark.behaviour("models:output:native")
async def test_the_name_of_a_format_is_one_providers_take(server: Server, connect: Connect) -> None:
    means = Means("openai-chat/gpt-4.1")
    server.replies = [Reply(means.wire.answer([JSON]))]
    named = OutputSchema(f"Box[{'x' * 80}]", FORECAST.schema)
    await answered(connect(server.url).get(means.model), forecast(named))
    assert server.requests[0].body["response_format"]["json_schema"]["name"] == f"Box_{'x' * 60}"


@pytest.mark.behaviour("models:output:native")
async def test_words_before_the_object_are_left_out(server: Server, connect: Connect) -> None:
    blocks = [{"type": "text", "text": "", "_deltas": [{"type": "text_delta", "text": "Let me think."}]}]
    server.replies = [Reply(anthropic([JSON], before=blocks))]
    found = await events(connect(server.url).get("anthropic/claude-haiku-4-5"), forecast())
    assert not any(isinstance(event, TextDelta) for event in found)
    assert isinstance(found[-1], AssistantMessage)
    assert text_of(found[-1].parts) == JSON


@pytest.mark.behaviour("models:output:cancelled")
@every
async def test_leaving_such_a_call_ends_its_connection(means: Means, server: Server, connect: Connect) -> None:
    begun = {"calls": [GIVEN]} if means in BY_TOOL else {"texts": [JSON[:9]]}
    server.replies = [Reply(means.wire.answer(**begun, finish=None), end="hang"), Reply(means.wire.answer([JSON]))]
    model = connect(server.url).get(means.model)
    task = asyncio.create_task(events(model, forecast(tools=(WEATHER,))))
    await asyncio.wait_for(server.asked.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(server.disconnected.wait(), 2)
    assert text_of((await answered(model, forecast())).parts) == JSON


@pytest.mark.behaviour("models:output:cancelled")
@every
async def test_an_object_cut_off_with_its_connection_is_no_answer(
    means: Means, server: Server, connect: Connect
) -> None:
    begun = {"calls": [GIVEN]} if means in BY_TOOL else {"texts": [JSON]}
    server.replies = [Reply(means.wire.answer(**begun, finish=None), end="cut")]
    assert (await failed(connect(server.url).get(means.model), forecast(tools=(WEATHER,)))).transient


@pytest.mark.behaviour("models:output:native")
@alone
async def test_a_native_answer_as_providers_stream_it(means: Means, mock: Aimock, connect: Connect) -> None:
    *deltas, answer = await events(connect(mock.url).get(means.model), asking("forecast", output=FORECAST))
    assert deltas == []
    assert isinstance(answer, AssistantMessage)
    assert parse_output(Forecast, text_of(answer.parts)) == Forecast(city="Rome", days=[Day(sky="rain")])


@pytest.mark.behaviour("models:output:tool")
@by_tool
async def test_a_call_of_the_output_tool_as_providers_stream_it(means: Means, mock: Aimock, connect: Connect) -> None:
    request = asking("call me a forecast", output=FORECAST, tools=(WEATHER,))
    *deltas, answer = await events(connect(mock.url).get(means.model), request)
    assert deltas == []
    assert isinstance(answer, AssistantMessage)
    assert answer.calls == ()
    assert parse_output(Forecast, text_of(answer.parts)) == Forecast(city="Rome", days=[Day(sky="rain")])
