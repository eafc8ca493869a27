"""The routes of schedules."""

import asyncio
import itertools
from typing import Any

import pytest

from flux.client import SchedulesClient
from flux.errors import ScheduleNotFound
from flux.store.database import one
from tests.integration.server.models import says
from tests.integration.server.serving import Served
from tests.integration.server.streams import history
from tests.integration.server.test_sessions import call, refused

TALK = {"message": "Good morning.", "cron": "0 9 * * MON-FRI", "timezone": "Europe/Berlin"}


@pytest.mark.behaviour("server:schedules:life")
async def test_a_schedule_is_created_shown_changed_paused_resumed_and_deleted(served: Served) -> None:
    agent = await served.agent(says("hi"))
    made = await call(served, "POST", "/schedules", 201, {"name": "life", "agent": agent, **TALK})
    assert made["schedule"] == {"type": "cron", "expr": "0 9 * * MON-FRI", "timezone": "Europe/Berlin"}
    assert (made["agent"], made["instance"], made["state"], made["overlap"]) == (agent, "life", "active", "skip")
    assert made["next_at"] > made["created_at"]
    assert await call(served, "GET", "/schedules/life", 200) == made
    changed = await call(served, "PUT", "/schedules/life", 200, {"agent": agent, "message": "Hi.", "interval": "6h"})
    assert (changed["id"], changed["message"]) == (made["id"], "Hi.")
    assert changed["schedule"] == {"type": "interval", "seconds": 21600.0, "timezone": "UTC"}
    paused = await call(served, "POST", "/schedules/life/pause", 200)
    assert (paused["state"], paused["next_at"]) == ("paused", None)
    assert (await call(served, "POST", "/schedules/life/resume", 200))["state"] == "active"
    assert await call(served, "GET", "/schedules/life/history", 200) == {"items": [], "next_cursor": None}
    await call(served, "DELETE", "/schedules/life", 204)
    for method, path in (("GET", ""), ("GET", "/history"), ("POST", "/pause"), ("POST", "/resume"), ("DELETE", "")):
        assert await refused(served, method, f"/schedules/life{path}", 404) == "schedule_not_found"


@pytest.mark.behaviour("server:schedules:refused")
async def test_what_cannot_be_scheduled_is_refused_by_name(in_memory: Served) -> None:
    agent = await in_memory.agent(says("hi"))
    fine = {"name": "taken", "agent": agent, **TALK}
    await call(in_memory, "POST", "/schedules", 201, fine)
    assert await refused(in_memory, "POST", "/schedules", 409, fine) == "schedule_exists"

    async def said(change: dict[str, Any], status: int = 400) -> str:
        error: dict[str, str] = (await call(in_memory, "POST", "/schedules", status, fine | change))["error"]
        return error["message"]

    assert "did you mean 'cron'" in await said({"crn": "x"})
    assert await said({"cron": "0 0 30 2 *"}) == "cron '0 0 30 2 *' never fires: none of its months has such a day"
    assert "there is no time zone 'Mars'" in await said({"timezone": "Mars"})
    assert "one of them" in await said({"interval": "6h"})
    assert "there is no agent 'nobody'" in await said({"agent": "nobody"}, 404)
    assert await refused(in_memory, "PUT", "/schedules/nothing", 404, {"agent": agent, **TALK}) == "schedule_not_found"


@pytest.mark.behaviour("server:schedules:list")
async def test_schedules_and_their_history_are_listed_page_by_page(in_memory: Served) -> None:
    agent = await in_memory.agent(says("hi"))
    client = SchedulesClient(in_memory.client)
    for n in range(5):
        await client.create(f"a-list-{n}", agent=agent, message="x", interval="1h")
    names = [row["name"] async for row in in_memory.client.pages("/schedules", limit=2)]
    assert names == sorted(names)
    assert [name for name in names if name.startswith("a-list")] == [f"a-list-{n}" for n in range(5)]
    id = (await client.get("a-list-0"))["id"]
    for n in range(5):
        await in_memory.process.database.write(
            one(
                "insert into schedule_runs values (:id, :due, :now, null, 'skipped', 0, null)", id=id, due=n + 0.25
            )
        )  # fmt: skip
    runs = [row async for row in in_memory.client.pages("/schedules/a-list-0/history", limit=2)]
    assert [run["due_at"] for run in runs] == [4.25, 3.25, 2.25, 1.25, 0.25]


@pytest.mark.behaviour("server:schedules:fires")
async def test_a_running_server_fires_a_schedule_and_the_agent_answers(in_memory: Served) -> None:
    agent = await in_memory.agent(says("Good morning to you."))
    client = SchedulesClient(in_memory.client)
    await client.create("soon", agent=agent, message="Good morning.", interval="1h")
    await in_memory.process.database.write(one("update schedules set next_at = 1.0 where name = 'soon'"))
    in_memory.process.ticker.changed()
    session = None
    while session is None:
        session = (await client.get("soon"))["last_execution_id"]
    assert "Good morning to you." in (await history(in_memory.client, session))[-1].data
    [run] = [row async for row in client.history("soon")]
    assert (run["outcome"], run["execution_id"]) == ("started", session)
    assert run["missed"] > 0
    await client.delete("soon")
    with pytest.raises(ScheduleNotFound):
        await client.get("soon")


WATCH = b"""
from flux import interval, task, workflow

@task
async def look():
    return "all is well"

@workflow.with_options(namespace="ops", schedule=interval(seconds=1))
async def watch(ctx):
    return await look()
"""


@pytest.mark.behaviour("server:schedules:registered")
async def test_a_registered_file_brings_its_schedule_and_each_second_is_met(in_memory: Served) -> None:
    await in_memory.client.upload("/workflows", "watch.py", WATCH)
    assert (await call(in_memory, "GET", "/schedules/ops.watch", 200))["workflow"] == "ops/watch"
    runs: list[dict[str, Any]] = []
    async with asyncio.timeout(30):
        while len(runs) < 3:
            await asyncio.sleep(0.1)
            page = await call(in_memory, "GET", "/executions?workflow=ops/watch&state=COMPLETED", 200)
            runs = page["items"]
    await call(in_memory, "POST", "/schedules/ops.watch/pause", 200)
    history = await call(in_memory, "GET", "/schedules/ops.watch/history", 200)
    due = [line["due_at"] for line in history["items"]]
    assert [before - after for before, after in itertools.pairwise(due)][:2] == pytest.approx([1.0, 1.0])
