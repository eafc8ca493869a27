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

LIST = f"""
select {COLUMNS} from artifacts a
where a.execution_id = :id and a.tenant = :tenant
  and (cast(:created as double precision) is null or a.created > :created or (a.created = :created and a.id > :after))
order by a.created, a.id limit :limit"""

IN_TREE = """
select a.media_type, a.data from artifacts a join executions of on of.id = a.execution_id
  join executions reader on reader.root = of.root
where a.id = :artifact and a.tenant = :tenant and reader.id = :id and reader.tenant = :tenant"""


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
        f"select {COLUMNS}, a.data from artifacts a"
        " where a.id = :artifact and a.execution_id = :id and a.tenant = :tenant",
        {"artifact": id, "id": execution, "tenant": scope.tenant},
    )
    return (Artifact(*rows[0][:-1]), bytes(rows[0][-1])) if rows else None


def read_in_tree(scope: Scope, reader: str, id: str) -> Steps[tuple[str, bytes] | None]:
    """The media type and the bytes of an artifact of the execution `reader`, or of any other with the same root."""
    rows = yield IN_TREE, {"artifact": id, "id": reader, "tenant": scope.tenant}
    return (rows[0][0], bytes(rows[0][1])) if rows else None
