"""Copies of sessions: the beginning of a log in a row of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from msgspec import Struct

from flux.errors import InvalidInput, SessionExists, SessionNotFound
from flux.events import Entry
from flux.store import artifacts, files, log
from flux.store.database import Scope, Steps
from flux.store.executions import NOTHING_SPENT

#: While it is copied, nobody deletes it.
HOLD = "update executions set head = head where id = :source and tenant = :tenant returning head, epoch"

#: Its epoch is that of the source: the places of copied entries stay behind those of new ones.
MAKE = """
insert into executions (id, kind, tenant, owner, agent, agent_version, definition_digest, instance, name, title,
  workflow, source_version, state, due, head, epoch, pool, requests, failures, parent, driver, root, turns, usage,
  created, updated)
select cast(:id as text), kind, tenant, cast(:owner as text), agent, agent_version, definition_digest,
  coalesce(cast(:instance as text), instance), cast(:name as text), case when :titled = 1 then title else null end,
  workflow, source_version, case when :busy = 1 then 'scheduled' else 'idle' end, case when :busy = 1 then :now end,
  cast(:head as integer), epoch,
  case when cast(:driver as text) is null and agent_version is not null and kind = 'session' then 'default'
    else pool end,
  requests, 0, cast(:driver as text), cast(:driver as text), coalesce(cast(:root as text), cast(:id as text)),
  cast(:turns as integer), :usage, :now, :now
from executions where id = :source and tenant = :tenant and agent is not null
on conflict do nothing returning agent"""

COPY = """
insert into events (execution_id, seq, type, run_id, epoch, at, body, words)
select cast(:id as text), seq, type, run_id, epoch, at, body, words from events
where execution_id = :source and seq <= :at"""


class Under(NamedTuple):
    """Whoever drives a session, and the root of its tree."""

    driver: str
    root: str


class NewFork(Struct, frozen=True, kw_only=True):
    """A copy to make of the entries up to and with the seq `at`; `ending` follows them.

    `titled`: it takes the title over. `instance` None: that of the source. `under` drives it; None: it is independent.
    `busy`: it has something to do at once.
    """

    id: str
    name: str
    at: int
    ending: Sequence[Entry]
    turns: int = 0
    titled: bool = True
    instance: str | None = None
    under: Under | None = None
    busy: bool = False


def fork(scope: Scope, source: str, new: NewFork) -> Steps[tuple[log.LogRow, ...]]:
    """Copy the beginning of a session into a new idle one of the scope; what was written behind the copied entries.

    Neither questions, grants and idempotency keys nor children are copied. A fork of that id that is there stays as
    it is; nothing is returned for it.

    :raises SessionNotFound: there is no such session
    :raises InvalidInput: it has no entry `at`
    :raises SessionExists: an open session of its agent and instance has that name
    """
    held = yield HOLD, {"source": source, "tenant": scope.tenant}
    if not held:
        raise SessionNotFound()
    head, epoch = held[0]
    if not 1 <= new.at <= head:
        raise InvalidInput(f"at: the session has the entries 1 to {head}, not {new.at}")
    made = yield MAKE, _row(scope, source, new)
    if not made:
        yield from _explain(scope, source, new)
        return ()
    yield COPY, {"id": new.id, "source": source, "at": new.at}
    yield from artifacts.link(scope, source, new.at, new.id)
    yield from files.copy(scope, source, new.id)
    return (yield from log.insert(new.id, new.ending, new.at + len(new.ending), None, epoch))


def _row(scope: Scope, source: str, new: NewFork) -> dict[str, object]:
    return {
        "id": new.id,
        "source": source,
        "tenant": scope.tenant,
        "owner": scope.principal,
        "name": new.name,
        "titled": int(new.titled),
        "instance": new.instance,
        "driver": new.under.driver if new.under else None,
        "root": new.under.root if new.under else None,
        "busy": int(new.busy),
        "head": new.at + len(new.ending),
        "turns": new.turns,
        "usage": NOTHING_SPENT,
    }


def _explain(scope: Scope, source: str, new: NewFork) -> Steps[None]:
    """Why no row was made; nothing is raised where the fork is there already."""
    there = yield (
        "select 1 from executions where id = :id and tenant = :tenant",
        {"id": new.id, "tenant": scope.tenant},
    )
    if there:
        return
    found = yield (
        "select agent, instance from executions where id = :id and tenant = :tenant and agent is not null",
        {"id": source, "tenant": scope.tenant},
    )
    if not found:
        raise SessionNotFound()
    agent, instance = found[0]
    where = new.instance or instance
    raise SessionExists(f"agent {agent!r} already has an open session {new.name!r} for instance {where!r}")
