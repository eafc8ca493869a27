"""Code inside one tool call of a session, remembered task by task as in a workflow."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from typing import Any

from msgspec import Struct

from flux.engine.running.run import Run
from flux.engine.workflows.context import ExecutionContext, set_context
from flux.engine.workflows.execution import KEEP_SECONDS, first_of, stop
from flux.engine.workflows.journal import Journal, set_journal, writing
from flux.engine.workflows.place import count_branches, enter
from flux.engine.workflows.services import Services


class Rested(Struct, frozen=True):
    """The code waits: for an answer, or until `due` (seconds since the epoch)."""

    due: float | None


async def run_nested(run: Run, services: Services, call: str, work: Callable[[], Awaitable[Any]]) -> Any:
    """What the code of a tool call returns; `Rested` when it waits. Run again it finds what its tasks came to.

    :raises Fenced, DatabaseUnavailable, DatabaseLocked: as `Run.append`
    """
    journal = Journal(run, services, within=call)
    await journal.look_back()
    with run.watching() as news:
        async with writing(journal) as writer:
            main = _start(journal, work)
            try:
                return await _watch(journal, main, writer, news)
            finally:
                journal.suspended = True
                await stop(main)
                await journal.flush()


def _start(journal: Journal, work: Callable[[], Awaitable[Any]]) -> asyncio.Task[Any]:
    loop = asyncio.get_running_loop()
    count_branches(loop)
    context = contextvars.copy_context()
    context.run(set_journal, journal)
    context.run(set_context, ExecutionContext(journal.run.execution, journal.log))
    context.run(enter, journal.root())
    return loop.create_task(_awaited(work), context=context, name=f"tool call {journal.within}")


async def _awaited(work: Callable[[], Awaitable[Any]]) -> Any:
    return await work()


async def _watch(journal: Journal, main: asyncio.Task[Any], writer: asyncio.Task[None], news: asyncio.Event) -> Any:
    while True:
        due = journal.next_due
        await first_of(
            main, writer, journal.quiet, news, timeout=None if due is None else max(0.0, due - journal.now())
        )
        if writer.done():
            writer.result()
        if main.done():
            return main.result()
        if news.is_set():
            news.clear()
            await journal.catch_up()
        journal.ring()
        if journal.quiet.is_set():
            journal.quiet.clear()
            await journal.flush()
            await journal.catch_up()
            due = journal.next_due
            if journal.parked and (due is None or due - journal.now() >= KEEP_SECONDS):
                return Rested(due)
