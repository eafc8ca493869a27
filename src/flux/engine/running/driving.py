"""Driving a child: a session of its own, run inside this run and under its epoch.

Sub-agents and `agent()` are this one mechanism. A child's id comes from the key that created it and a
message's id from the child and its own key, so that whoever drives again after a crash finds both.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from contextlib import suppress
from urllib.parse import quote

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from flux.engine.dispatching.upkeep import to_the_end
from flux.engine.running.run import Executor, Link, Run
from flux.errors import Fenced, FluxError, InvalidInput, SessionEnded
from flux.events import (
    QUESTIONS,
    RUN_ENDS,
    CancelRequested,
    CompactRequested,
    Entry,
    Forked,
    Question,
    RunEnd,
    RunFailed,
    RunStarted,
    SessionStarted,
    Stored,
    UserSaid,
    spent_by,
)
from flux.store import driven, executions, log
from flux.store.database import Steps
from flux.store.driven import Awaited, Driver
from flux.store.executions import Spent

#: How deep children may drive children: the root has depth 0.
MAX_DEPTH = 4


class Ended(Struct, frozen=True):
    """How the run of a message ended, and what the child has used in all. `before`: it had ended already."""

    end: RunEnd
    spent: Spent = Spent()
    before: bool = False


class Waiting(Struct, frozen=True):
    """The child waits for answers, for the ends of executions, or until `due` (seconds since the epoch)."""

    questions: tuple[Question, ...] = ()
    due: float | None = None
    targets: tuple[str, ...] = ()


class Order(Struct, frozen=True):
    """What a child is told to do: who it is, its message, and what it begins with."""

    started: SessionStarted
    said: UserSaid | CompactRequested
    history: log.History = driven.NO_HISTORY


def child_id(driver: str, key: str) -> str:
    """The id of the child that a key creates."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{driver}/child/{key}"))


def session_key(agent: str, instance: str, name: str, after: int = 0) -> str:
    """The key of a session by its name, whatever characters that has, `after` so many of that name were deleted."""
    plain = f"{agent}/{quote(instance, safe='')}/{quote(name, safe='')}"
    return f"{after}:{plain}" if after else plain


def message_of(child: str, key: str) -> str:
    """The id of the message that a key sends to a child."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{child}/message/{key}"))


def driver_of(run: Run) -> Driver:
    """A run as it drives children."""
    return Driver(run.id, run.epoch, run.execution.worker or "", run.execution.root)


async def drive(run: Run, id: str, order: Order, executor: Executor, link: Link) -> Ended | Waiting:
    """Run a child until the run of its message has ended, or it waits. Cancelled, it stops the child as `link` says.

    :raises InvalidInput: children would be nested too deeply
    :raises Fenced, DatabaseUnavailable, DatabaseLocked: as `Run.append`
    :raises HandOver: this process is leaving
    """
    if run.depth >= MAX_DEPTH:
        raise InvalidInput(f"sub-agents may be nested {MAX_DEPTH} deep; this one would be deeper")
    async with run.driving(id):
        log_ = await _read(run, id)
        ended = _ended(log_, order.said.id)
        if ended is not None:
            return replace(ended, before=True)
        while True:
            try:
                child = await _take(run, id, order, link)
                await _execute(run, child, executor, link)
            except (SessionEnded, Fenced):
                # Either the driver is fenced too, which it will notice, or the child was taken away alone.
                return Ended(_LOST, _spent(await _read(run, id)))
            rested = await _rested(run, child, order.said.id, link)
            if rested is not None:
                return rested


async def stop(run: Run, id: str, executor: Executor, link: Link) -> Spent:
    """Stop a child that nobody drives now: its calls get results, and its open run its end. Returns what it has used.

    :raises Fenced, DatabaseUnavailable, DatabaseLocked: as `Run.append`
    """
    async with run.driving(id):
        row = await run.database.read(executions.get(run.scope, id))
        if row is None or row.run_id is None or row.state == "ended":
            return row.spent if row else Spent()
        child = await _take(run, id, None, link)
        with run.holding(child):
            await _stop(run, child, executor)
        return child.spent


async def _take(run: Run, id: str, order: Order | None, link: Link) -> Run:
    driver = driver_of(run)
    taken = await run.database.write(
        driven.drive(
            run.scope,
            driver,
            id,
            order.started if order else None,
            order.said if order else None,
            str(uuid.uuid4()),
            order.history if order else driven.NO_HISTORY,
        )
    )
    run.feed.publish(id, taken.rows)
    link.took(taken.execution.spent)
    return Run(taken.execution, run.database, run.feed, run.dispatch, run.draining, link=link, depth=run.depth + 1)


async def _execute(run: Run, child: Run, executor: Executor, link: Link) -> None:
    """Run the child until it rests."""
    with run.holding(child):
        try:
            await executor(child)
        except asyncio.CancelledError:
            if link.stops:
                await to_the_end(_stop(run, child, executor))
            raise


async def _stop(run: Run, child: Run, executor: Executor) -> None:
    with suppress(Fenced):
        if child.run_id is not None:
            await child.append(CancelRequested(run=child.run_id, by=run.scope.principal))
            child.left = None
            await executor(child)


async def _rested(run: Run, child: Run, message: str, link: Link) -> Ended | Waiting | None:
    """What the child came to. None: what it waits for came as it went to rest."""
    if message in child.ends:
        return Ended(child.ends[message], child.spent)
    entries, waits = await run.database.read(_found(run, child.id))
    ended = _ended(entries, message)
    if ended is not None:
        return ended
    if child.left is not None and entries[-1].seq > child.left_at:
        return None
    asked = [stored.entry for stored in entries if isinstance(stored.entry, QUESTIONS)]
    questions = [entry for entry in asked if entry.id in waits.questions]
    missed = [question for question in questions if not link.knows(question.id)]
    if missed:
        await link.saw(missed)
    left = child.left
    if left is None or left.state != "waiting":
        raise FluxError(debug=f"{child.id} rests, and the run of {message} has not ended")
    return Waiting(tuple(questions), left.due, waits.targets)


def _found(run: Run, id: str) -> Steps[tuple[list[Stored], Awaited]]:
    rows = yield from log.read(run.scope, id)
    return [row.stored() for row in rows], (yield from driven.awaited(run.scope, run.execution.root, id))


async def _read(run: Run, id: str) -> list[Stored]:
    return [row.stored() for row in await run.database.read(log.read(run.scope, id))]


def _ended(entries: Sequence[Stored], message: str) -> Ended | None:
    """The end of the run that a message began or joined; None: there is none yet."""
    inside = False
    for stored in entries:
        entry = stored.entry
        if isinstance(entry, RunStarted):
            inside = message in entry.inputs
        if inside and isinstance(entry, RUN_ENDS):
            return Ended(entry, _spent(entries))
    return None


def _spent(entries: Sequence[Stored]) -> Spent:
    """What was used by what these say; what a fork has copied was used elsewhere."""
    spent = Spent()
    for stored in entries:
        if isinstance(stored.entry, Forked):
            spent = Spent()
        elif isinstance(stored.entry, Entry):
            spent = spent.plus(*spent_by(stored.entry))
    return spent


def asked_here(question: Question, call: str, child: str) -> Entry:
    """The copy of a child's question for the log of its driver, where a call waits for it."""
    copy: Entry = msgspec.structs.replace(question, call=call, session=question.session or child)
    return copy


_LOST = RunFailed(message="the session of this sub-agent was ended")
