"""/workflows: registered workflows."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, UploadFile

from flux.engine.sources.catalog import MAX_SOURCE_BYTES
from flux.errors import InvalidInput
from flux.server.context import chosen, process_of, scope_of
from flux.server.rbac import check, choosy
from flux.server.rules import REGISTER
from flux.server.wire import Limit, decode_cursor, encode_cursor, page, version_of, workflow_row
from flux.store.database import NEWEST
from flux.store.workflows import AGENTS, WorkflowVersion

router = APIRouter(prefix="/workflows", tags=["workflows"])

Version = Annotated[int, Path(ge=1, lt=NEWEST)]


@router.post("", status_code=201)
async def register_workflows(request: Request, file: UploadFile) -> dict[str, Any]:
    """Register every workflow of a Python file; the same file again changes nothing. It is read, not run."""
    await _only_a_file(request)
    data = await file.read(MAX_SOURCE_BYTES + 1)
    found = await process_of(request).workflows.register(scope_of(request), data)
    return page([workflow_row(one) for one in found], None)


@router.get("")
async def list_workflows(
    request: Request, namespace: str | None = None, limit: Limit = 50, cursor: str | None = None
) -> dict[str, Any]:
    """Workflows by namespace and name."""
    after, workflows = decode_cursor(cursor, str, str) or ["", ""], process_of(request).workflows
    readable = choosy(
        request, "workflow:{namespace}:{name}:read", lambda one: {"namespace": one.namespace, "name": one.name}
    )
    scope = scope_of(request)

    async def behind(last: WorkflowVersion | None, count: int) -> list[WorkflowVersion]:
        place = (last.namespace, last.name) if last else (after[0], after[1])
        return await workflows.page(scope, namespace, place, count)

    found = await chosen(behind, readable, limit + 1)
    last = found[limit - 1] if len(found) > limit else None
    more = encode_cursor(last.namespace, last.name) if last else None
    return page([workflow_row(one) for one in found[:limit]], more)


@router.get("/{namespace}/{name}")
async def get_workflow(request: Request, namespace: str, name: str, source: bool = False) -> dict[str, Any]:
    """The current version of a workflow; `source`: with the file it was found in."""
    _check_source(request, source)
    found = await process_of(request).workflows.get(scope_of(request), namespace, name)
    return workflow_row(found, source=source)


@router.get("/{namespace}/{name}/versions")
async def list_workflow_versions(
    request: Request, namespace: str, name: str, limit: Limit = 50, cursor: str | None = None
) -> dict[str, Any]:
    """The versions of a workflow, newest first."""
    before = version_of(cursor)
    found = await process_of(request).workflows.versions(scope_of(request), namespace, name, before, limit + 1)
    more = encode_cursor(found[limit - 1].version) if len(found) > limit else None
    return page([workflow_row(one) for one in found[:limit]], more)


@router.get("/{namespace}/{name}/versions/{version}")
async def get_workflow_version(
    request: Request, namespace: str, name: str, version: Version, source: bool = False
) -> dict[str, Any]:
    """One version of a workflow, also of one that was deleted."""
    _check_source(request, source)
    found = await process_of(request).workflows.get(scope_of(request), namespace, name, version)
    return workflow_row(found, source=source)


@router.delete("/{namespace}/{name}", status_code=204)
async def delete_workflow(request: Request, namespace: str, name: str) -> None:
    """Remove a workflow; its executions go on with the version they began with."""
    await process_of(request).workflows.delete(scope_of(request), namespace, name)


def _check_source(request: Request, source: bool) -> None:
    """The code that an agent ships is for those who could register it."""
    shipped = source and request.path_params["namespace"] == AGENTS
    check(request, *([REGISTER] if shipped else []), knows="workflow:{namespace}:{name}:read")


async def _only_a_file(request: Request) -> None:
    fields = [name for name, _ in (await request.form()).multi_items()]
    for name in fields:
        if name != "file":
            raise InvalidInput(f"unknown field {name!r}; the file goes in the field 'file'")
    if len(fields) > 1:
        raise InvalidInput("there are several files; send them one by one")
