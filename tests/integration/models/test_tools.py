"""Tool calls: several in one answer, their results going back, and arguments as models really write them."""

import json

import pytest

from flux.messages import AssistantMessage, CallPart, ToolCall, ToolResult, with_call_ids
from tests.aimock import Aimock
from tests.integration.models.calls import answered, asking, said
from tests.integration.models.conftest import WEATHER, Connect
from tests.integration.models.server import Reply, Server
from tests.integration.models.wires import WIRES, Wire

TEXT_ARGUMENTS = [wire for wire in WIRES if wire.args_are_json]


@pytest.mark.behaviour("models:tools:parallel")
async def test_several_calls_in_one_answer_and_their_results_go_back(
    wire: Wire, mock: Aimock, connect: Connect
) -> None:
    model = connect(mock.url).get(wire.model)
    asked = await answered(model, asking("weather", tools=(WEATHER,)))
    assert [call.args for call in asked.calls] == [{"city": "Rome"}, {"city": "Oslo"}]
    assert asked.stop == "calls"
    assert [part.call for part in asked.parts if isinstance(part, CallPart)] == [c.id for c in asked.calls]
    renamed = with_call_ids(asked, ("first", "second"))
    results = [ToolResult(call, "rain", is_error=call.id == "second") for call in renamed.calls]
    final = await answered(model, asking("weather", renamed, *results, tools=(WEATHER,)))
    assert "".join(getattr(part, "text", "") for part in final.parts) == "Take an umbrella."


@pytest.mark.behaviour("models:tools:ids")
async def test_a_result_carries_the_id_its_call_had_at_the_provider(
    wire: Wire, server: Server, connect: Connect
) -> None:
    server.replies = [Reply(wire.answer(calls=[("call_one", "get_weather", "{}")], finish="calls"))]
    model = connect(server.url).get(wire.model)
    asked = await answered(model, asking("weather", tools=(WEATHER,)))
    (call,) = asked.calls
    renamed = with_call_ids(asked, ("ours",))
    await answered(model, asking("weather", renamed, ToolResult(renamed.calls[0], "rain"), tools=(WEATHER,)))
    sent = json.dumps(server.requests[-1].body)
    assert sent.count(f'"{call.wire_id}"') == 2
    assert '"ours"' not in sent


async def test_another_provider_sees_our_ids(wire: Wire, server: Server, connect: Connect) -> None:
    server.replies = [Reply(wire.answer(["fine"]))]
    call = ToolCall("ours", "get_weather", {"city": "Rome"}, "functions.get:0")
    foreign = AssistantMessage((CallPart("ours"),), (call,), model="moon/kimi")
    messages = (said("weather"), foreign, ToolResult(foreign.calls[0], "rain"))
    await answered(connect(server.url).get(wire.model), asking(*messages, tools=(WEATHER,)))
    sent = json.dumps(server.requests[-1].body)
    assert "functions.get:0" not in sent
    assert sent.count('"ours"') == 2


@pytest.mark.behaviour("models:tools:results-together")
async def test_results_of_one_answer_stand_together_and_follow_it(wire: Wire, server: Server, connect: Connect) -> None:
    calls = [("a", "get_weather", '{"city": "Rome"}'), ("b", "get_weather", '{"city": "Oslo"}')]
    server.replies = [Reply(wire.answer(calls=calls, finish="calls")), Reply(wire.answer(["fine"]))]
    model = connect(server.url).get(wire.model)
    asked = await answered(model, asking("weather", tools=(WEATHER,)))
    results = [ToolResult(call, f"rain in {call.args['city']}") for call in asked.calls]
    await answered(model, asking("weather", asked, *results, "and?", tools=(WEATHER,)))
    sent = json.dumps(server.requests[-1].body)
    order = [sent.index(text) for text in ("rain in Rome", "rain in Oslo", "and?")]
    assert order == sorted(order)


@pytest.mark.behaviour("models:tools:repair")
@pytest.mark.parametrize("wire", TEXT_ARGUMENTS, ids=lambda wire: wire.provider)
async def test_broken_arguments_are_repaired_or_declared_invalid(wire: Wire, server: Server, connect: Connect) -> None:
    calls = [("a", "get_weather", "{'city': 'Rome',}"), ("b", "get_weather", '{"city": "Ro')]
    server.replies = [Reply(wire.answer(calls=calls, finish="calls")), Reply(wire.answer(["fine"]))]
    model = connect(server.url).get(wire.model)
    asked = await answered(model, asking("weather", tools=(WEATHER,)))
    repaired, broken = asked.calls
    assert (repaired.args, repaired.invalid) == ({"city": "Rome"}, None)
    assert (broken.args, broken.invalid) == ({}, '{"city": "Ro')
    results = [ToolResult(call, "no", is_error=True) for call in asked.calls]
    await answered(model, asking("weather", asked, *results, tools=(WEATHER,)))


@pytest.mark.behaviour("models:tools:cut-off")
@pytest.mark.parametrize("wire", TEXT_ARGUMENTS, ids=lambda wire: wire.provider)
@pytest.mark.parametrize("cut", ['{"city": "Ro', ""])
async def test_a_call_cut_off_by_the_output_limit_is_dropped(
    wire: Wire, server: Server, connect: Connect, cut: str
) -> None:
    calls = [("a", "get_weather", '{"city": "Rome"}'), ("b", "get_weather", cut)]
    server.replies = [Reply(wire.answer(["Let me see."], calls=calls, finish="length"))]
    answer = await answered(connect(server.url).get(wire.model), asking("weather", tools=(WEATHER,)))
    assert answer.stop == "length"
    assert [call.args for call in answer.calls] == [{"city": "Rome"}]
    assert sum(isinstance(part, CallPart) for part in answer.parts) == 1


async def test_a_provider_that_gives_an_id_twice_gets_ours_for_the_second(
    wire: Wire, server: Server, connect: Connect
) -> None:
    server.replies = [Reply(wire.answer(calls=[("same", "get_weather", "{}")], finish="calls"))]
    model = connect(server.url).get(wire.model)
    first = with_call_ids(await answered(model, asking("weather", tools=(WEATHER,))), ("one",))
    second = with_call_ids(await answered(model, asking("weather", tools=(WEATHER,))), ("two",))
    history = (first, ToolResult(first.calls[0], "rain"), second, ToolResult(second.calls[0], "sun"))
    await answered(model, asking("weather", *history, tools=(WEATHER,)))
    sent = json.dumps(server.requests[-1].body)
    if first.calls[0].wire_id == second.calls[0].wire_id:
        assert sent.count('"same"') == sent.count('"two"') == 2
