"""Fifty sessions at once: turns per second and what each costs."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from flux.client import FluxClient
from tests.benchmarks import replay
from tests.benchmarks.children import flux_server, replaying
from tests.benchmarks.frame import Row, Size, ms
from tests.benchmarks.talk import Found, at_once, embedded, lines, make_agent, say, sessions
from tests.benchmarks.turn import DIRECT, STREAM, call_model, frames, tokens_row


async def measure(size: Size, home: Path) -> list[Row]:
    """In process, and over sockets to a server of its own."""
    direct = await at_once([call_model] * size.sessions, size.rounds)
    async with embedded(home / "embedded") as (client, _):
        await make_agent(client)
        found = await at_once([partial(say, one) for one in await sessions(client, size.sessions)], size.rounds)
    async with flux_server(home / "served") as server, FluxClient(server.url) as client:
        await make_agent(client)
        with lines(server.url, [one.id for one in await sessions(client, size.sessions)]) as opened:
            served = await at_once([line.say for line in opened], size.rounds, server.cpu)
    async with replaying(replay.save(home / "stream.json", frames(opened[0].answer))) as server:
        with lines(server.url, ["raw"] * size.sessions) as opened:
            raw = await at_once([line.say for line in opened], size.rounds, server.cpu)
    return [
        *rows(f"{size.sessions} in process", found, direct, DIRECT, turns_per_second=300, cpu=5.0),
        *rows(f"{size.sessions} over sockets", served, raw, STREAM, turns_per_second=300, cpu=5.0),
    ]


def rows(
    where: str, found: Found, limit: Found, limit_is: str, *, turns_per_second: float | None, cpu: float | None
) -> list[Row]:
    """Turns per second, CPU per turn, and whether every token arrived."""
    turns, took = found
    base, base_took = limit
    return [
        Row(
            name=f"{where}: turns per second", figure=len(turns) / took.wall, unit="/s",
            limit=len(base) / base_took.wall, limit_is=limit_is, target=turns_per_second, at_least=True,
        ),
        Row(
            name=f"{where}: CPU per turn", figure=ms(took.cpu / len(turns)), unit="ms",
            limit=ms(base_took.cpu / len(base)), limit_is=limit_is, target=cpu,
        ),
        tokens_row(where, turns),
    ]  # fmt: skip
