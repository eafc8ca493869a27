"""The files of virtual sandboxes: what a session has in memory while it runs, kept for its next run."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from msgspec import Struct

from flux.errors import Fenced
from flux.store.database import Scope, Steps

Kind = Literal["file", "directory", "symlink"]


class KeptFile(Struct, frozen=True):
    """A file; `path` is absolute below the workspace, `data` are its bytes, or where a link leads."""

    path: str
    kind: Kind
    mode: int
    data: bytes


#: Also takes the row, so that nobody takes the execution over until the files are in.
OWNED = """
update executions set head = head
where id = :run and tenant = :tenant and epoch = :epoch and state = 'running' returning id"""

PUT = """
insert into files (execution_id, path, kind, mode, data)
select e.id, :path, :kind, :mode, :data from executions e where e.id = :id and e.tenant = :tenant
on conflict (execution_id, path) do update set kind = excluded.kind, mode = excluded.mode, data = excluded.data"""

COPY = """
insert into files (execution_id, path, kind, mode, data)
select cast(:id as text), f.path, f.kind, f.mode, f.data from files f join executions e on e.id = f.execution_id
where f.execution_id = :source and e.tenant = :tenant"""


def load(scope: Scope, execution: str) -> Steps[list[KeptFile]]:
    """The files of an execution, a directory before what it holds."""
    rows = yield (
        "select f.path, f.kind, f.mode, f.data from files f join executions e on e.id = f.execution_id"
        " where f.execution_id = :id and e.tenant = :tenant order by f.path",
        {"id": execution, "tenant": scope.tenant},
    )
    return [KeptFile(path, kind, mode, bytes(data)) for path, kind, mode, data in rows]


def save(
    scope: Scope, run: str, epoch: int, execution: str, changed: Collection[KeptFile], gone: Collection[str]
) -> Steps[None]:
    """Keep what has changed, and forget what is gone, as the owner of `epoch` of the execution `run`.

    `execution` is whose files they are: `run`, or one that drives it.

    :raises Fenced: somebody else owns the execution now; nothing was written
    """
    owned = yield OWNED, {"run": run, "tenant": scope.tenant, "epoch": epoch}
    if not owned:
        raise Fenced(debug=f"files of {execution} by {run} in epoch {epoch}")
    for path in gone:
        yield "delete from files where execution_id = :id and path = :path", {"id": execution, "path": path}
    for file in changed:
        yield (
            PUT,
            {
                "id": execution,
                "tenant": scope.tenant,
                "path": file.path,
                "kind": file.kind,
                "mode": file.mode,
                "data": file.data,
            },
        )


def copy(scope: Scope, source: str, id: str) -> Steps[None]:
    """Give an execution that has no files those of another, as they are."""
    yield COPY, {"id": id, "source": source, "tenant": scope.tenant}


def delete_all(execution: str) -> Steps[None]:
    """Forget the files of an execution that is gone."""
    yield "delete from files where execution_id = :id", {"id": execution}
