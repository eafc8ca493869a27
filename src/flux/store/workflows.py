"""Registered workflows: a current version per namespace and name, every version kept for what began with it."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from flux.errors import WorkflowNotFound
from flux.store.database import NEWEST, Scope, Steps

#: The namespace of workflows that talk for agents, and the name there that stands for agents without one.
AGENTS = "agents"
AGENT_CHAT = "agent_chat"


class WorkflowVersion(Struct, frozen=True):
    """One version of a workflow: the whole file it was found in, and its options as JSON.

    Lists, and who asks so, leave `source` empty. `created` in seconds since the epoch.
    """

    namespace: str
    name: str
    version: int
    digest: str
    source: str
    options: str
    author: str
    created: float

    @property
    def qualified_name(self) -> str:
        """The name with its namespace: "namespace/name"."""
        return f"{self.namespace}/{self.name}"

    @property
    def declared(self) -> str:
        """What its file calls it: the same, unless it talks for an agent, whose name it has then."""
        return str(msgspec.json.decode(self.options).get("declared", self.qualified_name))

    @property
    def of_agent(self) -> bool:
        """Whether it talks for an agent."""
        return "declared" in msgspec.json.decode(self.options)


COLUMNS = "v.namespace, v.name, v.version, v.digest, v.source, v.options, v.author, v.created"
LISTED = COLUMNS.replace("v.source", "''")
ONE = "v.tenant = :tenant and v.namespace = :namespace and v.name = :name"
CURRENT = """
from workflows w join workflow_versions v
  on v.tenant = w.tenant and v.namespace = w.namespace and v.name = w.name and v.version = w.version
where w.tenant = :tenant"""

LIST = f"""
select {LISTED} {CURRENT} and (cast(:namespace as text) is null or w.namespace = :namespace)
  and (w.namespace > :after_namespace or (w.namespace = :after_namespace and w.name > :after_name))
order by w.namespace, w.name limit :limit"""

LOCK = """
update workflows set updated = updated where tenant = :tenant and namespace = :namespace and name = :name
returning name"""
TAKE_NAME = """
insert into workflows (tenant, namespace, name, version, created, updated)
values (:tenant, :namespace, :name, 0, :now, :now) on conflict do nothing returning name"""
ADD_VERSION = """
insert into workflow_versions (tenant, namespace, name, version, digest, source, options, author, created)
select :tenant, :namespace, :name, 1 + coalesce(max(version), 0), :digest, :source, :options, :author, :now
from workflow_versions where tenant = :tenant and namespace = :namespace and name = :name
returning namespace, name, version, digest, source, options, author, created"""
SET_CURRENT = """
update workflows set version = :version, updated = :now
where tenant = :tenant and namespace = :namespace and name = :name"""
DELETE = "delete from workflows where tenant = :tenant and namespace = :namespace and name = :name returning name"


def get(
    scope: Scope, namespace: str, name: str, version: int | None = None, *, source: bool = True
) -> Steps[WorkflowVersion | None]:
    """The current version of a workflow, or the one asked for, also of a workflow that was deleted since."""
    if version is not None:
        return (yield from get_version(scope, namespace, name, version, source=source))
    rows = yield (
        f"select {COLUMNS if source else LISTED} {CURRENT} and w.namespace = :namespace and w.name = :name",
        _key(scope, namespace, name),
    )
    return WorkflowVersion(*rows[0]) if rows else None


def get_version(
    scope: Scope, namespace: str, name: str, version: int, *, source: bool = True
) -> Steps[WorkflowVersion | None]:
    """One version, also of a workflow that was deleted since."""
    rows = yield (
        f"select {COLUMNS if source else LISTED} from workflow_versions v where {ONE} and v.version = :version",
        _key(scope, namespace, name) | {"version": version},
    )
    return WorkflowVersion(*rows[0]) if rows else None


def list_current(
    scope: Scope, namespace: str | None = None, after: tuple[str, str] = ("", ""), limit: int = 50
) -> Steps[list[WorkflowVersion]]:
    """Workflows by namespace and name, behind `after`, without their sources."""
    rows = yield (
        LIST,
        {
            "tenant": scope.tenant,
            "namespace": namespace,
            "after_namespace": after[0],
            "after_name": after[1],
            "limit": limit,
        },
    )
    return [WorkflowVersion(*row) for row in rows]


def versions(
    scope: Scope, namespace: str, name: str, before: int = NEWEST, limit: int = 50
) -> Steps[list[WorkflowVersion]]:
    """The versions of a workflow below `before`, newest first, without their sources."""
    rows = yield (
        f"select {LISTED} from workflow_versions v where {ONE} and v.version < :before"
        " order by v.version desc limit :limit",
        _key(scope, namespace, name) | {"before": before, "limit": limit},
    )
    return [WorkflowVersion(*row) for row in rows]


def put(scope: Scope, namespace: str, name: str, *, digest: str, source: str, options: str) -> Steps[WorkflowVersion]:
    """Store a source as the newest version of a workflow; the same source again changes nothing."""
    key = _key(scope, namespace, name)
    locked = yield LOCK, key
    current = (yield from get(scope, namespace, name)) if locked else None
    if current and current.digest == digest:
        return current
    if current is None:
        made = yield TAKE_NAME, key
        if not made:  # somebody else was faster
            return (yield from put(scope, namespace, name, digest=digest, source=source, options=options))
    given = {"digest": digest, "source": source, "options": options, "author": scope.principal}
    rows = yield ADD_VERSION, key | given
    stored = WorkflowVersion(*rows[0])
    yield SET_CURRENT, key | {"version": stored.version}
    return stored


def delete(scope: Scope, namespace: str, name: str) -> Steps[None]:
    """Remove a workflow; its versions stay for the executions that use them.

    :raises WorkflowNotFound: there is no such workflow
    """
    if not (yield from drop(scope, namespace, name)):
        raise not_found(namespace, name)


def drop(scope: Scope, namespace: str, name: str) -> Steps[bool]:
    """The same, and no error when there is no such workflow: False."""
    return bool((yield DELETE, _key(scope, namespace, name)))


def of_digest(scope: Scope, namespace: str, name: str, digest: str) -> Steps[WorkflowVersion | None]:
    """The newest version with this source, without it; also of a workflow that was deleted since."""
    rows = yield (
        f"select {LISTED} from workflow_versions v where {ONE} and v.digest = :digest order by v.version desc limit 1",
        _key(scope, namespace, name) | {"digest": digest},
    )
    return WorkflowVersion(*rows[0]) if rows else None


def not_found(namespace: str, name: str) -> WorkflowNotFound:
    """The error of a workflow that is not there."""
    return WorkflowNotFound(f"there is no workflow {namespace}/{name}; `flux workflow list` shows those that exist")


def _key(scope: Scope, namespace: str, name: str) -> dict[str, object]:
    return {"tenant": scope.tenant, "namespace": namespace, "name": name}
