"""Webhooks: where a tenant wants to hear of its sessions, and what is still to be told.

A delivery is written by the transaction that does what it tells of, so none is lost and none tells of what never was.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
from msgspec import Struct

from flux.errors import WebhookExists
from flux.events import ChatResponse, CompactDone, RunEnd, RunFailed
from flux.store.database import Row, Scope, Steps

Happening = Literal["session.waiting", "run.finished", "run.failed"]
DeliveryState = Literal["pending", "delivered", "failed"]


class Webhook(Struct, frozen=True):
    """A place to tell. `events` are their names with a blank between; `agent` None: of every agent."""

    id: str
    tenant: str
    owner: str
    name: str
    url: str
    events: str
    agent: str | None
    created: float

    @property
    def scope(self) -> Scope:
        """On whose behalf it is told."""
        return Scope(self.tenant, self.owner)


class Delivery(Struct, frozen=True):
    """Something to tell. `due`, `created` and `updated` in seconds since the epoch; `status` is the receiver's last."""

    id: str
    webhook_id: str
    tenant: str
    execution_id: str
    type: str
    body: str
    state: DeliveryState
    attempts: int
    due: float
    status: int | None
    error: str | None
    created: float
    updated: float


COLUMNS = ", ".join(Webhook.__struct_fields__)
OF_HOOK = "w." + ", w.".join(Webhook.__struct_fields__)
OF_DELIVERY = "d." + ", d.".join(Delivery.__struct_fields__)
#: What people are waited for; a session may wait for a time, or for its next message, besides.
FOR_PEOPLE = frozenset({"approval", "elicitation", "input", "plan", "pause"})
#: What is over is shown so long, in seconds.
KEPT_SECONDS = 30 * 86_400.0

CREATE = f"""
insert into webhooks ({COLUMNS})
values (:id, :tenant, :owner, :name, :url, :events, cast(:agent as text), :now)
on conflict do nothing returning {COLUMNS}"""

#: Who hears of something: the webhooks of the tenant, unless the execution is a part of another.
HEARERS = """
select w.id, w.events, e.agent, e.instance, e.name, :now from executions e join webhooks w on w.tenant = e.tenant
where e.id = :id and e.tenant = :tenant and e.agent is not null and e.driver is null
  and (w.agent is null or w.agent = e.agent)"""

QUESTIONS = "select id from interrupts where (execution_id = :id or root = :id) and state = 'open' order by created, id"

NOTE = """
insert into webhook_deliveries
  (id, webhook_id, tenant, execution_id, type, body, state, attempts, due, created, updated)
values (:delivery, :webhook, :tenant, :id, :type, :body, 'pending', 0, :now, :now, :now)
on conflict do nothing"""

#: One statement: what becomes due between two looks at the clock would be in neither.
OUTLOOK = """
select
  (select count(*) from (
    select 1 from webhook_deliveries where state = 'pending' and due <= :now limit :limit) d),
  (select min(due) - :now from webhook_deliveries where state = 'pending' and due > :now)"""

#: Taken by moving its time: whoever sees it meanwhile finds it is not due. If its taker dies, it becomes due again.
CLAIM = f"""
update webhook_deliveries as d set attempts = attempts + 1, due = :now + :lease, updated = :now
where d.state = 'pending' and d.due <= :now and d.id in (
  select id from webhook_deliveries where state = 'pending' and due <= :now order by due limit :limit)
returning {", ".join(Delivery.__struct_fields__)}"""

SETTLE = """
update webhook_deliveries set state = :state, due = case when :state = 'pending' then :now + :wait else due end,
  status = cast(:status as integer), error = cast(:error as text), updated = :now
where id = :id and state = 'pending' and attempts = :attempts"""

FORGET = """
delete from webhook_deliveries
where webhook_id = :webhook and state <> 'pending' and created < :now - :seconds"""

REDELIVER = f"""
update webhook_deliveries as d set state = 'pending', attempts = 0, due = :now, error = null, updated = :now
where d.id = :delivery and d.tenant = :tenant
  and d.webhook_id = (select id from webhooks where tenant = :tenant and name = :name)
returning {", ".join(Delivery.__struct_fields__)}"""

PAGE = f"""
select {OF_DELIVERY} from webhook_deliveries d join webhooks w on w.id = d.webhook_id
where w.tenant = :tenant and w.name = :name and (cast(:state as text) is null or d.state = :state)
  and (cast(:created as double precision) is null or d.created < :created
    or (d.created = :created and d.id < :after))
order by d.created desc, d.id desc limit :limit"""


def create(scope: Scope, id: str, name: str, url: str, events: str, agent: str | None) -> Steps[Webhook]:
    """Store a new webhook.

    :raises WebhookExists: the name is taken
    """
    told = {"id": id, "tenant": scope.tenant, "owner": scope.principal, "name": name}
    rows = yield CREATE, told | {"url": url, "events": events, "agent": agent}
    if not rows:
        raise WebhookExists(f"a webhook {name!r} exists already; delete it first, or give another name")
    return Webhook(*rows[0])


def get(scope: Scope, name: str) -> Steps[Webhook | None]:
    """A webhook of this tenant."""
    rows = yield (
        f"select {COLUMNS} from webhooks where tenant = :tenant and name = :name",
        {"tenant": scope.tenant, "name": name},
    )
    return Webhook(*rows[0]) if rows else None


def page(scope: Scope, after: str = "", limit: int = 50) -> Steps[list[Webhook]]:
    """Webhooks by name, behind `after`."""
    rows = yield (
        f"select {COLUMNS} from webhooks where tenant = :tenant and name > :after order by name limit :limit",
        {"tenant": scope.tenant, "after": after, "limit": limit},
    )
    return [Webhook(*row) for row in rows]


def delete(scope: Scope, name: str) -> Steps[Webhook | None]:
    """Remove a webhook with all that it was told, and was still to be told; what was removed."""
    rows = yield (
        f"delete from webhooks where tenant = :tenant and name = :name returning {COLUMNS}",
        {"tenant": scope.tenant, "name": name},
    )
    for row in rows:
        yield "delete from webhook_deliveries where webhook_id = :id", {"id": row[0]}
    return Webhook(*rows[0]) if rows else None


def note_end(scope: Scope, id: str, run: str | None, head: int, end: RunEnd) -> Steps[int]:
    """Write that a run has ended, in the transaction that ends it; how many are told."""
    told: dict[str, Any] = {"run": run, "seq": head}
    match end:
        case RunFailed():
            told |= {"outcome": "failed", "error": end.message, "retryable": end.retryable}
            return (yield from note(scope, id, "run.failed", str(head), told))
        case ChatResponse():
            if not end.turn:  # a greeting, which nobody has asked for
                return 0
            told |= {"outcome": "completed", "turn": end.turn}
        case CompactDone():  # no answer to anything that was said
            return 0
        case _:
            told |= {"outcome": "cancelled"}
    return (yield from note(scope, id, "run.finished", str(head), told))


def note_waiting(scope: Scope, id: str, run: str | None, head: int, waiting_for: str | None) -> Steps[int]:
    """Write that a session waits for a person, in the transaction that parks it; how many are told."""
    if waiting_for not in FOR_PEOPLE:
        return 0
    told = {"run": run, "seq": head, "waiting_for": waiting_for}
    return (yield from note(scope, id, "session.waiting", str(head), told))


def note(scope: Scope, id: str, type: Happening, key: str, data: dict[str, Any]) -> Steps[int]:
    """Write what is to be told of a session, in the transaction in which it happens; how many are told.

    `key` tells one such happening of the session from another; `data` goes into the message.
    """
    hearers = yield HEARERS, {"id": id, "tenant": scope.tenant}
    hearers = [row for row in hearers if type in row[1].split()]
    if not hearers:
        return 0
    if type == "session.waiting":
        questions = yield QUESTIONS, {"id": id}
        data = data | {"interrupts": [row[0] for row in questions]}
    for webhook, _, agent, instance, name, now in hearers:
        place = {"session": id, "agent": agent, "instance": instance, "name": name}
        yield (
            NOTE,
            {
                "delivery": f"msg_{uuid.uuid5(uuid.NAMESPACE_OID, f'{webhook}/{id}/{type}/{key}').hex}",
                "webhook": webhook,
                "tenant": scope.tenant,
                "id": id,
                "type": type,
                "body": _body(type, now, place | data),
            },
        )
    return len(hearers)


def outlook(limit: int) -> Steps[tuple[int, float | None]]:
    """How many deliveries of all tenants are due, `limit` at most; and seconds until the next one that is not."""
    rows: list[Row] = yield OUTLOOK, {"limit": limit}
    due, seconds = rows[0]
    return due, None if seconds is None else float(seconds)


def claim(limit: int, lease: float) -> Steps[list[tuple[Delivery, Webhook]]]:
    """Take deliveries that are due, of all tenants, for so many seconds; each with its webhook."""
    taken = [Delivery(*row) for row in (yield CLAIM, {"limit": limit, "lease": lease})]
    found: list[tuple[Delivery, Webhook]] = []
    for delivery in taken:
        rows = yield f"select {OF_HOOK} from webhooks w where w.id = :id", {"id": delivery.webhook_id}
        found += [(delivery, Webhook(*row)) for row in rows]
    return found


def settle(
    delivery: Delivery, state: DeliveryState, *, status: int | None, error: str | None, wait: float = 0.0
) -> Steps[None]:
    """Write what became of an attempt, unless there was a later one; if it is pending, it is due in `wait` seconds."""
    told = {"id": delivery.id, "attempts": delivery.attempts, "state": state, "wait": wait}
    yield SETTLE, told | {"status": status, "error": error}
    yield FORGET, {"webhook": delivery.webhook_id, "seconds": KEPT_SECONDS}


def deliveries(
    scope: Scope, name: str, *, state: str | None = None, after: tuple[float, str] | None = None, limit: int = 50
) -> Steps[list[Delivery]]:
    """What a webhook was told and is to be told, newest first; `after` is the (created, id) of the last one seen."""
    place = {"created": after[0] if after else None, "after": after[1] if after else None, "limit": limit}
    rows = yield PAGE, {"tenant": scope.tenant, "name": name, "state": state, **place}
    return [Delivery(*row) for row in rows]


def redeliver(scope: Scope, name: str, delivery: str) -> Steps[Delivery | None]:
    """Let something be told again, whatever became of it; None: there is none."""
    rows = yield REDELIVER, {"tenant": scope.tenant, "name": name, "delivery": delivery}
    return Delivery(*rows[0]) if rows else None


def _body(type: Happening, now: float, data: dict[str, Any]) -> str:
    at = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return msgspec.json.encode({"type": type, "timestamp": at, "data": data}).decode()
