"""Durable questions to people, and standing grants."""

from __future__ import annotations

import hashlib
import uuid
from typing import Any

import msgspec
from msgspec import Struct

from flux import redaction
from flux.store.database import Scope, Steps, visible_to


class Interrupt(Struct, frozen=True):
    """One question. `payload` and `answer` are JSON; times in seconds since the epoch."""

    id: str
    execution_id: str
    root: str
    call: str | None
    kind: str
    payload: str
    digest: str
    state: str
    answer: str | None
    answered_by: str | None
    expires_at: float | None
    created: float


COLUMNS = ", ".join(Interrupt.__struct_fields__)
OURS = "exists (select 1 from executions where id = :execution_id and tenant = :tenant)"
FIELDS = "i." + ", i.".join(Interrupt.__struct_fields__)


def payload_of(interrupt: Interrupt) -> dict[str, Any]:
    """What is asked, as a dictionary."""
    found: dict[str, Any] = msgspec.json.decode(interrupt.payload)
    return found


def interrupt_id(session: str, call: str, n: int = 0) -> str:
    """The id of the n-th question of a call; the same for a repeat, so that none is asked twice."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{session}/{call}/{n}"))


def digest_of(tool: str, args: dict[str, Any]) -> str:
    """What an approval is bound to: the tool and exactly these arguments."""
    canonical = msgspec.json.encode([tool, args], order="sorted")
    return hashlib.sha256(canonical).hexdigest()[:32]


def open_interrupt(
    scope: Scope,
    *,
    id: str,
    execution_id: str,
    call: str | None,
    kind: str,
    payload: Any,
    digest: str = "",
    expires_at: float | None = None,
) -> Steps[None]:
    """Open a question; repeating it changes nothing."""
    yield (
        "insert into interrupts (id, execution_id, root, call, kind, payload, digest, state, expires_at, created)"
        " select :id, e.id, e.root, cast(:call as text), :kind, :payload, :digest, 'open',"
        " cast(:expires_at as double precision), :now from executions e"
        " where e.id = :execution_id and e.tenant = :tenant"
        " on conflict do nothing",
        {
            "id": id,
            "execution_id": execution_id,
            "tenant": scope.tenant,
            "call": call,
            "kind": kind,
            "payload": msgspec.json.encode(redaction.struct(payload)).decode(),
            "digest": digest,
            "expires_at": expires_at,
        },
    )


def answer(scope: Scope, execution_id: str, id: str, *, answer: Any, by: str) -> Steps[bool]:
    """Answer an open question; False when it is not open. `answer` is stored as JSON."""
    rows = yield (
        "update interrupts set state = 'answered', answer = :answer, answered_by = :by"
        f" where id = :id and execution_id = :execution_id and state = 'open' and {OURS} returning id",
        {
            "id": id,
            "execution_id": execution_id,
            "tenant": scope.tenant,
            "answer": msgspec.json.encode(answer).decode(),
            "by": by,
        },
    )
    return bool(rows)


def get(scope: Scope, execution_id: str, id: str) -> Steps[Interrupt | None]:
    """One question of an execution or, of a root, of one that it drives."""
    rows = yield (
        f"select {FIELDS} from interrupts i join executions e on e.id = i.execution_id"
        " where i.id = :id and (i.execution_id = :execution_id or i.root = :execution_id) and e.tenant = :tenant",
        {"id": id, "execution_id": execution_id, "tenant": scope.tenant},
    )
    return Interrupt(*rows[0]) if rows else None


def find(scope: Scope, id: str) -> Steps[Interrupt | None]:
    """One question of the tenant, whoever asked it."""
    rows = yield (
        f"select {FIELDS} from interrupts i join executions e on e.id = i.execution_id"
        " where i.id = :id and e.tenant = :tenant",
        {"id": id, "tenant": scope.tenant},
    )
    return Interrupt(*rows[0]) if rows else None


def list_open(scope: Scope, execution_id: str) -> Steps[list[Interrupt]]:
    """The open questions of an execution and, of a root, of all that it drives; oldest first."""
    rows = yield (
        f"select {FIELDS} from interrupts i join executions e on e.id = i.execution_id"
        " where (i.execution_id = :execution_id or i.root = :execution_id) and i.state = 'open'"
        " and e.tenant = :tenant order by i.created, i.id",
        {"execution_id": execution_id, "tenant": scope.tenant},
    )
    return [Interrupt(*row) for row in rows]


def list_all_open(scope: Scope, limit: int = 1000) -> Steps[list[Interrupt]]:
    """The open questions of all that the scope owns, oldest first."""
    rows = yield (
        f"select {FIELDS} from interrupts i join executions e on e.id = i.execution_id"
        " where i.state = 'open' and e.tenant = :tenant and e.owner = :owner order by i.created, i.id limit :limit",
        {"tenant": scope.tenant, "owner": scope.principal, "limit": limit},
    )
    return [Interrupt(*row) for row in rows]


def list_approvals(
    scope: Scope, *, execution: str | None, state: str | None, after: tuple[float, str] | None, limit: int
) -> Steps[list[Interrupt]]:
    """Approvals of the scope's executions, or of one and all that it drives, newest first.

    `state` is open, approved, rejected, or any other of a row.
    """
    conditions = {
        "approved": 'i.answer like \'{"decision":"approve"%\'',
        "rejected": 'i.answer like \'{"decision":"reject"%\'',
    }
    condition = conditions.get(state or "", "(cast(:state as text) is null or i.state = :state)")
    parameters: dict[str, Any] = {}
    visible = visible_to(scope, parameters, "e.")
    rows = yield (
        f"select {FIELDS} from interrupts i join executions e on e.id = i.execution_id"
        f" where i.kind = 'approval' and e.tenant = :tenant and {visible} and {condition}"
        " and (cast(:execution as text) is null or i.execution_id = :execution or i.root = :execution)"
        " and (cast(:created as double precision) is null or i.created < :created"
        " or (i.created = :created and i.id < :after)) order by i.created desc, i.id desc limit :limit",
        parameters
        | {
            "tenant": scope.tenant,
            "execution": execution,
            "state": state,
            "created": after[0] if after else None,
            "after": after[1] if after else None,
            "limit": limit,
        },
    )
    return [Interrupt(*row) for row in rows]


def expire(scope: Scope, execution_id: str, id: str) -> Steps[bool]:
    """Close an open question whose time is over; False when it was answered meanwhile."""
    rows = yield (
        "update interrupts set state = 'expired' where id = :id and execution_id = :execution_id"
        f" and state = 'open' and {OURS} returning id",
        {"id": id, "execution_id": execution_id, "tenant": scope.tenant},
    )
    return bool(rows)


def grant(scope: Scope, execution_id: str, tool: str, by: str) -> Steps[None]:
    """Let a tool run in this session without asking again."""
    yield (
        "insert into grants (execution_id, tool, by)"
        " select id, cast(:tool as text), cast(:by as text) from executions"
        " where id = :execution_id and tenant = :tenant on conflict do nothing",
        {"execution_id": execution_id, "tenant": scope.tenant, "tool": tool, "by": by},
    )


def grants(scope: Scope, execution_id: str) -> Steps[frozenset[str]]:
    """The tools that run without asking in this session."""
    rows = yield (
        f"select tool from grants where execution_id = :execution_id and {OURS}",
        {"execution_id": execution_id, "tenant": scope.tenant},
    )
    return frozenset(row[0] for row in rows)
