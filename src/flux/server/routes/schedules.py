"""/schedules: what is to start when, and what became of it."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import APIRouter, Request

from flux.engine.encoding.values import readable
from flux.engine.service.identity import to_start
from flux.engine.service.scheduling import NewSchedule
from flux.server.context import chosen, process_of, scope_of
from flux.server.rbac import check, choosy
from flux.server.wire import CreateSchedule, Limit, PutSchedule, decode_cursor, encode_cursor, page
from flux.store.schedules import Schedule, ScheduleRun

router = APIRouter(prefix="/schedules", tags=["schedules"])


@router.post("", status_code=201)
async def create_schedule(request: Request, body: CreateSchedule) -> dict[str, Any]:
    """Store a new schedule."""
    check(request, *_targets(body))
    made = await process_of(request).schedules.create(scope_of(request), body.name, _new(body))
    return schedule_row(made)


@router.get("")
async def list_schedules(request: Request, limit: Limit = 50, cursor: str | None = None) -> dict[str, Any]:
    """Schedules by name."""
    after, schedules = decode_cursor(cursor, str), process_of(request).schedules
    readable = choosy(request, "schedule:{name}:read", lambda one: {"name": one.name})
    scope = scope_of(request)

    async def behind(last: Schedule | None, count: int) -> list[Schedule]:
        return await schedules.page(scope, last.name if last else after[0] if after else "", count)

    found = await chosen(behind, readable, limit + 1)
    more = encode_cursor(found[limit - 1].name) if len(found) > limit else None
    return page([schedule_row(schedule) for schedule in found[:limit]], more)


@router.get("/{name}")
async def get_schedule(request: Request, name: str) -> dict[str, Any]:
    """A schedule."""
    return schedule_row(await process_of(request).schedules.get(scope_of(request), name))


@router.put("/{name}")
async def put_schedule(request: Request, name: str, body: PutSchedule) -> dict[str, Any]:
    """Change a schedule: what is not given gets its default. It is the caller's from now on."""
    check(request, "schedule:{name}:update", *_targets(body), knows="schedule:{name}:read")
    return schedule_row(await process_of(request).schedules.replace(scope_of(request), name, _new(body)))


@router.delete("/{name}", status_code=204)
async def delete_schedule(request: Request, name: str) -> None:
    """Remove a schedule and its history; what it has started goes on."""
    await process_of(request).schedules.delete(scope_of(request), name)


@router.post("/{name}/pause")
async def pause_schedule(request: Request, name: str) -> dict[str, Any]:
    """Let nothing start until it is resumed."""
    return schedule_row(await process_of(request).schedules.pause(scope_of(request), name))


@router.post("/{name}/resume")
async def resume_schedule(request: Request, name: str) -> dict[str, Any]:
    """Go on with the next time from now."""
    return schedule_row(await process_of(request).schedules.resume(scope_of(request), name))


@router.get("/{name}/history")
async def list_schedule_runs(
    request: Request, name: str, limit: Limit = 50, cursor: str | None = None
) -> dict[str, Any]:
    """What became of the times of a schedule, newest first."""
    before = decode_cursor(cursor, float)
    service = process_of(request).schedules
    found = await service.history(scope_of(request), name, before[0] if before else None, limit + 1)
    more = encode_cursor(found[limit - 1].due) if len(found) > limit else None
    return page([run_row(run) for run in found[:limit]], more)


def schedule_row(found: Schedule) -> dict[str, Any]:
    """A schedule as lists and GET show it; times in seconds since the epoch."""
    return {
        "id": found.id,
        "name": found.name,
        "workflow": found.workflow,
        "agent": found.agent,
        "instance": (found.instance or found.name) if found.target == "agent" else None,
        "message": found.message,
        "input": readable(msgspec.json.decode(found.input)),
        "schedule": msgspec.json.decode(found.spec),
        "overlap": found.overlap,
        "missed": found.missed,
        "state": found.state,
        "next_at": found.next_at,
        "last_at": found.last_at,
        "last_execution_id": found.last_execution,
        "failures": found.failures,
        "owner": found.owner,
        "created_at": found.created,
        "updated_at": found.updated,
    }


def run_row(run: ScheduleRun) -> dict[str, Any]:
    """A time of a schedule as its history shows it."""
    return {
        "due_at": run.due,
        "fired_at": run.fired,
        "outcome": run.outcome,
        "execution_id": run.execution_id,
        "missed": run.missed,
        "error": run.error,
    }


def _targets(body: PutSchedule) -> list[str]:
    """What it takes to start what the schedule starts."""
    return to_start(workflow=body.workflow, agent=body.agent)


def _new(body: PutSchedule) -> NewSchedule:
    return NewSchedule(**body.model_dump(exclude={"name"}))
