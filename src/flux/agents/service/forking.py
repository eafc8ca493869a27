"""Forks: a session that begins as a copy of another, up to some entry, and goes on by itself."""

from __future__ import annotations

import uuid

from msgspec import Struct

from flux.agents.history.transcript import Transcript
from flux.agents.turn.steps import last_word
from flux.agents.turn.tool_calls import cancelled
from flux.engine.intake.answers import Admitted, Written
from flux.errors import Conflict, InvalidInput
from flux.events import Cancelled, Entry, Forked, SessionEndedEntry
from flux.store import audit, forks, log
from flux.store.database import Database, Scope, Steps
from flux.store.executions import Execution
from flux.store.forks import NewFork, Under

#: So much of its id names a fork that was given no name.
ID_SHOWN = 8


class Fork(Struct, frozen=True):
    """A copy to make of the session `source`, and of the sessions that it goes on to drive."""

    source: str
    new: NewFork
    below: tuple[Fork, ...] = ()


def check_forkable(row: Execution) -> None:
    """That a copy of a session could talk.

    :raises Conflict: it could not
    """
    if row.agent_version is None:
        raise Conflict("this session's agent lives in the program that started it; fork the session there")


async def plan_fork(
    database: Database,
    scope: Scope,
    row: Execution,
    at: int | None = None,
    *,
    id: str | None = None,
    name: str | None = None,
    under: Under | None = None,
) -> Fork:
    """What a copy of a session is to hold: the entries up to and with `at` (None: all), and how they are closed.

    What is in a log does not change, so this may be found out before the transaction that copies it. An end of the
    session is left out. `id` None: a fresh one; `name` None: one of its own; `under` will drive it.

    :raises InvalidInput: the session has no entry `at`
    """
    at = checked_cut(row, at)
    rows = await database.scan(log.read(scope, row.id, 0, at))
    entries = [stored.stored() for stored in rows]
    upto = next((stored.seq - 1 for stored in entries if isinstance(stored.entry, SessionEndedEntry)), at)
    transcript = Transcript().extend(entries[:upto])
    said = bool(transcript.items)
    ending = close(transcript, row.id, upto)
    id = id or str(uuid.uuid4())
    return Fork(
        row.id,
        NewFork(
            id=id,
            name=name or f"fork-{id[:ID_SHOWN]}",
            at=upto,
            ending=ending,
            turns=transcript.turns + sum(getattr(entry, "turn", 0) > 0 for entry in ending),
            titled=said,
            under=under,
        ),
    )


def checked_cut(row: Execution, at: int | None) -> int:
    """The last entry to copy.

    :raises InvalidInput: the session has none of that seq
    """
    at = row.head if at is None else at
    if not 1 <= at <= row.head:
        raise InvalidInput(f"at: the session has the entries 1 to {row.head}, not {at}")
    return at


def close(transcript: Transcript, source: str, at: int) -> list[Entry]:
    """What follows the copied entries: the end of the run that is open there, and `Forked`.

    A run whose last answer is there ended well; any other is cancelled. Messages that no run took up are dropped.
    """
    dropped = tuple(transcript.pending)
    transcript.pending = {}
    ending: list[Entry] = []
    run = transcript.run
    if run is not None:
        whole = run.answer if run.answer is not None and not run.failures and not run.cancelled else None
        response = last_word(transcript, whole) if whole is not None else None
        ending += [cancelled(state) for state in run.open_calls]
        ending.append(response or Cancelled())
    return [*ending, Forked(source=source, upto=at, dropped=dropped)]


def fork_steps(scope: Scope, fork: Fork) -> Steps[Written]:
    """The program that makes a copy; repeated with the same id it changes nothing.

    :raises SessionNotFound: the source is gone
    :raises SessionExists: an open session of its agent and instance has that name
    """
    rows = yield from forks.fork(scope, fork.source, fork.new)
    if rows:
        for below in fork.below:
            yield from forks.fork(scope, below.source, below.new)
        yield from audit.record(scope, "session.fork", fork.new.id, {"from": fork.source, "at": fork.new.at})
    return Admitted(fork.new.id, fork.new.at + len(fork.new.ending), repeated=not rows), rows
