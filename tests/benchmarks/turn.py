"""One turn of an idle server: what Flux adds to a model that answers at once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from flux.client import FluxClient
from flux.messages import TextDelta, TextPart, UserMessage
from flux.models.base import ModelRequest
from flux.models.bundled import scripted
from tests.benchmarks import replay
from tests.benchmarks.children import flux_server, replaying
from tests.benchmarks.frame import TEXT, TOKENS, Row, Size, median, ms, p95
from tests.benchmarks.talk import (
    Found,
    Turn,
    embedded,
    lines,
    lines_needed,
    make_agent,
    one_by_one,
    say,
    sessions,
)

DIRECT = "the model called directly"
STREAM = "a raw stream of the same bytes"
REQUEST = ModelRequest(system="", messages=(UserMessage((TextPart(TEXT),)),))


async def measure(size: Size, home: Path) -> list[Row]:
    """In process, and over a socket to a server of its own."""
    direct = await directly(size)
    async with embedded(home / "embedded") as (client, _):
        await make_agent(client)
        talk = [partial(say, session) for session in await sessions(client, lines_needed(size.turns))]
        found = await one_by_one(talk, size.turns, size.warm_up)
    rows = turn_rows("in process", found, direct)
    async with flux_server(home / "served") as server, FluxClient(server.url) as client:
        await make_agent(client)
        ids = [session.id for session in await sessions(client, lines_needed(size.turns))]
        with lines(server.url, ids) as opened:
            found = await one_by_one([line.say for line in opened], size.turns, size.warm_up, server.cpu)
        raw = await _raw(size, home, opened[0].answer)
    return rows + turn_rows("socket", found, direct, raw)


async def directly(size: Size) -> Found:
    """The same model without Flux."""
    return await one_by_one([call_model] * lines_needed(size.turns), size.turns, size.warm_up)


async def call_model() -> Turn:
    """One answer of the model itself."""
    began = time.perf_counter()
    first, tokens = 0.0, 0
    async for event in scripted("echo").stream(REQUEST):
        if isinstance(event, TextDelta):
            first = first or time.perf_counter() - began
            tokens += 1
    return Turn(0.0, first, time.perf_counter() - began, tokens)


async def _raw(size: Size, home: Path, answer: bytes) -> Found:
    async with replaying(replay.save(home / "stream.json", frames(answer))) as server:
        with lines(server.url, ["raw"]) as (line,):
            return await one_by_one([line.say] * lines_needed(size.turns), size.turns, size.warm_up, server.cpu)


def frames(answer: bytes) -> list[bytes]:
    """The frames in a chunked answer."""
    events = answer.split(b"id: ")[1:]
    return [b"id: " + event[: event.index(b"\n\n")] + b"\n\n" for event in events]


def turn_rows(where: str, found: Found, direct: Found, stream: Found | None = None) -> list[Row]:
    """What turns took, beside the model called directly."""
    turns, took = found
    calls, call_took = direct
    first = median([call.first for call in calls])
    from_accepted = [turn.first - turn.accepted for turn in turns]
    times = [
        ("accepted -> first token, median", median(from_accepted), first, 5.0),
        ("accepted -> first token, p95", p95(from_accepted), first, 15.0),
        ("sent -> first token, median", median([turn.first for turn in turns]), first, 5.0),
        ("sent -> first token, p95", p95([turn.first for turn in turns]), first, 15.0),
        ("CPU per turn", took.cpu / len(turns), call_took.cpu / len(calls), 5.0),
    ]
    rows = [
        Row(
            name=f"{where}: {name}", figure=ms(value), unit="ms", limit=ms(limit), limit_is=DIRECT, target=target,
            over=True,
        )
        for name, value, limit, target in times
    ]  # fmt: skip
    least, least_is = (stream, STREAM) if stream else (direct, DIRECT)
    whole = Row(
        name=f"{where}: whole turn, median", figure=ms(median([turn.done for turn in turns])), unit="ms",
        limit=ms(median([turn.done for turn in least[0]])), limit_is=least_is,
    )  # fmt: skip
    return [*rows, whole, tokens_row(where, turns)]


def tokens_row(where: str, turns: Sequence[Turn]) -> Row:
    """In how many turns each token arrived exactly once."""
    right = sum(turn.tokens == TOKENS for turn in turns)
    return Row(
        name=f"{where}: turns with all {TOKENS} tokens", figure=100 * right / len(turns), unit="%", target=100,
        at_least=True,
    )  # fmt: skip
