"""/workers: which processes run executions, and letting one go."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from flux.engine.service.fleet import labels_of, resources_of
from flux.server.context import chosen, process_of
from flux.server.rbac import choosy
from flux.server.wire import Limit, decode_cursor, encode_cursor, page
from flux.store.workers import WorkerRow

router = APIRouter(prefix="/workers", tags=["workers"])


@router.get("")
async def list_workers(request: Request, limit: Limit = 50, cursor: str | None = None) -> dict[str, Any]:
    """Workers by name; one that died is shown as gone for an hour."""
    after, workers = decode_cursor(cursor, str), process_of(request).workers
    readable = choosy(request, "worker:{name}:read", lambda one: {"name": one.name})

    async def behind(last: WorkerRow | None, count: int) -> list[WorkerRow]:
        return await workers.page(last.name if last else after[0] if after else "", count)

    found = await chosen(behind, readable, limit + 1)
    more = encode_cursor(found[limit - 1].name) if len(found) > limit else None
    return page([worker_row(row) for row in found[:limit]], more)


@router.get("/{name}")
async def get_worker(request: Request, name: str) -> dict[str, Any]:
    """A worker, with the packages it has."""
    return worker_row(await process_of(request).workers.get(name), packages=True)


@router.post("/{name}/drain")
async def drain_worker(request: Request, name: str) -> dict[str, Any]:
    """Let a worker take nothing new, finish or hand over what it runs, and leave."""
    return worker_row(await process_of(request).workers.drain(name), packages=True)


def worker_row(row: WorkerRow, *, packages: bool = False) -> dict[str, Any]:
    """A worker as lists and GET show it; times in seconds since the epoch, memory in bytes."""
    has = resources_of(row)
    return {
        "id": row.id,
        "name": row.name,
        "host": row.host,
        "pid": row.pid,
        "version": row.version,
        "state": row.state,
        "labels": labels_of(row),
        "resources": {
            "cpu": has.cpu,
            "memory": has.memory,
            "gpu": has.gpu,
            **({"packages": sorted(has.packages)} if packages else {}),
        },
        "running": row.running,
        "concurrency": row.concurrency,
        "started_at": row.started,
        "seen_at": row.seen,
    }
