"""Reasoning is shown, kept with its signature for the provider that signed it, and for nobody else."""

import base64
import json
from typing import Any

import pytest

from flux.messages import (
    AssistantMessage,
    ReasoningDelta,
    ReasoningPart,
    TextPart,
    ToolResult,
    with_call_ids,
)
from tests.aimock import Aimock
from tests.integration.models.calls import answered, asking, events
from tests.integration.models.conftest import WEATHER, Connect
from tests.integration.models.server import Reply, Server
from tests.integration.models.wires import BY_NAME, Wire, anthropic, chat, google, responses

CALL = ("call_a", "get_weather", '{"city": "Rome"}')


@pytest.mark.behaviour("models:reasoning:streams")
async def test_reasoning_streams_before_the_text(wire: Wire, mock: Aimock, connect: Connect) -> None:
    *deltas, answer = await events(connect(mock.url).get(wire.model), asking("think"))
    assert isinstance(deltas[0], ReasoningDelta)
    assert isinstance(answer, AssistantMessage)
    reasoning, *_ = answer.parts
    assert isinstance(reasoning, ReasoningPart)
    assert (reasoning.text, reasoning.provider) == ("Let me think.", wire.provider)
    assert answer.parts[-1] == TextPart("Done.")


async def replayed(server: Server, connect: Connect, name: str, reply: list[bytes]) -> dict[str, Any]:
    """The body of the second request, after `reply` was answered with a tool result."""
    server.replies = [Reply(reply), Reply(reply)]
    model = connect(server.url).get(name)
    asked = with_call_ids(await answered(model, asking("weather", tools=(WEATHER,))), ("ours",))
    result = ToolResult(asked.calls[0], "rain")
    await answered(model, asking("weather", asked, result, tools=(WEATHER,)))
    return server.requests[-1].body


@pytest.mark.behaviour("models:reasoning:signed")
async def test_anthropic_gets_its_thinking_back_signed_and_in_place(server: Server, connect: Connect) -> None:
    deltas = [
        {"type": "thinking_delta", "thinking": "Rome, then."},
        {"type": "signature_delta", "signature": "c2lnbmVk"},
    ]
    thinking = {"type": "thinking", "thinking": "", "signature": "", "_deltas": deltas}
    redacted = {"type": "redacted_thinking", "data": "c2VjcmV0"}
    reply = anthropic(["Looking."], [CALL], "calls", before=[thinking, redacted])
    body = await replayed(server, connect, "anthropic/claude-haiku-4-5", reply)
    blocks = body["messages"][1]["content"]
    assert [block["type"] for block in blocks] == ["thinking", "redacted_thinking", "text", "tool_use"]
    assert blocks[0] == {"type": "thinking", "thinking": "Rome, then.", "signature": "c2lnbmVk"}
    assert blocks[1]["data"] == "c2VjcmV0"


@pytest.mark.behaviour("models:reasoning:signed")
async def test_openai_gets_encrypted_reasoning_ids_and_order_back(server: Server, connect: Connect) -> None:
    summary = [{"type": "summary_text", "text": "Rome, then."}]
    item = {"type": "reasoning", "id": "rs_1", "summary": summary, "encrypted_content": "ZW5jcnlwdGVk"}
    body = await replayed(server, connect, "openai/gpt-5.6-sol", responses(["Looking."], [CALL], "calls", item))
    reasoning, text, call, result = body["input"][1:]
    assert reasoning == item
    assert (text["id"], text["content"][0]["text"]) == ("msg_1", "Looking.")
    assert (call["type"], call["id"], call["call_id"]) == ("function_call", "fc_call_a", "call_a")
    assert (result["type"], result["call_id"]) == ("function_call_output", "call_a")
    assert "reasoning.encrypted_content" in body["include"]


@pytest.mark.behaviour("models:reasoning:signed")
@pytest.mark.parametrize("calls", [[CALL], []], ids=["on a call", "on text"])
async def test_google_gets_a_thought_signature_back_on_the_part_it_was_on(
    server: Server, connect: Connect, calls: list[Any]
) -> None:
    signature = base64.b64encode(b"signed thought").decode()
    server.replies = [Reply(google(["Looking."], calls, "calls", signature))]
    model = connect(server.url).get("google/gemini-3.8-flash")
    asked = await answered(model, asking("weather", tools=(WEATHER,)))
    results = [ToolResult(call, "rain") for call in asked.calls]
    await answered(model, asking("weather", asked, *results, "and?", tools=(WEATHER,)))
    *others, last = server.requests[-1].body["contents"][1]["parts"]
    assert last["thoughtSignature"] == signature
    assert all("thoughtSignature" not in part for part in others)


async def test_reasoning_fields_of_compatible_servers_go_back(server: Server, connect: Connect) -> None:
    reply = chat([], [CALL], "calls")
    reply.insert(0, reply[0].replace(b'"tool_calls"', b'"reasoning_content": "Rome, then.", "ignored"'))
    body = await replayed(server, connect, "own/deepseek-reasoner", reply)
    assert body["messages"][2]["reasoning_content"] == "Rome, then."


@pytest.mark.behaviour("models:reasoning:handoff")
async def test_reasoning_and_signatures_of_others_stay_behind(wire: Wire, server: Server, connect: Connect) -> None:
    server.replies = [Reply(wire.answer(["fine"]))]
    parts = (
        ReasoningPart("secret thought", signature="c2lnbmVk", id="rs_1", provider="elsewhere"),
        ReasoningPart("", provider="elsewhere", extra={"next": {"id": "msg_1"}}),
        TextPart("Visible."),
    )
    history = AssistantMessage(parts, model="elsewhere/model")
    await answered(connect(server.url).get(wire.model), asking("hello", history, "and?"))
    sent = json.dumps(server.requests[0].body)
    assert "Visible." in sent
    for hidden in ("secret thought", "c2lnbmVk", "rs_1", "msg_1", "<think"):
        assert hidden not in sent


@pytest.mark.behaviour("models:reasoning:levels")
@pytest.mark.parametrize(
    ("name", "level", "place", "expected"),
    [
        ("openai/gpt-5.6-sol", "high", "reasoning", {"effort": "high", "summary": "auto"}),
        ("openai/gpt-5.6-sol", "off", "reasoning", {"effort": "none"}),
        ("openai-chat/gpt-5.6-sol", "low", "reasoning_effort", "low"),
        ("anthropic/claude-haiku-4-5", "low", "thinking", {"type": "enabled", "budget_tokens": 2048}),
        ("anthropic/claude-opus-4-8", "high", "thinking", {"type": "adaptive"}),
        ("openrouter/openai/gpt-5.6-sol", "high", "reasoning", {"effort": "high"}),
        ("ollama/gpt-oss:20b", "medium", "reasoning_effort", "medium"),
        ("own/some-model", "xhigh", "reasoning_effort", "high"),
    ],
)
async def test_a_level_becomes_what_the_provider_calls_it(
    server: Server, connect: Connect, name: str, level: Any, place: str, expected: Any
) -> None:
    server.replies = [Reply(BY_NAME[name.partition("/")[0]].answer(["fine"]))]
    await answered(connect(server.url).get(name), asking("hello", reasoning=level))
    sent = server.requests[0].body[place]
    assert sent == expected if isinstance(expected, str) else expected.items() <= sent.items()


async def test_google_is_given_a_level_or_a_budget(server: Server, connect: Connect) -> None:
    server.replies = [Reply(google(["fine"]))]
    models = connect(server.url)
    await answered(models.get("google/gemini-3.8-flash"), asking("hello", reasoning="high"))
    await answered(models.get("google/gemini-2.5-flash"), asking("hello", reasoning="low"))
    level, budget = (request.body["generationConfig"]["thinkingConfig"] for request in server.requests)
    assert level["thinking_level"].lower() == "high"
    assert budget["thinking_budget"] == 2048


@pytest.mark.behaviour("models:reasoning:budget-added")
@pytest.mark.parametrize(
    "name",
    [
        "openai/gpt-5.6-sol",
        "openai-chat/gpt-5.6-sol",
        "anthropic/claude-haiku-4-5",
        "google/gemini-3.8-flash",
    ],
)
async def test_thinking_is_granted_on_top_of_visible_output_up_to_the_maximum(
    server: Server, connect: Connect, name: str
) -> None:
    wire = BY_NAME[name.partition("/")[0]]
    server.replies = [Reply(wire.answer(["fine"]))]
    model = connect(server.url).get(name)
    most = (await model.limits()).output
    for visible in (1000, 10_000_000):
        await answered(model, asking("hello", reasoning="high", max_tokens=visible))
    some, all_ = (wire.limit(request.body) for request in server.requests)
    assert 1000 + 10_000 < some < 1000 + 40_000
    assert all_ == most
    for request in server.requests:
        thinking = request.body.get("thinking", {})
        assert thinking.get("budget_tokens", 0) < wire.limit(request.body)
