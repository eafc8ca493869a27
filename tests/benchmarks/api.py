"""Api mode in front of a server, each a process of its own: one turn when all is idle, and fifty sessions at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path

from flux.client import FluxClient
from tests.benchmarks.children import FLUX, Child, flux_environment, flux_server, serving
from tests.benchmarks.frame import Row, Size, ms
from tests.benchmarks.many import rows
from tests.benchmarks.readers import reading
from tests.benchmarks.talk import AGENT, Line, at_once, lines, lines_needed, make_agent, one_by_one, sessions
from tests.benchmarks.turn import directly, turn_rows

NATIVE = "the server's own route"


class ApiLine(Line):
    """A connection to api mode."""

    path = "/chat?session={}"
    token = b'"type":"token"'

    def fresh(self) -> bytes:
        """The request that begins a session."""
        return self._request.replace(b"/chat?session= ", b"/chat ")


async def measure(size: Size, home: Path) -> list[Row]:
    """One by one, and at once; beside the native route of the same server."""
    direct = await directly(size)
    async with flux_server(home) as server, FluxClient(server.url) as client:
        await make_agent(client)
        async with flux_api(home, server.url) as api:

            def cpu() -> float:
                return api.cpu() + server.cpu()

            ids = [one.id for one in await sessions(client, lines_needed(size.turns))]
            with api_lines(api.url, ids) as opened:
                found = await one_by_one([line.say for line in opened], size.turns, size.warm_up, cpu)
            with lines(server.url, [one.id for one in await sessions(client, size.sessions)]) as native:
                beside = await at_once([line.say for line in native], size.rounds, server.cpu)
            with api_lines(api.url, [one.id for one in await sessions(client, size.sessions)]) as opened:
                many = await at_once([line.say for line in opened], size.rounds, cpu)
    return [
        *await _chats(size, home / "chats"),
        *turn_rows("api mode", found, direct),
        *rows(f"{size.sessions} through api mode", many, beside, NATIVE, turns_per_second=300, cpu=5.0),
    ]


async def _chats(size: Size, home: Path) -> list[Row]:
    """Open streams of api mode: the server runs nothing, so that each chat waits for its answer."""
    home.mkdir(parents=True)
    async with flux_server(home, "--no-worker") as server, FluxClient(server.url) as client:
        await make_agent(client)
        async with flux_api(home, server.url) as api:
            empty, before = api.rss(), api.cpu()
            async with reading(api, ApiLine(api.url, "").fresh(), size.readers):
                full, spent = api.rss(), api.cpu() - before
    name = f"{size.readers:,} chats through api mode"
    return [
        Row(name=f"{name}: memory", figure=full, unit="MB", limit=empty, limit_is="before them", target=120.0),
        Row(name=f"{name}: CPU per opening", figure=ms(spent / size.readers), unit="ms"),
    ]


def flux_api(home: Path, server: str) -> AbstractAsyncContextManager[Child]:
    """`flux agent start --mode api` on a free port."""
    command = [FLUX, "agent", "start", AGENT, "--mode", "api", "--port", "0", "--server", server]
    return serving(*command, environment=flux_environment(home))


@contextmanager
def api_lines(url: str, ids: Sequence[str]) -> Iterator[list[ApiLine]]:
    """A line to each session, hung up at the end."""
    opened = [ApiLine(url, id) for id in ids]
    try:
        yield opened
    finally:
        for line in opened:
            line.close()
