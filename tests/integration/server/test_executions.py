"""Executions over HTTP: lists, events, names, cancelling, and approvals."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from flux.client.sse import ServerEvent, parse
from flux.models.scripted import Reply
from tests.integration.server.flows import ran, registered
from tests.integration.server.models import Held
from tests.integration.server.serving import Served
from tests.integration.server.streams import ACCEPT, read
from tests.integration.server.test_runs import NOBODY
from tests.integration.server.test_sessions import call, refused, rested

ENDS = ("WORKFLOW_COMPLETED", "WORKFLOW_FAILED", "WORKFLOW_CANCELLED")


async def live(served: Served, id: str, after: str = "0") -> AsyncGenerator[ServerEvent, None]:
    """The events of an execution as server-sent events."""
    chunks = served.client.stream(f"/executions/{id}/events", {**ACCEPT, "Last-Event-ID": after})
    async with aclosing(chunks), aclosing(parse(chunks)) as events:
        async for event in events:
            yield event


async def until(served: Served, id: str, *types: str) -> list[ServerEvent]:
    """The events up to the first of these types."""
    async with asyncio.timeout(20), aclosing(live(served, id)) as events:
        return await read(events, lambda event: event.type in types)


@pytest.mark.behaviour("server:executions:shown")
async def test_an_execution_is_shown_with_its_events(stored: Served) -> None:
    id = (await ran(stored, "pays", [5]))["execution_id"]
    (asked,) = (await call(stored, "GET", f"/executions/{id}/approvals", 200))["items"]
    await call(stored, "POST", f"/executions/{id}/approvals/{asked['id']}/approve", 200, {"reason": "fine"})
    await until(stored, id, *ENDS)
    shown = await call(stored, "GET", f"/executions/{id}?detailed=true", 200)
    assert (shown["state"], shown["input"], shown["output"]) == ("COMPLETED", [5], ["sent 5"])
    events = shown.pop("events")
    assert shown == await call(stored, "GET", f"/executions/{id}", 200)
    assert {frozenset(event) for event in events} == {
        frozenset(("id", "type", "source_id", "name", "value", "time", "subject"))
    }
    assert [event["type"] for event in events] == [
        "WORKFLOW_SCHEDULED", "WORKFLOW_CLAIMED", "WORKFLOW_STARTED", "TASK_AWAITING_APPROVAL", "WORKFLOW_PAUSED",
        "TASK_APPROVED", "WORKFLOW_CLAIMED", "WORKFLOW_RESUMED", "TASK_STARTED", "TASK_COMPLETED", "WORKFLOW_COMPLETED",
    ]  # fmt: skip
    first, awaiting, approved, done = events[0], events[3], events[5], events[9]
    assert (first["name"], first["source_id"], first["value"]) == ("default/pays", id, [5])
    assert (awaiting["name"], awaiting["value"]) == ("transfer", {"amount": 5})
    assert (approved["value"], approved["subject"]) == ("fine", "local")
    assert done["value"] == "sent 5"
    assert len({event["source_id"] for event in (awaiting, approved, done)}) == 1
    assert len({event["id"] for event in events}) == len(events)
    times = [event["time"] for event in events]
    assert times == sorted(times)


@pytest.mark.behaviour("server:executions:session")
async def test_a_session_is_seen_as_an_execution(stored: Served) -> None:
    id = await rested(stored, "Hello.")
    shown = await call(stored, "GET", f"/executions/{id}?detailed=true", 200)
    assert (shown["kind"], shown["state"], shown["output"]["content"]) == ("session", "PAUSED", "Hello.")
    assert shown["workflow"] == "agents/agent_chat"
    assert shown["events"] == []
    agent = shown["agent"]
    (row,) = (await call(stored, "GET", f"/executions?agent={agent}", 200))["items"]
    assert row["execution_id"] == id
    model = Held([Reply("never")])
    working = (await stored.client.start_session(await stored.agent(model), "Hello")).id
    await model.asked.wait()
    assert (await call(stored, "GET", f"/executions/{working}", 200))["state"] == "RUNNING"
    for session in (id, working):
        ended = await call(stored, "POST", f"/executions/{session}/cancel", 202)
        assert (ended["state"], ended["cancelled"]) == ("CANCELLED", True)
        assert await refused(stored, "POST", f"/sessions/{session}/messages", 409, {"message": "x"}) == "session_ended"
    model.open()


@pytest.mark.behaviour("server:executions:listed")
async def test_executions_are_listed_newest_first_page_by_page_and_by_what_they_are(stored: Served) -> None:
    ids = [(await ran(stored, name, 1))["execution_id"] for name in ("double", "fails", "review", "double")]
    first = await call(stored, "GET", "/executions?limit=2", 200)
    assert [row["execution_id"] for row in first["items"]] == [ids[3], ids[2]]
    second = await call(stored, "GET", f"/executions?limit=2&cursor={first['next_cursor']}", 200)
    assert [row["execution_id"] for row in second["items"]] == [ids[1], ids[0]]
    everything = [row["execution_id"] async for row in stored.client.pages("/executions", limit=3)]
    assert len(everything) == len(set(everything)) >= 4

    async def found(**query: str) -> set[str]:
        return {row["execution_id"] async for row in stored.client.pages("/executions", **query)}

    assert {ids[0], ids[3]} <= await found(workflow="default/double", state="COMPLETED")
    assert ids[1] in await found(state="FAILED")
    assert ids[2] in await found(state="PAUSED", workflow="default/review")
    assert not {*ids} & await found(state="RUNNING")
    assert await found(workflow="default/nobody") == await found(agent="nobody") == set()
    for wrong in ("state=DONE", "limit=0", "limit=201", "limit=x", "cursor=zzz"):
        assert await refused(stored, "GET", f"/executions?{wrong}", 400) == "invalid_input"


@pytest.mark.behaviour("server:executions:events")
async def test_the_log_is_read_page_by_page(stored: Served) -> None:
    id = (await ran(stored, "double", 1))["execution_id"]
    page = await call(stored, "GET", f"/executions/{id}/events?limit=3", 200)
    assert [entry["seq"] for entry in page["items"]] == [1, 2, 3]
    assert page["next_cursor"] == "3"
    rest = await call(stored, "GET", f"/executions/{id}/events?cursor=3", 200)
    assert rest == await call(stored, "GET", f"/executions/{id}/events?after=3", 200)
    assert ([entry["type"] for entry in rest["items"]], rest["next_cursor"]) == (["WORKFLOW_COMPLETED"], None)
    assert await call(stored, "GET", f"/executions/{id}/events?after=99", 200) == {"items": [], "next_cursor": None}
    assert await refused(stored, "GET", f"/executions/{id}/events?after=x", 400) == "invalid_input"
    missing = await stored.http.get(f"/executions/{NOBODY}/events", headers=ACCEPT)
    assert (missing.status_code, missing.json()["error"]["type"]) == (404, "execution_not_found")


@pytest.mark.behaviour("server:executions:events")
async def test_a_reader_that_resumes_at_any_event_misses_and_doubles_nothing(served: Served) -> None:
    id = (await ran(served, "in_turn"))["execution_id"]
    before = await until(served, id, "WORKFLOW_PAUSED")
    for answer in (1, 2):
        await served.client.resume_workflow("default/in_turn", id, answer)
    whole = await until(served, id, *ENDS)
    assert whole[: len(before)] == before
    assert [json.loads(event.data)["seq"] for event in whole] == [*range(1, len(whole) + 1)]
    for cut, event in enumerate(whole[:-1]):
        async with aclosing(live(served, id, event.id)) as events:
            assert await read(events, lambda event: event.type in ENDS) == whole[cut + 1 :]


@pytest.mark.behaviour("server:executions:events")
async def test_a_live_reader_sees_progress_as_it_happens(served: Served) -> None:
    id = (await ran(served, "hangs", mode="async"))["execution_id"]
    async with asyncio.timeout(20), aclosing(live(served, id)) as events:
        seen = await read(events, lambda event: event.type == "TASK_STARTED")
        await call(served, "POST", f"/executions/{id}/cancel", 202)
        seen += await read(events, lambda event: event.type in ENDS)
    assert [event.type for event in seen if event.type in ("cancel_requested", *ENDS)] == [
        "cancel_requested", "WORKFLOW_CANCELLED",
    ]  # fmt: skip


@pytest.mark.behaviour("server:executions:cancel")
async def test_a_running_a_paused_and_an_ended_execution_are_cancelled(stored: Served) -> None:
    running = (await ran(stored, "hangs", mode="async"))["execution_id"]
    await until(stored, running, "TASK_STARTED")
    paused = (await ran(stored, "review"))["execution_id"]
    for id in (running, paused):
        asked = await call(stored, "POST", f"/executions/{id}/cancel", 202)
        assert (asked["state"], asked["cancelled"]) in (("CANCELLING", True), ("CANCELLED", True))
        await until(stored, id, "WORKFLOW_CANCELLED")
        shown = await call(stored, "GET", f"/executions/{id}?detailed=true", 200)
        assert (shown["state"], shown["output"], shown["pause"]) == ("CANCELLED", None, None)
        (cancelling,) = [event for event in shown["events"] if event["type"] == "WORKFLOW_CANCELLING"]
        assert cancelling["subject"] == "local"
        again = await call(stored, "POST", f"/executions/{id}/cancel", 202)
        assert (again["state"], again["cancelled"]) == ("CANCELLED", False)
    assert await refused(stored, "POST", f"/workflows/default/review/resume/{paused}/sync", 400) == "execution_finished"
    done = (await ran(stored, "double", 1))["execution_id"]
    kept = await call(stored, "POST", f"/executions/{done}/cancel", 202)
    assert (kept["state"], kept["output"], kept["cancelled"]) == ("COMPLETED", 2, False)


@pytest.mark.behaviour("server:executions:cancel")
async def test_cancelling_reaches_the_children(stored: Served) -> None:
    parent = (await ran(stored, "parent", mode="async"))["execution_id"]
    paused = await until(stored, parent, "WORKFLOW_PAUSED")
    child = json.loads(paused[-1].data)["value"]["execution_id"]
    await until(stored, child, "WORKFLOW_PAUSED")
    await call(stored, "POST", f"/executions/{parent}/cancel", 202)
    await until(stored, parent, "WORKFLOW_CANCELLED")
    await until(stored, child, "WORKFLOW_CANCELLED")


@pytest.mark.behaviour("server:executions:named")
async def test_an_execution_is_renamed(stored: Served) -> None:
    id = (await ran(stored, "double", 1))["execution_id"]
    assert (await call(stored, "GET", f"/executions/{id}", 200))["name"] == id
    assert (await call(stored, "PUT", f"/executions/{id}/name", 200, {"name": "mine"}))["name"] == "mine"
    listed = await call(stored, "GET", "/executions?limit=1", 200)
    assert listed["items"][0]["name"] == "mine"
    for body in ({"name": ""}, {"name": "x", "nmae": "y"}, {}, {"name": "x" * 257}, {"name": "a\0b"}):
        assert await refused(stored, "PUT", f"/executions/{id}/name", 400, body) == "invalid_input"


@pytest.mark.behaviour("server:executions:refused")
async def test_nothing_can_be_done_with_an_execution_that_is_not_there(stored: Served) -> None:
    await registered(stored)
    for method, path, body in (
        ("GET", "", None), ("GET", "/events", None), ("GET", "/approvals", None), ("POST", "/cancel", None),
        ("PUT", "/name", {"name": "x"}), ("POST", f"/approvals/{NOBODY}/approve", None),
    ):  # fmt: skip
        for id in (NOBODY, "x", "%C3%BC"):
            assert await refused(stored, method, f"/executions/{id}{path}", 404, body) == "execution_not_found"


@pytest.mark.behaviour("server:executions:approvals")
async def test_an_approval_is_decided_once(stored: Served) -> None:
    id = (await ran(stored, "pays", [1, 2]))["execution_id"]
    path = f"/executions/{id}/approvals"
    (asked,) = (await call(stored, "GET", path, 200))["items"]
    assert (asked["task"], asked["args"], asked["status"]) == ("transfer", {"amount": 1}, "open")
    one = f"{path}/{asked['id']}"
    assert await refused(stored, "POST", f"{one}/approve", 400, {"reson": "x"}) == "invalid_input"
    assert await refused(stored, "POST", f"{path}/{NOBODY}/approve", 404) == "interrupt_not_found"
    approved = await call(stored, "POST", f"{one}/approve", 200, {"reason": "ok"})
    assert (approved["status"], approved["reason"], approved["decided_by"]) == ("approved", "ok", "local")
    assert await call(stored, "POST", f"{one}/approve", 200, {"reason": "ok"}) == approved
    assert await refused(stored, "POST", f"{one}/reject", 409) == "interrupt_decided"
    assert await refused(stored, "POST", f"{one}/approve", 409, {"reason": "other"}) == "interrupt_decided"
    second = await _next_question(stored, id, 2)
    rejected = await call(stored, "POST", f"{path}/{second}/reject", 200, {"reason": "too much"})
    assert rejected["status"] == "rejected"
    await until(stored, id, *ENDS)
    shown = await call(stored, "GET", f"/executions/{id}", 200)
    assert (shown["state"], shown["error"]) == ("FAILED", "transfer was rejected by local: too much")
    assert [row["status"] for row in (await call(stored, "GET", path, 200))["items"]] == ["rejected", "approved"]


async def _next_question(served: Served, id: str, n: int) -> str:
    """The id of the n-th approval that an execution asks for."""
    async with asyncio.timeout(20), aclosing(live(served, id)) as events:
        seen = 0
        async for event in events:
            seen += event.type == "approval_required"
            if seen == n:
                return str(json.loads(event.data)["id"])
    raise AssertionError(id)


@pytest.mark.behaviour("server:executions:approvals")
async def test_a_pause_is_no_approval(stored: Served) -> None:
    id = (await ran(stored, "review"))["execution_id"]
    paused = await until(stored, id, "pause")
    path = f"/executions/{id}/approvals/{json.loads(paused[-1].data)['id']}/approve"
    assert await refused(stored, "POST", path, 404) == "interrupt_not_found"


@pytest.mark.behaviour("server:executions:approvals")
async def test_an_approval_may_hold_for_the_rest_of_the_execution(stored: Served) -> None:
    id = (await ran(stored, "pays", [1, 2, 3]))["execution_id"]
    (asked,) = (await call(stored, "GET", f"/executions/{id}/approvals", 200))["items"]
    done = await call(stored, "POST", f"/executions/{id}/approvals/{asked['id']}/approve", 200, {"always": True})
    assert done["always"] is True
    await until(stored, id, *ENDS)
    assert (await call(stored, "GET", f"/executions/{id}", 200))["output"] == ["sent 1", "sent 2", "sent 3"]


@pytest.mark.behaviour("server:executions:approvals")
async def test_approvals_of_all_executions_are_listed_by_status_page_by_page(stored: Served) -> None:
    ids = [(await ran(stored, "pays", [n]))["execution_id"] for n in range(3)]
    listed = [row["execution_id"] async for row in stored.client.pages("/approvals", status="open", limit=1)]
    assert listed[:3] == ids[::-1]
    (asked,) = (await call(stored, "GET", f"/executions/{ids[0]}/approvals?status=open", 200))["items"]
    await call(stored, "POST", f"/executions/{ids[0]}/approvals/{asked['id']}/reject", 200)
    await call(stored, "POST", f"/executions/{ids[1]}/cancel", 202)
    await until(stored, ids[1], *ENDS)

    async def statuses(status: str) -> list[str]:
        rows = stored.client.pages("/approvals", status=status)
        return [row["execution_id"] async for row in rows if row["execution_id"] in ids]

    assert [await statuses(one) for one in ("open", "rejected", "cancelled", "approved")] == [
        [ids[2]], [ids[0]], [ids[1]], [],
    ]  # fmt: skip
    assert await refused(stored, "GET", "/approvals?status=decided", 400) == "invalid_input"
