"""Instances of a project's agents over HTTP: a prompt and its answer, one by one and fifty instances at once."""

from __future__ import annotations

import json
from pathlib import Path

from tests.benchmarks import replay
from tests.benchmarks.children import flux_server, replaying
from tests.benchmarks.frame import Row, Size, median, ms, p95
from tests.benchmarks.turn import STREAM
from tests.benchmarks.workflows import calls, posting

AGENT = """\
from flux import create_agent, define_tool


def build(ctx):
    about = define_tool("about", lambda: ctx.id, description="Which instance this is.", effect="read")
    return {"model": "scripted/echo", "instructions": f"Serve {ctx.id}.", "tools": [about]}


default = create_agent(build)
"""


async def measure(size: Size, home: Path) -> list[Row]:
    """Over sockets to a server with a project."""
    project = home / "desk"
    (project / "agents").mkdir(parents=True)
    (project / "agents" / "helper.py").write_text(AGENT)
    async with flux_server(home / "served", "--project", str(project)) as server:
        alone, _ = await calls(server.url, 1, size.warm_up, size.runs, request=_prompts)
        many, took = await calls(server.url, size.callers, 1, size.rounds, server.cpu, request=_prompts)
    async with replaying(replay.save(home / "answer.json", [many[0][0]])) as server:
        raw, raw_took = await calls(server.url, size.callers, 1, size.rounds, server.cpu, request=_prompts)
    right = sum(b'"text":"hello"' in answer for answer, _ in alone + many)
    waits = [wait for _, wait in alone]
    where = f"{size.callers} instances at once"
    return [
        Row(name="a prompt: median", figure=ms(median(waits)), unit="ms", target=15.0),
        Row(name="a prompt: p95", figure=ms(p95(waits)), unit="ms"),
        Row(
            name=f"{where}: prompts per second", figure=len(many) / took.wall, unit="/s",
            limit=len(raw) / raw_took.wall, limit_is=STREAM, target=150, at_least=True,
        ),
        Row(
            name=f"{where}: CPU per prompt", figure=ms(took.cpu / len(many)), unit="ms",
            limit=ms(raw_took.cpu / len(raw)), limit_is=STREAM, target=10.0,
        ),
        Row(name="prompts that were answered", figure=100 * right / len(alone + many), unit="%", target=100,
            at_least=True),
    ]  # fmt: skip


def _prompts(caller: int) -> bytes:
    return posting(f"/agents/helper/i{caller}", json.dumps({"message": "hello"}).encode())
