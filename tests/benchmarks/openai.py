"""The OpenAI chat format with a long history, against a provider that answers at once in a process of its own."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI
from pydantic_ai.direct import model_request_stream
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    UserPromptPart,
)
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from tests.benchmarks import replay
from tests.benchmarks.children import flux_server, replaying
from tests.benchmarks.frame import TEXT, Row, Size, median, ms
from tests.benchmarks.many import rows
from tests.benchmarks.talk import Found, Say, Turn, at_once, lines, lines_needed, one_by_one, with_past
from tests.integration.models.wires import chat

MODEL = "gpt-4.1"
KEY = "test-key-of-nobody"
SDK = "the openai SDK alone"
PYDANTIC_AI = "pydantic-ai alone"


async def measure(size: Size, home: Path) -> list[Row]:
    """Flux, the SDK alone and pydantic-ai alone with the same history."""
    home.mkdir(exist_ok=True)
    size = replace(size, turns=size.turns // 2, rounds=(size.rounds + 1) // 2)  # a turn takes ten times as long
    pieces = chat([word + " " for word in TEXT.split()])
    async with replaying(replay.save(home / "chat.json", pieces)) as provider:
        one, many = await _flux(size, home / "flux", f"{provider.url}/v1")
        client = AsyncOpenAI(base_url=f"{provider.url}/v1", api_key=KEY, max_retries=0)
        sdk, sdk_many = await _calls(size, partial(_sdk, client, _history(size.history)))
        model = OpenAIChatModel(MODEL, provider=OpenAIProvider(openai_client=client))
        ai, ai_many = await _calls(size, partial(_pydantic_ai, model, _ai_history(size.history)))
        await client.close()
    found: list[Row] = []
    for limit, limit_many, name in ((sdk, sdk_many, SDK), (ai, ai_many, PYDANTIC_AI)):
        first = name == SDK
        found += _one_row(size, one, limit, name, first)
        found += rows(
            f"{size.sessions} at once", many, limit_many, name,
            turns_per_second=80 if first else None, cpu=15.0 if first else None,
        )[: None if first else 2]  # fmt: skip
    return found


def _one_row(size: Size, found: Found, limit: Found, name: str, first: bool) -> list[Row]:
    turns, took = found
    calls, call_took = limit
    return [
        Row(
            name=f"{size.history} messages: sent -> first token, median", figure=ms(median([t.first for t in turns])),
            unit="ms", limit=ms(median([c.first for c in calls])), limit_is=name, target=8.0 if first else None,
        ),
        Row(
            name=f"{size.history} messages: CPU per turn", figure=ms(took.cpu / len(turns)), unit="ms",
            limit=ms(call_took.cpu / len(calls)), limit_is=name, target=15.0 if first else None,
        ),
    ]  # fmt: skip


async def _flux(size: Size, home: Path, provider: str) -> tuple[Found, Found]:
    ids = await with_past(home, size.sessions, size.history // 2, f"openai-chat/{MODEL}")
    async with flux_server(home, OPENAI_BASE_URL=provider, OPENAI_API_KEY=KEY) as server:
        with lines(server.url, ids) as opened:
            talk: list[Say] = [line.say for line in opened]
            await at_once(talk, 1)
            one = await one_by_one(talk * (2 + lines_needed(size.turns) // len(talk)), size.turns, 0, server.cpu)
            return one, await at_once(talk, size.rounds, server.cpu)


async def _calls(size: Size, call: Say) -> tuple[Found, Found]:
    one = await one_by_one([call] * (size.turns + 2), size.turns, size.warm_up)
    return one, await at_once([call] * size.sessions, size.rounds)


async def _sdk(client: AsyncOpenAI, history: Sequence[Any]) -> Turn:
    began = time.perf_counter()
    first, tokens = 0.0, 0
    stream = await client.chat.completions.create(
        model=MODEL, messages=list(history), stream=True, stream_options={"include_usage": True}
    )
    async for chunk in stream:
        if chunk.choices and chunk.choices[0].delta.content:
            first = first or time.perf_counter() - began
            tokens += 1
    return Turn(0.0, first, time.perf_counter() - began, tokens)


async def _pydantic_ai(model: OpenAIChatModel, history: Sequence[ModelMessage]) -> Turn:
    began = time.perf_counter()
    first, tokens = 0.0, 0
    async with model_request_stream(model, list(history)) as stream:
        async for event in stream:
            started = isinstance(event, PartStartEvent) and isinstance(event.part, TextPart) and event.part.content
            if started or (isinstance(event, PartDeltaEvent) and isinstance(event.delta, TextPartDelta)):
                first = first or time.perf_counter() - began
                tokens += 1
    return Turn(0.0, first, time.perf_counter() - began, tokens)


def _history(count: int) -> list[dict[str, str]]:
    past = [{"role": ("user", "assistant")[n % 2], "content": TEXT} for n in range(count)]
    return [*past, {"role": "user", "content": TEXT}]


def _ai_history(count: int) -> list[ModelMessage]:
    def message(n: int) -> ModelMessage:
        return ModelResponse([TextPart(TEXT)]) if n % 2 else ModelRequest([UserPromptPart(TEXT)])

    return [*map(message, range(count)), ModelRequest([UserPromptPart(TEXT)])]
