"""Artifacts: what a session keeps beside its log, such as the whole of a long output."""

from __future__ import annotations

import hashlib
import uuid

from msgspec import Struct

from flux import redaction
from flux.errors import Fenced
from flux.store.database import Scope, Steps


class Artifact(Struct, frozen=True):
    """What is known of one, without its bytes. `size` in bytes; `created` in seconds since the epoch."""

    id: str
    execution_id: str
    name: str
    media_type: str
    size: int
    digest: str
    created: float


COLUMNS = "a." + ", a.".join(Artifact.__struct_fields__)

PUT = """
insert into artifacts (id, tenant, execution_id, name, media_type, size, digest, data, created)
select :artifact, e.tenant, e.id, :name, :media_type, :size, :digest, :data, :now
from executions e where e.id = :id and e.tenant = :tenant and e.epoch = :epoch and e.state = 'running'
on conflict (id) do update set name = excluded.name, media_type = excluded.media_type, size = excluded.size,
  digest = excluded.digest, data = excluded.data
where artifacts.execution_id = excluded.execution_id
returning id"""

#: An artifact is there for the execution that kept it, and for those that began as a copy of one that has it.
THEIRS = """(a.execution_id = :id or exists (
  select 1 from artifact_links l where l.execution_id = :id and l.artifact = a.id))"""

LIST = f"""
select {COLUMNS} from artifacts a
where a.tenant = :tenant and (a.execution_id = :id or a.id in (
    select artifact from artifact_links where execution_id = :id))
  and (cast(:created as double precision) is null or a.created > :created or (a.created = :created and a.id > :after))
order by a.created, a.id limit :limit"""

IN_TREE = """
select a.media_type, a.data from artifacts a
where a.id = :artifact and a.tenant = :tenant and exists (
  select 1 from (
    select execution_id from artifacts where id = :artifact
    union all select execution_id from artifact_links where artifact = :artifact
  ) holder
  join executions held on held.id = holder.execution_id
  join executions reader on reader.root = held.root
  where reader.id = :id and reader.tenant = :tenant)"""

LINK = """
insert into artifact_links (execution_id, artifact)
select cast(:id as text), a.id from artifacts a
where a.tenant = :tenant
  and a.created <= (select at from events where execution_id = :source and seq = :at)
  and a.execution_id in (
    select e.id from executions s
    join executions e on e.id in (s.id, s.root) or (e.root = s.root and e.driver is not null)
    where s.id = :source and s.tenant = :tenant)
union
select cast(:id as text), l.artifact from artifact_links l join executions s on s.id = l.execution_id
where l.execution_id = :source and s.tenant = :tenant
on conflict do nothing"""

DELETE = """
delete from artifacts where execution_id = :id
  and not exists (select 1 from artifact_links l where l.artifact = artifacts.id)"""

DELETE_LAST = """
delete from artifacts where id = :artifact
  and not exists (select 1 from artifact_links l where l.artifact = artifacts.id)
  and not exists (select 1 from executions e where e.id = artifacts.execution_id)"""


def artifact_id(execution: str, call: str, n: int) -> str:
    """The id of the n-th artifact of a call; the same for a call that is made again, so that none is kept twice."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{execution}/{call}/artifact/{n}"))


def put(scope: Scope, execution: str, epoch: int, id: str, *, name: str, media_type: str, data: bytes) -> Steps[None]:
    """Keep an artifact as the owner of `epoch`; one of the same id is replaced.

    :raises Fenced: somebody else owns the execution now; nothing was written
    """
    data = redaction.data(data)
    rows = yield (
        PUT,
        {
            "artifact": id,
            "id": execution,
            "tenant": scope.tenant,
            "epoch": epoch,
            "name": name,
            "media_type": media_type,
            "size": len(data),
            "digest": hashlib.sha256(data).hexdigest(),
            "data": data,
        },
    )
    if not rows:
        raise Fenced(debug=f"artifact of {execution} in epoch {epoch}")


def page(
    scope: Scope, execution: str, after: tuple[float, str] | None = None, limit: int = 50
) -> Steps[list[Artifact]]:
    """The artifacts of an execution, oldest first, behind one that was `created` then and has that id."""
    place = {"created": after[0] if after else None, "after": after[1] if after else None, "limit": limit}
    rows = yield LIST, {"id": execution, "tenant": scope.tenant, **place}
    return [Artifact(*row) for row in rows]


def get(scope: Scope, execution: str, id: str) -> Steps[tuple[Artifact, bytes] | None]:
    """An artifact of an execution, with its bytes."""
    rows = yield (
        f"select {COLUMNS}, a.data from artifacts a where a.id = :artifact and a.tenant = :tenant and {THEIRS}",
        {"artifact": id, "id": execution, "tenant": scope.tenant},
    )
    return (Artifact(*rows[0][:-1]), bytes(rows[0][-1])) if rows else None


def read_in_tree(scope: Scope, reader: str, id: str) -> Steps[tuple[str, bytes] | None]:
    """The media type and the bytes of an artifact of the execution `reader`, or of any other with the same root."""
    rows = yield IN_TREE, {"artifact": id, "id": reader, "tenant": scope.tenant}
    return (rows[0][0], bytes(rows[0][1])) if rows else None


def link(scope: Scope, source: str, at: int, id: str) -> Steps[None]:
    """Let `id`, a copy of `source` up to and with the seq `at`, read what its copied entries speak of."""
    yield LINK, {"id": id, "source": source, "at": at, "tenant": scope.tenant}


def delete_all(execution: str) -> Steps[None]:
    """Remove the artifacts of an execution that is gone, but for those that a copy of it still has."""
    links = yield "delete from artifact_links where execution_id = :id returning artifact", {"id": execution}
    yield DELETE, {"id": execution}
    for (artifact,) in links:
        yield DELETE_LAST, {"artifact": artifact}
