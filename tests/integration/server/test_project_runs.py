"""The workflows of a project over HTTP, by the names of their files."""

import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from flux import ExecutionContext, pause, workflow
from flux.agents.project.discovery import Project
from flux.client.sse import Parser
from flux.errors import FluxError
from tests.integration.server.serving import Served, serving
from tests.integration.server.test_errors import error_of
from tests.integration.server.test_sessions import call


@workflow.with_options(namespace="shop")
async def greet(ctx: ExecutionContext[Any]) -> Any:
    if ctx.payload is None:
        raise FluxError("nobody to greet")
    return f"Hello, {ctx.payload['name']}!"


@workflow.with_options(namespace="shop")
async def asks(ctx: ExecutionContext[Any]) -> Any:
    return await pause("name")


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Served]:
    project = Project("shop", tmp_path, {}, {"greet": greet, "asking": asks}, {})
    async with serving(tmp_path, in_process=True, project=project) as served:
        yield served


@pytest.mark.behaviour("project:runs:result")
async def test_a_run_answers_at_once_with_its_id_or_with_its_result(shop: Served) -> None:
    done = await call(shop, "POST", "/workflows/greet?wait=result", 200, {"payload": {"name": "Ada"}})
    assert (done["status"], done["result"], done["workflow"]) == ("completed", "Hello, Ada!", "shop/greet")
    started = await call(shop, "POST", "/workflows/greet", 202, {"payload": {"name": "Bob"}})
    response = await shop.http.get(f"/executions/{started['run_id']}/events", params={"limit": 1})
    assert response.status_code == 200
    failed = await call(shop, "POST", "/workflows/greet?wait=result", 200)
    assert (failed["status"], failed["result"]) == ("failed", None)
    assert "nobody to greet" in failed["error"]


@pytest.mark.behaviour("project:runs:waits")
async def test_a_run_that_waits_for_a_person_says_so_and_goes_on(shop: Served) -> None:
    waiting = await call(shop, "POST", "/workflows/asking?wait=result", 202)
    assert (waiting["status"], waiting["waiting_for"]) == ("waiting", "pause")
    id = waiting["run_id"]
    await call(shop, "POST", f"/workflows/shop/asks/resume/{id}/sync", 200, "Eve")
    assert (await call(shop, "GET", f"/runs/{id}", 200))["result"] == "Eve"
    page = await call(shop, "GET", f"/runs/{id}/events?limit=2", 200)
    assert [len(page["items"]), page["next_cursor"]] == [2, "2"]
    async with shop.http.stream("GET", f"/runs/{id}/stream") as response:
        parser, seen = Parser(), []
        async for chunk in response.aiter_bytes():
            seen += [event.type for event in parser.feed(chunk)]
            if "WORKFLOW_COMPLETED" in seen:
                break
    assert "WORKFLOW_PAUSED" in seen


@pytest.mark.behaviour("project:runs:once")
async def test_a_run_with_a_key_is_started_once(shop: Served) -> None:
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    body = {"payload": {"name": "Ada"}}
    ids = {(await shop.http.post("/workflows/greet", json=body, headers=headers)).json()["run_id"] for _ in "12"}
    assert len(ids) == 1


@pytest.mark.behaviour("project:runs:unknown")
async def test_who_asks_for_what_is_not_there_is_told_what_is(shop: Served, in_memory: Served) -> None:
    error = error_of(await shop.http.post("/workflows/gret", json={}), 404)
    assert "did you mean 'greet'" in error["message"]
    error = error_of(await in_memory.http.post("/workflows/greet", json={}), 404)
    assert "flux dev" in error["message"]
    error_of(await shop.http.post("/workflows/greet", json={"paylod": 1}), 400)
    error_of(await shop.http.get("/runs/nothing"), 404)
