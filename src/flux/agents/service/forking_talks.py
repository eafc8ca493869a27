"""Forks of sessions whose agent talks by a workflow: a copy up to a place where that waited for a message.

Nothing is at work there but what the workflow does beside. What its tasks came to is in the copied log, by the place,
name and arguments of each call, so the workflow finds it again and goes on from there. The sessions that it drives
again and again, those of a working memory and of a harness, are copied with what they knew at that place.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec

from flux.agents.service.forking import ID_SHOWN, Fork, checked_cut, plan_fork
from flux.engine.running.driving import child_id, message_of, session_key
from flux.engine.workflows.conversation import MESSAGE
from flux.entries.workflows import TaskCancelled, TaskCompleted, TaskFailed, TaskStarted, WorkflowPaused
from flux.errors import Conflict
from flux.events import RUN_ENDS, AssistantSaid, ChatResponse, Forked, RunStarted, Stored, UserSaid
from flux.store import driven, log
from flux.store.database import Database, Scope
from flux.store.executions import Execution
from flux.store.forks import NewFork, Under

#: Sessions of a name that a workflow may have deleted before the one that is copied.
MOST_DELETED = 100


async def plan_talk_fork(
    database: Database, scope: Scope, row: Execution, at: int | None = None, *, name: str | None = None
) -> Fork:
    """What a copy is to hold: the entries up to where the workflow waited for a message last, by `at`, or first.

    :raises InvalidInput: the session has no entry `at`
    :raises Conflict: it has not waited for one yet, or drives a session that cannot be there twice
    """
    at = checked_cut(row, at)
    entries = await _entries(database, scope, row.id)
    upto = _rest(entries, at)
    copied = [stored.entry for stored in entries[:upto]]
    dropped = tuple(_pending(copied))
    id = str(uuid.uuid4())
    new = NewFork(
        id=id,
        name=name or f"fork-{id[:ID_SHOWN]}",
        at=upto,
        ending=[Forked(source=row.id, upto=upto, dropped=dropped)],
        turns=sum(isinstance(entry, ChatResponse) and entry.turn > 0 for entry in copied),
        titled=any(isinstance(entry, UserSaid) for entry in copied),
        busy=_works_beside(copied),
    )
    return Fork(row.id, new, tuple(await _below(database, scope, row, entries, upto, Under(id, id))))


async def _entries(database: Database, scope: Scope, id: str) -> list[Stored]:
    return [stored.stored() for stored in await database.scan(log.read(scope, id))]


def _rest(entries: Sequence[Stored], at: int) -> int:
    """The seq up to which to copy. An answer and the pause behind it belong together.

    In front of the first pause no message is answered, so a place there means that pause.
    """
    rests = [stored.seq for stored in entries if _is_rest(stored.entry)]
    if not rests:
        raise Conflict(
            "this agent talks by a workflow, which has not waited for a message yet: there is nothing to go on from; "
            "fork it when it has, or start a new session"
        )
    if isinstance(entries[at - 1].entry, AssistantSaid | ChatResponse):
        while at < len(entries) and isinstance(entries[at].entry, ChatResponse | WorkflowPaused):
            at += 1
    return max((seq for seq in rests if seq <= at), default=rests[0])


def _is_rest(entry: Any) -> bool:
    return isinstance(entry, WorkflowPaused) and entry.waiting_for == MESSAGE


def _pending(entries: Sequence[Any]) -> dict[str, None]:
    """The messages that no run has taken up."""
    waiting: dict[str, None] = {}
    for entry in entries:
        match entry:
            case UserSaid():
                waiting[entry.id] = None
            case RunStarted(inputs=ids) | Forked(dropped=ids):
                for id in ids:
                    waiting.pop(id, None)
    return waiting


def _works_beside(entries: Sequence[Any]) -> bool:
    """Whether a timer or a call is open, which the copy must take up by itself."""
    started = {entry.call for entry in entries if isinstance(entry, TaskStarted)}
    ended = {entry.call for entry in entries if isinstance(entry, TaskCompleted | TaskFailed | TaskCancelled)}
    return not started <= ended


async def _below(
    database: Database, scope: Scope, row: Execution, entries: Sequence[Stored], upto: int, under: Under
) -> list[Fork]:
    """The copies of the sessions that a copied one goes on to drive, and of those below them."""
    # What a fork has copied bears the ids of where that was written.
    lineage = [row.id, *(stored.entry.source for stored in entries if isinstance(stored.entry, Forked))]
    calls = [stored.entry.call for stored in entries[:upto] if isinstance(stored.entry, TaskCompleted | TaskFailed)]
    found: list[Fork] = []
    for child in await database.read(driven.children(scope, row.root, row.id)):
        key = _key(child, row.id)
        if key is None:
            continue
        if child.instance not in (child.id, row.id):
            raise Conflict(
                f"the workflow of this session talks in the session {child.name!r} of {child.agent}/{child.instance}, "
                "which there is only one of; start a new session, or let the workflow leave out the `id` of `ctx.init`"
            )
        inner = await _entries(database, scope, child.id)
        said = {stored.entry.id for stored in inner if isinstance(stored.entry, UserSaid)}
        known = _known(inner, _messages([child_id(id, _at(key, row.id, id)) for id in lineage], calls, said))
        if not known:
            continue
        id = child_id(under.driver, _at(key, row.id, under.driver))
        fork = await plan_fork(database, scope, child, known, id=id, name=child.name, under=under)
        new = msgspec.structs.replace(fork.new, instance=id if child.instance == child.id else under.driver)
        found += [Fork(child.id, new), *await _below(database, scope, child, inner, known, Under(id, under.root))]
    return found


def _key(child: Execution, driver: str) -> str | None:
    """The key of a session that is driven again and again; None: it was that of one call."""
    named = partial(session_key, child.agent or "", child.instance or "", child.name or "")
    keys = (child.name or "", *map(named, range(MOST_DELETED)))
    return next((key for key in keys if child_id(driver, key) == child.id), None)


def _at(key: str, source: str, id: str) -> str:
    """The key as `id` has it: where no instance is named, that is whoever drives."""
    return key.replace(f"/{source}/", f"/{id}/")


def _messages(children: Sequence[str], calls: Sequence[str], said: set[str]) -> set[str]:
    """Those of the messages that were said in these calls."""
    found: set[str] = set()
    for child in children:
        for call in calls:
            n = 0
            while (id := message_of(child, f"{call}/{n}")) in said:
                found.add(id)
                n += 1
    return found


def _known(entries: Sequence[Stored], messages: set[str]) -> int:
    """The end of the last run of these messages; 0: there is none."""
    last, inside = 0, False
    for stored in entries:
        if isinstance(stored.entry, RunStarted):
            inside = not messages.isdisjoint(stored.entry.inputs)
        elif inside and isinstance(stored.entry, RUN_ENDS):
            last = stored.seq
    return last
