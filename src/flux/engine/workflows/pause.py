"""Stopping until something comes: an answer, a time, the end of another execution."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from flux.engine.encoding.values import decode_value, encode_value, json_value
from flux.engine.workflows import conversation
from flux.engine.workflows.elsewhere import elsewhere
from flux.engine.workflows.journal import TIMED_OUT, Journal, Refused, journal_here
from flux.engine.workflows.place import Place, here
from flux.entries.workflows import TaskCompleted, TaskStarted
from flux.errors import ExecutionSuspended, InvalidInput
from flux.events import ChildDone, Elicited, Paused
from flux.store import interrupts, waits
from flux.store.database import Steps


async def pause(
    name: str,
    output: Any = None,
    *,
    until: datetime | None = None,
    after: timedelta | float | None = None,
    on_complete: str | None = None,
) -> Any:
    """Pause the workflow until it is resumed, and return what it is resumed with.

    `output` is shown meanwhile. It wakes by itself, with None, at `until`, `after` that time (timedelta or
    seconds), or when the execution `on_complete` has ended.

    :raises InvalidInput: outside a workflow, or with more than one of `until` and `after`
    """
    if until is not None and after is not None:
        raise InvalidInput("pause() takes `until` or `after`, not both")
    if (way := elsewhere()) is not None:
        return await way.ask(
            "pause", name=name, output=json_value(output), until=until, after=after, on_complete=on_complete
        )
    journal, place = _inside("pause")
    call = place.mint(f"pause:{name}", (), {})
    done = journal.finished.get(call)
    if isinstance(done, TaskCompleted):
        return decode_value(done.value)
    asked = journal.asked.get(call)
    if asked is None:
        due = until.astimezone(UTC).timestamp() if until else journal.now() + _seconds(after) if after else None
        asked = await _ask(journal, call, name, output, due, on_complete)
    if isinstance(asked, Elicited):
        return await conversation.elicited(journal, asked, place.body)
    return await _Pause(journal, place, call, asked).answer()


async def sleep(duration: float | timedelta) -> None:
    """Sleep for seconds (or a timedelta); no restart shortens or prolongs it, and a long one holds no memory."""
    journal, place = journal_here(), here()
    seconds = _seconds(duration)
    if (way := elsewhere()) is not None:
        await way.ask("sleep", duration=seconds)
        return
    if journal is None or place is None:
        await asyncio.sleep(seconds)
        return
    call = place.mint("sleep", (seconds,), {})
    if call in journal.finished:
        return
    started = journal.started.get(call)
    if started is None:
        started = TaskStarted(call=call, name="sleep", value={"seconds": seconds}, due=journal.now() + seconds)
        await journal.record(started)
    if (started.due or 0) > journal.now():
        await journal.park(call, call, "timer", {"name": "sleep", "until": started.due}, started.due, place.body)
    await journal.record(TaskCompleted(call=call, name="sleep"))


class _Pause:
    """An open pause. It ends in one way only: answered, or closed by its time or by the execution it waits for."""

    def __init__(self, journal: Journal, place: Place, call: str, asked: Paused) -> None:
        self._journal = journal
        self._place = place
        self._call = call
        self._asked = asked
        self._kind = conversation.waits_for(journal, asked.output)

    async def answer(self) -> Any:
        """What it is resumed with; None when it woke by itself."""
        journal, asked = self._journal, self._asked
        while True:
            came = await self._wait()
            if came is not TIMED_OUT and not isinstance(came, ChildDone):
                return decode_value(came.content)
            ended = TaskCompleted(call=self._call, name=f"pause:{asked.name}")
            try:
                await journal.record(ended, also=self._closing())
            except Refused:  # answered meanwhile
                await journal.outside(journal.catch_up())
                continue
            return None

    def _closing(self) -> Steps[None] | None:
        run = self._journal.run
        return _expire(run.scope, run.id, self._asked.id) if self._kind == "pause" else None

    async def _wait(self) -> Any:
        journal, asked = self._journal, self._asked
        if asked.id not in journal.answers and asked.on in journal.ended:
            return journal.ended[asked.on]
        if asked.id not in journal.answers and asked.due is not None and asked.due <= journal.now():
            return TIMED_OUT
        shown = {"name": asked.name, "output": asked.output}
        if self._kind != "pause":
            shown["id"] = asked.id
        if asked.on is not None:
            journal.also_wakes[asked.on] = asked.id
        return await journal.park(self._call, asked.id, self._kind, shown, asked.due, self._place.body)


async def _ask(
    journal: Journal, call: str, name: str, output: Any, due: float | None, on_complete: str | None
) -> Paused | Elicited:
    run, shown = journal.run, encode_value(output)
    if journal.talks and (told := await conversation.tell(journal, call, name, shown, due, on_complete)):
        return told
    asked = Paused(
        id=interrupts.interrupt_id(run.id, call, journal.stopped),
        call=call,
        name=name,
        output=shown,
        due=due,
        on=on_complete,
        within=journal.within,
    )

    def opening() -> Steps[None]:
        yield from interrupts.open_interrupt(
            run.scope,
            id=asked.id,
            execution_id=run.id,
            call=call,
            kind="pause",
            payload=msgspec.to_builtins(asked),
            expires_at=due,
        )
        if on_complete is not None:
            yield from waits.wait_for(run.scope, run.id, on_complete)

    await journal.record(asked, also=opening())
    if on_complete is not None and await has_ended(journal, on_complete):
        # It ended before the wait was written: nobody will tell.
        journal.ended[on_complete] = ChildDone(child=on_complete)
    return asked


async def has_ended(journal: Journal, id: str) -> bool:
    """Whether another execution has ended (or is not there)."""
    run = journal.run
    return not await journal.outside(run.database.write(waits.open_target(run.scope, id)))


def _expire(scope: Any, execution: str, id: str) -> Steps[None]:
    if not (yield from interrupts.expire(scope, execution, id)):
        raise Refused


def _inside(what: str) -> tuple[Journal, Place]:
    journal, place = journal_here(), here()
    if journal is None or place is None:
        raise InvalidInput(f"{what}() works inside a workflow only")
    if journal.suspended:
        raise ExecutionSuspended
    return journal, place


def _seconds(duration: float | timedelta | None) -> float:
    if isinstance(duration, timedelta):
        return duration.total_seconds()
    return float(duration or 0)
