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
insert into files (place, tenant, path, kind, mode, data) values (:place, :tenant, :path, :kind, :mode, :data)
on conflict (place, tenant, path) do update set kind = excluded.kind, mode = excluded.mode, data = excluded.data"""

COPY = """
insert into files (place, tenant, path, kind, mode, data)
select cast(:id as text), tenant, path, kind, mode, data from files where place = :source and tenant = :tenant"""

#: An id of an execution holds no slash.
FORGET = """
delete from files where place like '%/%' and not exists (
  select 1 from executions e where e.tenant = files.tenant and e.agent || '/' || e.instance = files.place)"""


def place_of(agent: str, instance: str) -> str:
    """Where the files of an instance are, which all its sessions share; those of one session are at its id."""
    return f"{agent}/{instance}"


def load(scope: Scope, place: str) -> Steps[list[KeptFile]]:
    """The files at a place, a directory before what it holds."""
    rows = yield (
        "select path, kind, mode, data from files where place = :place and tenant = :tenant order by path",
        {"place": place, "tenant": scope.tenant},
    )
    return [KeptFile(path, kind, mode, bytes(data)) for path, kind, mode, data in rows]


def save(
    scope: Scope, run: str, epoch: int, place: str, changed: Collection[KeptFile], gone: Collection[str]
) -> Steps[None]:
    """Keep what has changed at a place, and forget what is gone, as the owner of `epoch` of the execution `run`.

    :raises Fenced: somebody else owns the execution now; nothing was written
    """
    owned = yield OWNED, {"run": run, "tenant": scope.tenant, "epoch": epoch}
    if not owned:
        raise Fenced(debug=f"files of {place} by {run} in epoch {epoch}")
    at = {"place": place, "tenant": scope.tenant}
    for path in gone:
        yield "delete from files where place = :place and tenant = :tenant and path = :path", {**at, "path": path}
    for file in changed:
        yield PUT, {**at, "path": file.path, "kind": file.kind, "mode": file.mode, "data": file.data}


def copy(scope: Scope, source: str, id: str) -> Steps[None]:
    """Give an execution that has no files those of another, as they are."""
    yield COPY, {"id": id, "source": source, "tenant": scope.tenant}


def delete_all(execution: str) -> Steps[None]:
    """Forget the files of an execution that is gone."""
    yield "delete from files where place = :place", {"place": execution}


def forget_instances() -> Steps[None]:
    """Forget the files of instances, of all tenants, that have no session any more."""
    yield FORGET, {}
