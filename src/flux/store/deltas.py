"""Deltas on their way to other processes: on Postgres alone, and for seconds only.

A row holds deltas that follow on one another, of one type and one subject, as readers get them. Their
writer puts all that belongs to an entry here before it appends the entry; so who reads both in one
statement sees the pieces first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from msgspec import Struct

from flux.entries.workflows import TaskCompleted, TaskFailed
from flux.events import AssistantSaid, DeltaEvent, Entry, ModelFailed, Reasoning, Token, ToolDone, UnknownEntry
from flux.store.database import Scope, Steps
from flux.store.log import LogRow

#: Bells ring for the processes that share our tables: a database may hold several sets of them.
CHANNEL = "'flux-' || md5(current_schema())"

#: Entries behind a reader's place that are read together with the deltas; who has more to read begins with the log.
FAR = 500

#: A writer whose execution was taken away writes nothing more.
POST = f"""
with given as (
  select * from unnest(cast(:ids as text[]), cast(:epochs as integer[]), cast(:firsts as integer[]),
    cast(:lasts as integer[]), cast(:seqs as integer[]), cast(:types as text[]), cast(:subjects as text[]),
    cast(:frames as text[])) as g (id, epoch, n, last, seq, type, subject, frames)),
written as (
  insert into deltas (execution_id, epoch, n, last, seq, type, subject, frames, at)
  select g.id, g.epoch, g.n, g.last, g.seq, g.type, g.subject, g.frames, :now
  from given g join executions e on e.id = g.id and e.epoch = g.epoch and e.state = 'running'
  on conflict do nothing)
select pg_notify({CHANNEL}, bell) from unnest(cast(:bells as text[])) as bell"""

#: At first, without a place: the deltas that are still here, but for runs that were over before the reader's own
#: place; and the entries since the first of them, or since that place if it is not far.
PULL = """
select e.epoch, e.place, x.kind, x.seq, x.type, x.run_id, x.epoch, x.at, x.body, x.n, x.last, x.subject
from (
  select epoch, first, case when :after >= 0 then :after else least(
    case when head - :since > :far then head else :since end, head,
    (select min(seq) from deltas where execution_id = :id and deltas.epoch >= first)) end as place
  from (
    select epoch, head, case when :after >= 0 then 0 else coalesce(
      (select v.epoch from events v where v.execution_id = :id and v.seq > :since order by v.seq limit 1),
      epoch) end as first
    from executions where id = :id and tenant = :tenant) r) e
left join lateral (
  select 0 as kind, seq, type, run_id, epoch, at, body, 0 as n, 0 as last, '' as subject
  from events where execution_id = :id and seq > e.place
  union all
  select 1, seq, type, null, epoch, at, frames, n, last, subject from deltas
  where execution_id = :id and epoch >= e.first and (epoch > :epoch or (epoch = :epoch and last > :n))
) x on true
order by x.seq, x.kind, x.epoch, x.n"""

FORGET = """
delete from deltas d
using unnest(cast(:ids as text[]), cast(:epochs as integer[]), cast(:subjects as text[])) as g (id, epoch, subject)
where d.execution_id = g.id and d.epoch = g.epoch and (g.subject is null or d.subject = g.subject)"""

TIDY = """
delete from deltas d where at < :now - :seconds and not exists (
  select 1 from executions e where e.id = d.execution_id and e.epoch = d.epoch and e.state = 'running')"""


class Piece(Struct, frozen=True):
    """Deltas `n` to `last` of an epoch behind entry `seq`, all of one type and subject; `frames` is a JSON array."""

    id: str
    epoch: int
    n: int
    last: int
    seq: int
    type: str
    subject: str
    frames: str


class Pulled(Struct, frozen=True):
    """What came behind a place, in the order to show it. `place` is that of the last entry before it."""

    epoch: int
    place: int
    items: list[LogRow | Piece]


class Settled(NamedTuple):
    """Deltas nobody waits for any more: those of a subject, or all of the epoch."""

    id: str
    epoch: int
    subject: str | None = None


def post(pieces: Sequence[Piece], bells: Sequence[str]) -> Steps[None]:
    """Write deltas and ring; what an earlier owner of an execution has to say is not written."""
    yield (
        POST,
        {
            "ids": [piece.id for piece in pieces],
            "epochs": [piece.epoch for piece in pieces],
            "firsts": [piece.n for piece in pieces],
            "lasts": [piece.last for piece in pieces],
            "seqs": [piece.seq for piece in pieces],
            "types": [piece.type for piece in pieces],
            "subjects": [piece.subject for piece in pieces],
            "frames": [piece.frames for piece in pieces],
            "bells": list(bells),
        },
    )


def pull(scope: Scope, id: str, after: int | None, epoch: int, n: int, since: int = 0) -> Steps[Pulled | None]:
    """The entries behind `after` and the deltas behind number `n` of `epoch`, of one moment; None: no such execution.

    `after` None: a first look, at all deltas that are still here, for a reader who has seen entry `since`.
    """
    place = {"id": id, "tenant": scope.tenant, "after": -1 if after is None else after, "epoch": epoch, "n": n}
    place |= {"since": since, "far": FAR}
    rows = yield PULL, place
    if not rows:
        return None
    items: list[LogRow | Piece] = []
    for _, _, kind, seq, type, run, of, at, body, first, last, subject in rows:
        if kind == 0:
            items.append(LogRow(seq, type, run, of, at, body))
        elif kind == 1:
            items.append(Piece(id, of, first, last, seq, type, subject, body))
    return Pulled(rows[0][0], rows[0][1], items)


def forget(settled: Sequence[Settled]) -> Steps[None]:
    """Remove deltas that nobody needs."""
    ids, epochs, subjects = (list(column) for column in zip(*settled, strict=True))
    yield FORGET, {"ids": ids, "epochs": epochs, "subjects": subjects}


def tidy(seconds: float) -> Steps[None]:
    """Remove what dead writers have left behind, so many seconds later."""
    yield TIDY, {"seconds": seconds}


def subject_of(delta: DeltaEvent) -> str:
    """The message or call that a delta is a piece of."""
    return delta.message_id if isinstance(delta, (Token, Reasoning)) else delta.call


def settled_by(entries: Sequence[Entry | UnknownEntry]) -> tuple[str, ...]:
    """The messages and calls whose deltas these entries replace."""
    messages = tuple(e.message_id for e in entries if isinstance(e, (AssistantSaid, ModelFailed)))
    return messages + tuple(e.call for e in entries if isinstance(e, (ToolDone, TaskCompleted, TaskFailed)))


#: The entries that replace deltas.
_SETTLING = {
    str(one.__struct_config__.tag) for one in (AssistantSaid, ModelFailed, ToolDone, TaskCompleted, TaskFailed)
}


def settled_in(row: LogRow) -> tuple[str, ...]:
    """The messages and calls whose deltas a stored entry replaces."""
    return settled_by((row.stored().entry,)) if row.type in _SETTLING else ()
