"""A script whose workflow copies, summarises and deletes sessions of a harness before it is killed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from flux import configure_provider, create_agent, workflow
from flux.models.base import ModelRequest
from flux.models.scripted import Turn
from flux.testing import Reply, ScriptedModel
from tests.crash.flows import first_execution, script
from tests.crash.stage import Stage

COMPACT = {"keep_recent_tokens": 1}


def _turn(request: ModelRequest) -> Turn:
    if "summarise" in request.system:
        return Reply("They talked.")
    return Reply(f"answer to {len(request.messages)} messages " * 9)


desk = create_agent({"model": "crash/any", "compaction": COMPACT}, name="desk")


@workflow
async def copies(ctx: Any) -> Any:
    """What each session holds in the end."""
    harness = await ctx.init(desk)
    first = await harness.session()
    await first.prompt("one")
    copy = await first.fork(name="copy")
    fresh = await harness.sessions.create("fresh")
    await copy.prompt("two")
    compacted = await copy.compact()
    unnamed = await copy.fork()
    await first.delete()
    again = await harness.session()
    await again.prompt("three")
    await unnamed.prompt("four")
    sessions = (copy, fresh, unnamed, again)
    return [compacted, *[[type(one).__name__ for one in await session.history()] for session in sessions]]


async def copy_script(stage: Stage) -> None:
    """The script: the first time a new execution, then that again."""
    configure_provider("crash", model=lambda _: ScriptedModel(_turn))
    before = await first_execution(stage)
    await script(stage, lambda: copies.run_async(execution_id=before))


SCENARIOS: dict[str, Callable[[Stage], Awaitable[None]]] = {"copy_script": copy_script}
