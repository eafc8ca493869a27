"""What a task returns or raises holds no secret, before a crash and after it."""

import pytest

from flux import ExecutionContext, task, workflow
from flux.errors import ExecutionError
from flux.redaction import Known
from flux.store.database import Database
from tests.integration.workflows.machine import working


@task
async def tells(secret: str) -> dict[str, str]:
    return {"token": f"Bearer {secret}"}


@task
async def breaks(secret: str) -> None:
    raise ValueError(f"no login with {secret}")


@workflow.with_options(namespace="hidden")
async def hidden(ctx: ExecutionContext[str]) -> list[str]:
    told = await tells("hunter2-hunter2")
    try:
        await breaks("hunter2-hunter2")
    except ExecutionError as error:
        return [told["token"], str(error)]
    return []


@pytest.mark.behaviour("secrets:redacted:tasks")
async def test_a_workflow_goes_on_with_what_its_log_holds(database: Database) -> None:
    known = Known()
    known.add("hunter2-hunter2")
    try:
        async with working(database) as machine:
            id = await machine.start(hidden)
            context = await machine.until(id)
            log = await machine.entries(id)
    finally:
        known.forget()
    assert context.output[0] == "Bearer ***"
    assert "hunter2" not in repr(log)
    assert "no login with ***" in repr(log)
