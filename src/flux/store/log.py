"""The append-only log of an execution: fenced append, and read."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from flux import redaction
from flux.entries.workflows import WorkflowFailed
from flux.errors import Fenced
from flux.events import (
    ENDS,
    PROGRESS,
    RUN_ENDS,
    AssistantSaid,
    Cancelled,
    ChatResponse,
    Compacted,
    Entry,
    RunFailed,
    RunStarted,
    Stored,
    UserSaid,
    decode,
    encode,
    type_of,
)
from flux.messages import text_of
from flux.store import webhooks
from flux.store.database import Row, Scope, Steps, one, together
from flux.store.executions import State

INSERT = "insert into events (execution_id, seq, type, run_id, epoch, at, body, words) values {} returning at"
INSERTED = "(:id, :seq_{n}, :type_{n}, :run_id, :epoch, :now, :body_{n}, :words_{n})"
#: Entries that say which messages they have consumed.
CONSUMES = (RunStarted, AssistantSaid, Cancelled)
#: Entries that are stored by one statement.
TOGETHER = 50

#: The run leaves: a state is given, and the head is still the one its writer has seen.
LEAVES = "cast(:then as text) is not null and (:seen < 0 or head = :seen)"

APPEND = f"""
update executions set head = head + :n, updated = :now,
  due = case when {LEAVES} then cast(:due as double precision) else due end,
  worker = case when {LEAVES} then null else worker end,
  waiting_for = case when {LEAVES} then cast(:waiting_for as text) else waiting_for end,
  outcome = coalesce(cast(:outcome as text), outcome),
  run_id = case when :ends = 1 then null else coalesce(cast(:run_id as text), run_id) end,
  failures = case when :resets = 1 or ({LEAVES} and cast(:then as text) = 'idle') then 0 else failures end,
  turns = turns + :turns,
  queued = case when queued > :consumed then queued - :consumed else 0 end,
  usage = coalesce(cast(:usage as text), usage),
  last_error = case when :ends = 1 then cast(:error as text) else last_error end,
  state = case when {LEAVES} then cast(:then as text) else state end
where id = :id and tenant = :tenant and epoch = :epoch and state = 'running'
returning head, state"""

CLOSE_INTERRUPTS = "update interrupts set state = 'cancelled' where execution_id = :id and state = 'open'"

#: Of an execution that is just ending; behind the update of its row, for which who begins to wait has to wait.
CONCERNED = """
select exists (select 1 from executions where root = :id and driver is not null and state <> 'ended'),
  exists (select 1 from waits where target = :id)"""

READ = """
select seq, type, run_id, epoch, at, body from events
where execution_id = :id and seq > :after
  and exists (select 1 from executions where id = :id and tenant = :tenant)
order by seq limit :limit"""

#: What a run goes on by, and no more: in a long log each column and each entry takes its time. An end that went well
#: repeats the answer before it, and only the newest tells where the session stands.
LOAD = """
select seq, epoch, at, body from events
where execution_id = :id and seq > :after
  and (type <> 'chat_response' or seq = (
    select seq from events where execution_id = :id and type = 'chat_response' order by seq desc limit 1
  ))
  and exists (select 1 from executions where id = :id and tenant = :tenant)
order by seq"""

#: The same of a workflow that is just claimed, as long as its log is short.
LOAD_CLAIMED = """
select seq, epoch, at, body from events where execution_id = :id and exists (
  select 1 from executions
  where id = :id and worker = :worker and state = 'running' and kind = 'workflow' and head <= :most)
order by seq"""

#: The compaction from which a log is read, and what of before it is still needed.
NEWEST_COMPACTION = """
select seq, epoch, at, body from events
where execution_id = :id and type = 'compaction'
  and exists (select 1 from executions where id = :id and tenant = :tenant)
order by seq desc limit 1"""
READ_SEQS = """
select seq, epoch, at, body from events where execution_id = :id and seq in ({seqs})
  and exists (select 1 from executions where id = :id and tenant = :tenant)
order by seq"""

READ_TYPES = """
select seq, type, run_id, epoch, at, body from events
where execution_id = :id and type in ({types})
  and exists (select 1 from executions where id = :id and tenant = :tenant)
order by seq"""

NO_LIMIT = 1 << 62


class History(Struct, frozen=True):
    """What a new session holds from its beginning, of a conversation that is kept elsewhere; `turns` are in it."""

    entries: tuple[Entry, ...] = ()
    turns: int = 0


class Then(Struct, frozen=True):
    """The state to leave a run in. `due` in seconds since the epoch."""

    state: State
    due: float | None = None
    waiting_for: str | None = None
    outcome: str | None = None


class LogRow(Struct, frozen=True):
    """An entry as it is stored; `body` is its JSON."""

    seq: int
    type: str
    run: str | None
    epoch: int
    at: float
    body: str

    def stored(self) -> Stored:
        """The entry in its place, decoded."""
        return Stored(self.seq, self.epoch, self.at, decode(self.body))


class Appended(Struct, frozen=True):
    """What an append did: the rows as stored, the state it left, and how many webhooks are to be told.

    Of an end: whether the execution drives others that are still open, and whether others wait for it.
    """

    rows: tuple[LogRow, ...]
    head: int
    state: State
    hooked: int = 0
    drives: bool = False
    awaited: bool = False


def append(
    scope: Scope,
    id: str,
    epoch: int,
    run: str | None,
    entries: Sequence[Entry],
    *,
    seen: int | None = None,
    then: Then | None = None,
    usage: str | None = None,
) -> Steps[Appended]:
    """Append as the owner of `epoch`; leave the run in `then` if the head is still `seen`.

    :raises Fenced: somebody else owns the execution now; nothing was written
    """
    ends = next((entry for entry in entries if isinstance(entry, ENDS)), None)
    started = next((entry.run for entry in entries if isinstance(entry, RunStarted)), None)
    rows = yield (
        APPEND,
        {
            "id": id,
            "tenant": scope.tenant,
            "epoch": epoch,
            "n": len(entries),
            "seen": -1 if seen is None else seen,
            "then": then.state if then else None,
            "due": then.due if then else None,
            "waiting_for": then.waiting_for if then else None,
            "outcome": then.outcome if then else None,
            "ends": int(ends is not None),
            "run_id": started,
            "resets": int(any(isinstance(entry, PROGRESS) for entry in entries)),
            "turns": sum(isinstance(entry, ChatResponse) and entry.turn > 0 for entry in entries),
            "consumed": sum(len(entry.inputs) for entry in entries if isinstance(entry, CONSUMES)),
            "usage": usage,
            "error": ends.message if isinstance(ends, (RunFailed, WorkflowFailed)) else None,
        },
    )
    if not rows:
        raise Fenced(debug=f"append to {id} in epoch {epoch}")
    head, state = rows[0]
    beside: list[Steps[Any]] = [_tells(scope, id, started or run, head, ends, then if state == "waiting" else None)]
    if ends is not None:
        beside.append(one(CLOSE_INTERRUPTS, id=id))
    if state == "ended":
        beside.append(one(CONCERNED, id=id))
    written, hooked, *rest = yield from together(insert(id, entries, head, started or run, epoch), *beside)
    drives, awaited = rest[-1][0] if state == "ended" else (False, False)
    return Appended(written, head, state, hooked, bool(drives), bool(awaited))


def _tells(scope: Scope, id: str, run: str | None, head: int, ends: Any, waits: Then | None) -> Steps[int]:
    """Tell webhooks that a run has ended, or waits; how many are told."""
    if isinstance(ends, RUN_ENDS):
        return (yield from webhooks.note_end(scope, id, run, head, ends))
    if waits is not None:
        return (yield from webhooks.note_waiting(scope, id, run, head, waits.waiting_for))
    return 0


def insert(id: str, entries: Sequence[Entry], head: int, run: str | None, epoch: int) -> Steps[tuple[LogRow, ...]]:
    """Store entries so that the last one gets seq `head`; the caller has moved the head."""
    written: list[LogRow] = []
    for at in range(0, len(entries), TOGETHER):
        written += yield from _insert(id, entries[at : at + TOGETHER], head - len(entries) + 1 + at, run, epoch)
    return tuple(written)


def _insert(id: str, entries: Sequence[Entry], first: int, run: str | None, epoch: int) -> Steps[list[LogRow]]:
    parameters: dict[str, Any] = {"id": id, "run_id": run, "epoch": epoch}
    stored: list[tuple[int, str, str]] = []
    for n, entry in enumerate(map(redaction.struct, entries)):
        seq, type, body = first + n, type_of(entry), encode(entry).decode()
        parameters |= {f"seq_{n}": seq, f"type_{n}": type, f"body_{n}": body, f"words_{n}": _words(entry)}
        stored.append((seq, type, body))
    rows = yield _insert_many(len(entries)), parameters
    return [LogRow(seq, type, run, epoch, rows[0][0], body) for seq, type, body in stored]


@functools.cache
def _insert_many(count: int) -> str:
    return INSERT.format(", ".join(INSERTED.format(n=n) for n in range(count)))


def read(scope: Scope, id: str, after: int = 0, limit: int | None = None) -> Steps[list[LogRow]]:
    """The entries behind `after` as they are stored, in order; empty for an execution of another tenant."""
    place = {"id": id, "tenant": scope.tenant, "after": after, "limit": NO_LIMIT if limit is None else limit}
    rows = yield READ, place
    return [LogRow(*row) for row in rows]


def read_types(scope: Scope, id: str, types: Sequence[type[Entry]]) -> Steps[list[LogRow]]:
    """The entries of some types, in order: the rest of a long log is not even decoded."""
    names = {f"type_{n}": str(one.__struct_config__.tag) for n, one in enumerate(types)}
    rows = yield (
        READ_TYPES.format(types=", ".join(f":{name}" for name in names)),
        {"id": id, "tenant": scope.tenant, **names},
    )
    return [LogRow(*row) for row in rows]


def read_in_tree(scope: Scope, root: str, type: type[Entry]) -> Steps[list[LogRow]]:
    """The entries of a type in the log of an execution and of all that it drives, as they were written."""
    rows = yield (
        "select v.seq, v.type, v.run_id, v.epoch, v.at, v.body from events v join executions e on e.id = v.execution_id"
        " where (e.id = :root or (e.root = :root and e.driver is not null)) and e.tenant = :tenant and v.type = :type"
        " order by v.at, v.execution_id, v.seq",
        {"root": root, "tenant": scope.tenant, "type": str(type.__struct_config__.tag)},
    )
    return [LogRow(*row) for row in rows]


def last(scope: Scope, id: str) -> Steps[LogRow | None]:
    """The newest entry."""
    rows = yield (
        "select seq, type, run_id, epoch, at, body from events where execution_id = :id and exists"
        " (select 1 from executions where id = :id and tenant = :tenant) order by seq desc limit 1",
        {"id": id, "tenant": scope.tenant},
    )
    return LogRow(*rows[0]) if rows else None


def newest(scope: Scope, id: str, type: type[Entry]) -> Steps[LogRow | None]:
    """The newest entry of a type."""
    rows = yield (
        "select seq, type, run_id, epoch, at, body from events where execution_id = :id and type = :type and exists"
        " (select 1 from executions where id = :id and tenant = :tenant) order by seq desc limit 1",
        {"id": id, "tenant": scope.tenant, "type": str(type.__struct_config__.tag)},
    )
    return LogRow(*rows[0]) if rows else None


def load(scope: Scope, id: str, after: int = 0) -> Steps[list[Stored]]:
    """The entries behind `after` that a run goes on by, decoded: all but the older `ChatResponse`s."""
    rows = yield LOAD, {"id": id, "tenant": scope.tenant, "after": after}
    return _decoded(rows)


def load_claimed(id: str, worker: str, most: int) -> Steps[list[Stored]]:
    """All entries of a workflow that this worker has claimed; none when there are more than `most`."""
    rows = yield LOAD_CLAIMED, {"id": id, "worker": worker, "most": most}
    return _decoded(rows)


def resume(scope: Scope, id: str) -> Steps[list[Stored]]:
    """What a run goes on by from the last compaction on: that, the older entries it needs still, those behind `upto`.

    Of a log without a compaction everything, as `load` gives it.
    """
    rows = yield NEWEST_COMPACTION, {"id": id, "tenant": scope.tenant}
    newest = _decoded(rows)
    entry = newest[0].entry if newest else None
    if not isinstance(entry, Compacted) or entry.base is None:
        return (yield from load(scope, id))
    needs = {f"seq_{n}": seq for n, seq in enumerate(seq for seq in entry.base["needs"] if seq <= entry.upto)}
    older: list[Row] = []
    if needs:
        seqs = ", ".join(f":{name}" for name in needs)
        older = yield READ_SEQS.format(seqs=seqs), {"id": id, "tenant": scope.tenant, **needs}
    return [*newest, *_decoded(older), *(yield from load(scope, id, entry.upto))]


def _decoded(rows: Sequence[Row]) -> list[Stored]:
    return [Stored(seq, epoch, at, decode(body)) for seq, epoch, at, body in rows]


def _words(entry: Entry) -> str | None:
    """What search looks at: what was said, without its JSON."""
    if not isinstance(entry, (UserSaid, AssistantSaid)):
        return None
    # A column holds neither half characters nor, on Postgres, NUL; the body, being JSON, has them all.
    text = text_of(entry.parts).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text.replace("\x00", " ")
