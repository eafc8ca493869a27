"""The audit log: who decided, changed, started or read what. It is added to and read, never changed."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from flux import redaction
from flux.store.database import Scope, Steps

T = TypeVar("T")


class Act(Struct, frozen=True):
    """What somebody did. `at` in seconds since the epoch; `action` reads NOUN.VERB; `details` is JSON."""

    id: str
    at: float
    principal: str
    action: str
    subject: str
    details: str


COLUMNS = ", ".join(Act.__struct_fields__)

RECORD = """
insert into audit (id, tenant, at, principal, action, subject, details)
values (:id, :tenant, :now, :principal, :action, :subject, :details)"""

PAGE = f"""
select {COLUMNS} from audit
where tenant = :tenant
  and (cast(:action as text) is null or action = :action or substr(action, 1, length(:action) + 1) = :action || '.')
  and (cast(:principal as text) is null or principal = :principal)
  and (cast(:subject as text) is null or subject = :subject)
  and (cast(:since as double precision) is null or at >= :since)
  and (cast(:at as double precision) is null or at < :at or (at = :at and id < :id))
order by at desc, id desc limit :limit"""


def record(scope: Scope, action: str, subject: str, details: Mapping[str, Any] | None = None) -> Steps[None]:
    """Note what the principal did, in the transaction in which it is done."""
    yield (
        RECORD,
        {
            "id": str(uuid.uuid4()),
            "tenant": scope.tenant,
            "principal": scope.principal,
            "action": action,
            "subject": redaction.text(subject),
            "details": msgspec.json.encode(redaction.value(dict(details or {}))).decode(),
        },
    )


def noted(
    scope: Scope, program: Steps[T], action: str, subject: str, details: Mapping[str, Any] | None = None
) -> Steps[T]:
    """A program, and a note of it; what the program raises undoes both."""
    done = yield from program
    yield from record(scope, action, subject, details)
    return done


def noted_if(
    scope: Scope, program: Steps[T], action: str, subject: str, details: Mapping[str, Any] | None = None
) -> Steps[T]:
    """A program, and a note of it where it did something."""
    done = yield from program
    if done:
        yield from record(scope, action, subject, details)
    return done


def page(
    scope: Scope,
    *,
    action: str | None = None,
    principal: str | None = None,
    subject: str | None = None,
    since: float | None = None,
    before: tuple[float, str] | None = None,
    limit: int = 50,
) -> Steps[list[Act]]:
    """Acts, newest first, behind `before` (time and id). `action` is a whole one, or a noun: all of its verbs."""
    rows = yield (
        PAGE,
        {
            "tenant": scope.tenant,
            "action": action,
            "principal": principal,
            "subject": subject,
            "since": since,
            "at": before[0] if before else None,
            "id": before[1] if before else "",
            "limit": limit,
        },
    )
    return [Act(*row) for row in rows]
