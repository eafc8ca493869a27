"""Rows of executions: create, claim, look up, list, and hand back."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import Struct

from flux.errors import SessionExists
from flux.messages import Usage
from flux.store import artifacts, files
from flux.store.database import Scope, Steps, visible_to

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

#: The head moves for an entry from outside; a waiting execution wakes.
WAKE = """
update executions set head = head + 1, updated = :now,
  due = case when state = 'waiting' then :now else due end,
  waiting_for = case when state = 'waiting' then null else waiting_for end,
  state = case when state = 'waiting' then 'scheduled' else state end
where id = :id and tenant = :tenant and driver is null and state <> 'ended'
  and (cast(:run_id as text) is null or run_id = :run_id)
returning head, epoch, state, run_id, pool"""


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
where tenant = :tenant and agent is not null and {{visible}} and driver is null
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
        "agent": agent,
        "state": state,
        "instance": instance,
        "q": None if q is None else f"%{_like(q)}%",
        "created": after[0] if after else None,
        "after": after[1] if after else None,
        "limit": limit,
    }
    visible = visible_to(scope, parameters)
    rows = yield LIST.format(visible=visible), parameters
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
    parameters: dict[str, Any] = {}
    visible = visible_to(scope, parameters)
    rows = yield (
        f"select {COLUMNS} from executions where tenant = :tenant and {visible} and driver is null and {condition}"
        " and (cast(:workflow as text) is null or coalesce(workflow, 'agents/agent_chat') = :workflow)"
        " and (cast(:agent as text) is null or agent = :agent)"
        " and (cast(:created as double precision) is null or created < :created"
        " or (created = :created and id < :after))"
        " order by created desc, id desc limit :limit",
        parameters
        | {
            "tenant": scope.tenant,
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
        yield from delete_left(id)


def delete_left(id: str) -> Steps[None]:
    """Remove what an execution that is gone left behind."""
    for table in ("events", "interrupts", "grants", "admissions", "waits"):
        yield f"delete from {table} where execution_id = :id", {"id": id}
    yield from artifacts.delete_all(id)
    yield from files.delete_all(id)


def _like(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def waiting(limit: int) -> Steps[int]:
    """How many executions of all tenants wait for a worker, counted up to `limit`."""
    rows = yield (
        "select count(*) from (select 1 from executions where state = 'scheduled' limit :limit) as waiting",
        {"limit": limit},
    )
    return int(rows[0][0])


def under_way(scope: Scope, limit: int) -> Steps[int]:
    """How many runs of the principal are scheduled or running, counted up to `limit`."""
    rows = yield (
        "select count(*) from (select 1 from executions where (state = 'scheduled' or state = 'running')"
        " and tenant = :tenant and owner = :owner and driver is null limit :limit) as under_way",
        {"tenant": scope.tenant, "owner": scope.principal, "limit": limit},
    )
    return int(rows[0][0])
