"""Stored agents: a current version per name, every version kept for the sessions that began with it."""

from __future__ import annotations

from msgspec import Struct

from flux.errors import AgentExists, AgentNotFound
from flux.store.database import NEWEST, Scope, Steps


class AgentVersion(Struct, frozen=True):
    """One version of a definition. `definition` is JSON; `created` in seconds since the epoch."""

    name: str
    version: int
    digest: str
    definition: str
    author: str
    created: float


COLUMNS = "v.name, v.version, v.digest, v.definition, v.author, v.created"
CURRENT = f"""
select {COLUMNS} from agents a join agent_versions v
  on v.tenant = a.tenant and v.name = a.name and v.version = a.version
where a.tenant = :tenant"""

LOCK = "update agents set updated = updated where tenant = :tenant and name = :name returning name"
TAKE_NAME = """
insert into agents (tenant, name, version, created, updated) values (:tenant, :name, 0, :now, :now)
on conflict do nothing returning name"""


def get(scope: Scope, name: str) -> Steps[AgentVersion | None]:
    """The current version of an agent."""
    rows = yield CURRENT + " and a.name = :name", {"tenant": scope.tenant, "name": name}
    return AgentVersion(*rows[0]) if rows else None


def get_version(scope: Scope, name: str, version: int) -> Steps[AgentVersion | None]:
    """One version, also of an agent that was deleted since."""
    rows = yield (
        f"select {COLUMNS} from agent_versions v where tenant = :tenant and name = :name and version = :version",
        {"tenant": scope.tenant, "name": name, "version": version},
    )
    return AgentVersion(*rows[0]) if rows else None


def list_current(scope: Scope, after: str = "", limit: int = 50) -> Steps[list[AgentVersion]]:
    """Agents by name, behind `after`."""
    rows = yield (
        CURRENT + " and a.name > :after order by a.name limit :limit",
        {"tenant": scope.tenant, "after": after, "limit": limit},
    )
    return [AgentVersion(*row) for row in rows]


def versions(scope: Scope, name: str, before: int = NEWEST, limit: int = 50) -> Steps[list[AgentVersion]]:
    """The versions of an agent below `before`, newest first."""
    rows = yield (
        f"select {COLUMNS} from agent_versions v where tenant = :tenant and name = :name and version < :before"
        " order by version desc limit :limit",
        {"tenant": scope.tenant, "name": name, "before": before, "limit": limit},
    )
    return [AgentVersion(*row) for row in rows]


def put(scope: Scope, name: str, digest: str, definition: str, *, create: bool, update: bool) -> Steps[AgentVersion]:
    """Store a definition as the newest version; the same definition again changes nothing.

    :raises AgentExists: the name is taken and `update` is False
    :raises AgentNotFound: there is no such agent and `create` is False
    """
    locked = yield LOCK, {"tenant": scope.tenant, "name": name}
    current = (yield from get(scope, name)) if locked else None
    if current and not update:
        raise AgentExists(f"an agent {name!r} exists already; `flux agent update` or `flux agent apply` changes it")
    if current is None and not create:
        raise AgentNotFound(f"there is no agent {name!r}; `flux agent list` shows those that exist")
    if current and current.digest == digest:
        return current
    if current is None:
        made = yield TAKE_NAME, {"tenant": scope.tenant, "name": name}
        if not made:  # somebody else was faster
            return (yield from put(scope, name, digest, definition, create=create, update=update))
    return (yield from _add_version(scope, name, digest, definition))


def _add_version(scope: Scope, name: str, digest: str, definition: str) -> Steps[AgentVersion]:
    """The caller holds the agent's row."""
    rows = yield (
        "insert into agent_versions (tenant, name, version, digest, definition, author, created)"
        " select :tenant, :name, 1 + coalesce(max(version), 0), :digest, :definition, :author, :now"
        " from agent_versions where tenant = :tenant and name = :name"
        " returning name, version, digest, definition, author, created",
        {
            "tenant": scope.tenant,
            "name": name,
            "digest": digest,
            "definition": definition,
            "author": scope.principal,
        },
    )
    made = AgentVersion(*rows[0])
    yield (
        "update agents set version = :version, updated = :now where tenant = :tenant and name = :name",
        {"tenant": scope.tenant, "name": name, "version": made.version},
    )
    return made


def delete(scope: Scope, name: str) -> Steps[None]:
    """Remove an agent; its versions stay for the sessions that use them.

    :raises AgentNotFound: there is no such agent
    """
    rows = yield (
        "delete from agents where tenant = :tenant and name = :name returning name",
        {"tenant": scope.tenant, "name": name},
    )
    if not rows:
        raise AgentNotFound(f"there is no agent {name!r}; `flux agent list` shows those that exist")
