"""Rows of executions: create, claim, look up, list, and hand back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct

from flux.errors import SessionExists
from flux.messages import Usage
from flux.store.database import Row, Scope, Steps

State = Literal["idle", "scheduled", "running", "waiting", "ended"]


class Spent(Struct, frozen=True, omit_defaults=True):
    """What an execution has used; `cost` in US dollars."""

    tokens: Usage = Usage()
    cost: float = 0.0

    def plus(self, tokens: Usage, cost: float | None) -> Spent:
        """With one more model call."""
        return Spent(self.tokens + tokens, self.cost + (cost or 0.0))

    def since(self, before: Spent) -> Spent:
        """What was used after it had been `before`."""
        return Spent(self.tokens - before.tokens, max(0.0, self.cost - before.cost))


class Execution(Struct, frozen=True):
    """One row. `due`, `created` and `updated` are in seconds since the epoch."""

    id: str
    kind: str
    tenant: str
    owner: str
    agent: str | None
    agent_version: int | None
    definition_digest: str | None
    instance: str | None
    name: str | None
    title: str | None
    workflow: str | None
    source_version: int | None
    state: State
    outcome: str | None
    waiting_for: str | None
    head: int
    epoch: int
    run_id: str | None
    worker: str | None
    due: float | None
    pool: str
    requests: str | None
    failures: int
    parent: str | None
    driver: str | None
    root: str
    turns: int
    usage: str
    last_error: str | None
    created: float
    updated: float

    @property
    def scope(self) -> Scope:
        """The owner's scope, under which its runs act."""
        return Scope(self.tenant, self.owner)

    @property
    def spent(self) -> Spent:
        """What it has used so far."""
        return decode_spent(self.usage)


COLUMNS = ", ".join(Execution.__struct_fields__)
NOTHING_SPENT = "{}"

decode_spent = msgspec.json.Decoder(Spent).decode


def encode_spent(spent: Spent) -> str:
    """The text of the usage column."""
    return msgspec.json.encode(spent).decode()


INSERT = """
insert into executions (id, kind, tenant, owner, agent, agent_version, definition_digest, instance, name,
  state, head, epoch, pool, requests, failures, root, turns, usage, created, updated)
values (:id, 'session', :tenant, :owner, :agent, :agent_version, :definition_digest, :instance, :name,
  'idle', 0, 0, :pool, :requests, 0, :id, 0, :usage, :now, :now)
on conflict do nothing returning created"""

#: The pool of executions that only a process with their code can run: the script that started them.
CALLER = "caller"

#: Who could not load the source of an execution leaves it to others, for so many seconds.
AVOID_SECONDS = 30.0
#: The workers to be avoided are one text too, `|a||b|`.
WANTED = (
    "(avoid is null or replace(avoid, '|' || cast(:worker as text) || '|', '') = avoid"
    f" or due <= :now - {AVOID_SECONDS})"
)

CLAIM = f"""
update executions set state = 'running', worker = :worker, epoch = epoch + 1, waiting_for = null, updated = :now
where id = :id and state = 'scheduled' and due <= :now and driver is null and {WANTED}
returning {COLUMNS}"""

#: The head moves for an entry from outside; a waiting execution wakes.
WAKE = """
update executions set head = head + 1, updated = :now,
  due = case when state = 'waiting' then :now else due end,
  waiting_for = case when state = 'waiting' then null else waiting_for end,
  state = case when state = 'waiting' then 'scheduled' else state end
where id = :id and tenant = :tenant and driver is null and state <> 'ended'
  and (cast(:run_id as text) is null or run_id = :run_id)
returning head, epoch, state, run_id, pool"""

#: The pools of a worker are one text, `|a|b|`; nobody sweeps the pool of a caller.
SERVED = f"pool <> '{CALLER}' and replace(:pools, '|' || pool || '|', '') <> :pools"
#: What a worker cannot do is one text too: requests between line ends, which JSON does not hold.
FITS = "(requests is null or replace(:refused, '\n' || requests || '\n', '') = :refused)"

TIMER = f"""
update executions set state = 'scheduled', waiting_for = null, updated = :now
where state = 'waiting' and due <= :at and driver is null and {SERVED}"""

REAP = """
update executions set state = 'scheduled', worker = null, epoch = epoch + 1, failures = failures + 1,
  due = :now + :backoff, updated = :now
where state = 'running' and worker = :worker and driver is null and failures = :failures
returning id"""

HANDBACK = """
update executions set state = 'scheduled', worker = null, epoch = epoch + 1, failures = failures + :failed,
  due = :now + :backoff, updated = :now, last_error = coalesce(cast(:error as text), last_error)
where id = :id and epoch = :epoch and state = 'running'
returning id"""

FENCE_CHILDREN = "update executions set epoch = epoch + 1 where root = :id and driver is not null"


def create_session(  # noqa: PLR0913 - the columns of a row
    scope: Scope,
    *,
    id: str,
    agent: str,
    agent_version: int | None,
    definition_digest: str,
    instance: str,
    name: str,
    pool: str = "default",
    requests: str | None = None,
) -> Steps[None]:
    """A new idle session.

    :raises SessionExists: an open session has this agent, instance and name
    """
    made = yield (
        INSERT,
        {
            "id": id,
            "tenant": scope.tenant,
            "owner": scope.principal,
            "agent": agent,
            "agent_version": agent_version,
            "definition_digest": definition_digest,
            "instance": instance,
            "name": name,
            "pool": pool,
            "requests": requests,
            "usage": NOTHING_SPENT,
        },
    )
    if not made:
        raise SessionExists(f"agent {agent!r} already has an open session {name!r} for instance {instance!r}")


INSERT_WORKFLOW = """
insert into executions (id, kind, tenant, owner, workflow, source_version, name, title, state, due, head, epoch, run_id,
  pool, requests, failures, parent, root, turns, usage, created, updated)
values (:id, 'workflow', :tenant, :owner, :workflow, cast(:source_version as integer), :id, cast(:title as text),
  'scheduled', :now, 1, 0, :id, :pool, cast(:requests as text), 0, cast(:parent as text), :id, 0, :usage, :now, :now)
on conflict do nothing returning head"""


def create_workflow(
    scope: Scope,
    *,
    id: str,
    workflow: str,
    source_version: int | None,
    pool: str,
    requests: str | None = None,
    parent: str | None = None,
    title: str | None = None,
) -> Steps[bool]:
    """A new scheduled execution of a workflow, whose first entry the caller writes. False: the id exists already."""
    made = yield (
        INSERT_WORKFLOW,
        {
            "id": id,
            "tenant": scope.tenant,
            "owner": scope.principal,
            "workflow": workflow,
            "source_version": source_version,
            "pool": pool,
            "requests": requests,
            "parent": parent,
            "title": title,
            "usage": NOTHING_SPENT,
        },
    )
    return bool(made)


def claim(id: str, worker: str) -> Steps[Execution | None]:
    """Take a scheduled execution for `worker`; None when it is not to be had."""
    rows = yield CLAIM, {"id": id, "worker": worker}
    return Execution(*rows[0]) if rows else None


def wake(id: str) -> Steps[None]:
    """Wake an execution whose timer has come, of whatever pool."""
    yield (
        "update executions set state = 'scheduled', waiting_for = null, updated = :now"
        " where id = :id and state = 'waiting' and due <= :now and driver is null",
        {"id": id},
    )


def get(scope: Scope, id: str) -> Steps[Execution | None]:
    """The row of an execution of this tenant."""
    rows = yield (
        f"select {COLUMNS} from executions where id = :id and tenant = :tenant",
        {"id": id, "tenant": scope.tenant},
    )
    return Execution(*rows[0]) if rows else None


def open_children(scope: Scope, parent: str) -> Steps[list[str]]:
    """The executions that an execution started and that have not ended; what it drives is a part of itself."""
    rows = yield (
        "select id from executions where parent = :parent and tenant = :tenant and state <> 'ended'"
        " and driver is null order by created",
        {"parent": parent, "tenant": scope.tenant},
    )
    return [row[0] for row in rows]


LIST = f"""
select {COLUMNS} from executions e
where tenant = :tenant and agent is not null and owner = :owner and driver is null
  and (cast(:agent as text) is null or agent = :agent)
  and (cast(:state as text) is null or state = :state)
  and (cast(:instance as text) is null or instance = :instance)
  and (cast(:q as text) is null or lower(title) like lower(:q) escape '\\' or exists (
    select 1 from events v where v.execution_id = e.id and lower(v.words) like lower(:q) escape '\\'))
  and (cast(:created as double precision) is null or created < :created or (created = :created and id < :after))
order by created desc, id desc limit :limit"""


def list_sessions(
    scope: Scope,
    *,
    agent: str | None = None,
    state: str | None = None,
    instance: str | None = None,
    q: str | None = None,
    after: tuple[float, str] | None = None,
    limit: int = 50,
) -> Steps[list[Execution]]:
    """The scope's sessions, newest first, but for driven ones; `after` is the (created, id) of the last row seen."""
    parameters: dict[str, Any] = {
        "tenant": scope.tenant,
        "owner": scope.principal,
        "agent": agent,
        "state": state,
        "instance": instance,
        "q": None if q is None else f"%{_like(q)}%",
        "created": after[0] if after else None,
        "after": after[1] if after else None,
        "limit": limit,
    }
    rows = yield LIST, parameters
    return [Execution(*row) for row in rows]


#: States in the words of users, as conditions on rows.
SHOWN_STATES = {
    "SCHEDULED": "state = 'scheduled' and epoch = 0",
    "RESUMING": "state = 'scheduled' and epoch > 0",
    "RUNNING": "state = 'running'",
    "PAUSED": "state in ('idle', 'waiting')",
    "COMPLETED": "state = 'ended' and outcome = 'completed'",
    "FAILED": "state = 'ended' and outcome = 'failed'",
    "CANCELLED": "state = 'ended' and coalesce(outcome, 'cancelled') = 'cancelled'",
}


def list_executions(
    scope: Scope,
    *,
    workflow: str | None = None,
    agent: str | None = None,
    state: str | None = None,
    after: tuple[float, str] | None = None,
    limit: int = 50,
) -> Steps[list[Execution]]:
    """The scope's executions of every kind but for what others drive, newest first; `state` is one of SHOWN_STATES."""
    condition = SHOWN_STATES[state] if state else "1 = 1"
    rows = yield (
        f"select {COLUMNS} from executions where tenant = :tenant and owner = :owner and driver is null and {condition}"
        " and (cast(:workflow as text) is null or coalesce(workflow, 'agents/agent_chat') = :workflow)"
        " and (cast(:agent as text) is null or agent = :agent)"
        " and (cast(:created as double precision) is null or created < :created"
        " or (created = :created and id < :after))"
        " order by created desc, id desc limit :limit",
        {
            "tenant": scope.tenant,
            "owner": scope.principal,
            "workflow": workflow,
            "agent": agent,
            "created": after[0] if after else None,
            "after": after[1] if after else None,
            "limit": limit,
        },
    )
    return [Execution(*row) for row in rows]


def set_title(scope: Scope, id: str, title: str) -> Steps[bool]:
    """Rename a session."""
    rows = yield (
        "update executions set title = :title, updated = :now where id = :id and tenant = :tenant returning id",
        {"id": id, "tenant": scope.tenant, "title": title},
    )
    return bool(rows)


def delete(scope: Scope, id: str) -> Steps[bool]:
    """Remove a session that has ended, or in which nothing was ever said, with all it drove and left behind."""
    rows = yield (
        "delete from executions where id = :id and tenant = :tenant and driver is null"
        " and (state = 'ended' or (state = 'idle' and head <= 1)) returning id",
        {"id": id, "tenant": scope.tenant},
    )
    if rows:
        yield from delete_rest(id)
    return bool(rows)


def delete_rest(root: str) -> Steps[None]:
    """Remove what an execution that is gone drove, and what all of them left behind."""
    rows = yield "delete from executions where root = :root and driver is not null returning id", {"root": root}
    for id in (root, *(row[0] for row in rows)):
        for table in ("events", "interrupts", "grants", "admissions", "waits", "artifacts"):
            yield f"delete from {table} where execution_id = :id", {"id": id}


def sweep(
    pools: Sequence[str], limit: int, fits: Callable[[str], bool] = bool, worker: str = ""
) -> Steps[tuple[list[str], float | None]]:
    """Wake timers; the ids that `worker` may claim now, oldest first, and seconds until the next timer.

    `fits` says of the requests of an execution whether they can be met here; others are left out.
    """
    rows: list[Row] = yield "select :now", {}
    at = rows[0][0]
    served = {"pools": joined(pools), "at": at}
    yield TIMER, served
    refused = yield from _refused(fits)
    rows = yield CLAIMABLE, {**served, "refused": refused, "worker": worker, "limit": limit}
    ids = [row[0] for row in rows]
    rows = yield NEXT_SCHEDULED, {**served, "refused": refused}
    scheduled = rows[0][0]
    rows = yield NEXT_WAITING, served
    next_at = min((due for due in (scheduled, rows[0][0]) if due is not None), default=None)
    return ids, None if next_at is None else next_at - at


def _refused(fits: Callable[[str], bool]) -> Steps[str]:
    """What executions that are scheduled ask for and cannot get here."""
    rows = yield "select distinct requests from executions where state = 'scheduled' and requests is not null", {}
    refused = [row[0] for row in rows if not fits(row[0])]
    return "".join(f"\n{requests}\n" for requests in refused)


def joined(pools: Sequence[str]) -> str:
    """Pools as the statements take them."""
    return "".join(f"|{pool}|" for pool in pools)


CLAIMABLE = f"""
select id from executions where state = 'scheduled' and due <= :at and {SERVED} and {FITS} and {WANTED}
order by due limit :limit"""

NEXT_SCHEDULED = f"select min(due) from executions where state = 'scheduled' and due > :at and {SERVED} and {FITS}"

NEXT_WAITING = f"select min(due) from executions where state = 'waiting' and due > :at and {SERVED}"


class Owned(Struct, frozen=True):
    """A running execution of one worker."""

    id: str
    pool: str
    epoch: int
    failures: int


class Look(Struct, frozen=True):
    """What there is to do: whether something may be claimed, who owns runs, and what `worker` itself owns.

    `owners` has the other workers, each with whether it has been silent for too long. `draining`: somebody asked
    this worker to stop.
    """

    work: bool
    owners: dict[str, bool]
    own: list[Owned]
    draining: bool = False


OWNERS = """
select e.worker, coalesce(max(w.seen), 0) <= :now - :dead_after from executions e left join workers w on w.id = e.worker
where e.state = 'running' and e.driver is null group by e.worker"""

WORK = f"""
select exists (select 1 from executions where state = 'scheduled' and due <= :now and {SERVED} and {WANTED})
  or exists (
    select 1 from executions
    where state = 'waiting' and due is not null and due <= :now and driver is null and {SERVED}),
  (select state from workers where id = cast(:worker as text))"""

OWNED = (
    "select id, pool, epoch, failures from executions where state = 'running' and worker = :worker and driver is null"
)


def look(pools: Sequence[str], worker: str, dead_after: float) -> Steps[Look]:
    """See what there is to do for `worker`; who was not heard of for `dead_after` seconds is silent."""
    rows = yield WORK, {"pools": joined(pools), "worker": worker}
    work, draining = bool(rows[0][0]), rows[0][1] == "draining"
    rows = yield OWNERS, {"dead_after": dead_after}
    owners: dict[str, bool] = {row[0]: bool(row[1]) for row in rows}
    own: list[Row] = []
    if owners.pop(worker, None) is not None:
        own = yield OWNED, {"worker": worker}
    return Look(work, owners, [Owned(*row) for row in own], draining)


def reap(worker: str, backoffs: tuple[float, ...]) -> Steps[list[str]]:
    """Hand back what a dead worker was running; `backoffs[n]` in seconds after n earlier failures."""
    # Two that take over from the same worker do it one after the other: they could lock its rows in different orders.
    yield "update workers set state = state where id = :worker", {"worker": worker}
    rows = yield (
        "select distinct failures from executions where state = 'running' and worker = :worker and driver is null"
        " order by failures",
        {"worker": worker},
    )
    reaped: list[str] = []
    for (failures,) in rows:
        backoff = backoffs[min(failures, len(backoffs) - 1)]
        ids = yield REAP, {"worker": worker, "failures": failures, "backoff": backoff}
        reaped += [row[0] for row in ids]
    for id in reaped:
        yield FENCE_CHILDREN, {"id": id}
    return reaped


def hand_back(id: str, epoch: int, *, failed: bool, backoff: float, error: str | None = None) -> Steps[bool]:
    """Give up a running execution; it is scheduled again after `backoff` seconds. False: it was not ours."""
    rows = yield HANDBACK, {"id": id, "epoch": epoch, "failed": int(failed), "backoff": backoff, "error": error}
    if rows:
        yield FENCE_CHILDREN, {"id": id}
    return bool(rows)


def _like(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
