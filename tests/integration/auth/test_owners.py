"""Runs act as whoever started them, with what that principal may do now."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from flux.client import FluxClient
from flux.errors import Forbidden
from flux.models.scripted import Call, Reply, ScriptedModel
from flux.store.database import LOCAL
from tests.integration.auth.serving import Guarded, guarded
from tests.integration.server.models import says
from tests.integration.server.streams import body, frames, nth, read

ASKS = {"tool_approvals": {"shell": True}}
TALK = ("workflow:agents:agent_chat:run", "agent:helper:start", "agent:helper:read")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Guarded]:
    async with guarded(tmp_path) as running:
        await running.member("admin", "admin")
        yield running


def tool(name: str) -> str:
    """The permission to let an agent use a tool."""
    return f"workflow:agents:agent_chat:task:{name}:execute"


async def told(client: FluxClient, id: str, type: str, n: int = 1) -> list[dict[str, Any]]:
    """What a session tells up to the n-th entry of a type; those of that type."""
    async with asyncio.timeout(10), aclosing(frames(client, id)) as stream:
        return [body(event) for event in await read(stream, nth(type, n)) if event.type == type]


@pytest.mark.behaviour("auth:runs:tools")
async def test_a_tool_that_the_owner_may_not_use_is_not_offered(world: Guarded) -> None:
    model = ScriptedModel([Reply("", (Call("shell", {"command": "echo hi"}),)), Reply("done")])
    world.served.models["helper"] = model
    fields = {"name": "helper", "model": "test/helper", "tools": ["shell", "read_file"], "tool_approvals": {}}
    await world.admin.post("/agents", {**fields, "tool_approvals": {"shell": False}})
    ann = await world.member("ann", permissions=(*TALK, tool("read_file")))
    session = await ann.start_session("helper", "Hi")
    (done,) = await told(ann, session.id, "tool_done")
    assert "no tool 'shell'" in done["content"]
    assert [one.name for one in model.requests[0].tools] == ["read_file"]
    shown = await ann.get("/agents/helper")
    assert shown["withheld"] == {"shell": tool("shell")}
    assert "withheld" not in await world.admin.get("/agents/helper")


@pytest.mark.behaviour("auth:runs:tools")
async def test_a_right_that_comes_or_goes_counts_from_the_next_run(world: Guarded) -> None:
    model = says("one", "two", "three")
    world.served.models["helper"] = model
    await world.admin.post("/agents", {"name": "helper", "model": "test/helper", "tools": ["read_file"]})
    ann = await world.member("ann", permissions=TALK)
    session = await ann.start_session("helper", "Hi")
    await told(ann, session.id, "chat_response")
    principals = world.served.process.principals
    await principals.update_role(LOCAL, "ann-role", (*TALK, tool("read_file")))
    await ann.post(f"/sessions/{session.id}/messages", {"message": "More"})
    await told(ann, session.id, "chat_response", 2)
    await principals.update_role(LOCAL, "ann-role", TALK)
    await ann.post(f"/sessions/{session.id}/messages", {"message": "And more"})
    await told(ann, session.id, "chat_response", 3)
    assert [[one.name for one in request.tools] for request in model.requests] == [[], ["read_file"], []]


@pytest.mark.behaviour("auth:runs:tools")
async def test_a_right_that_goes_while_a_question_is_open_counts(world: Guarded) -> None:
    model = ScriptedModel([Reply("", (Call("shell", {"command": "touch it"}),)), Reply("done")])
    world.served.models["helper"] = model
    await world.admin.post(
        "/agents", {"name": "helper", "model": "test/helper", "tools": ["shell"], "tool_approvals": {"shell": True}}
    )
    approve = "workflow:agents:agent_chat:task:shell:approve"
    ann = await world.member("ann", permissions=(*TALK, tool("shell")))
    session = await ann.start_session("helper", "Hi")
    (asked,) = await told(ann, session.id, "approval_required")
    await world.served.process.principals.update_role(LOCAL, "ann-role", (*TALK, approve))
    await ann.post(f"/sessions/{session.id}/interrupts/{asked['id']}", {"decision": "approve"})
    (done,) = await told(ann, session.id, "tool_done")
    assert "no tool 'shell'" in done["content"]


@pytest.mark.behaviour("auth:runs:owner")
async def test_a_sub_agent_may_do_no_more_than_the_owner(world: Guarded) -> None:
    call = Call("delegate", {"agent": "inner", "instruction": "go"})
    world.served.models["helper"] = ScriptedModel([Reply("", (call,)), Reply("done")])
    inner = ScriptedModel([Reply("", (Call("shell", {"command": "echo hi"}),)), Reply("tried")])
    world.served.models["inner"] = inner
    made = {"name": "inner", "description": "d", "model": "test/inner", "tools": ["shell"]}
    await world.admin.post("/agents", {"name": "helper", "model": "test/helper", "subagents": [made]})
    ann = await world.member("ann", permissions=(*TALK, tool("delegate")))
    session = await ann.start_session("helper", "Hi")
    await told(ann, session.id, "chat_response")
    assert [one.name for one in inner.requests[0].tools] == []


@pytest.mark.behaviour("auth:runs:owner")
async def test_work_is_handed_only_to_agents_that_the_owner_may_start(world: Guarded) -> None:
    model = says("done")
    world.served.models |= {"helper": model, "open": says("x"), "closed": says("x")}
    for name in ("open", "closed"):
        await world.admin.post("/agents", {"name": name, "description": "d", "model": f"test/{name}"})
    fields = {"name": "helper", "model": "test/helper", "agents": ["open", "closed"]}
    await world.admin.post("/agents", fields)
    ann = await world.member("ann", permissions=(*TALK, tool("delegate"), "agent:open:start"))
    session = await ann.start_session("helper", "Hi")
    await told(ann, session.id, "chat_response")
    assert "- open: d" in model.requests[0].system
    assert "closed" not in model.requests[0].system


CALLS = b"""\
from flux import call, workflow

@workflow
async def inner(ctx):
    return "ran"

@workflow
async def outer(ctx):
    return await call("inner")
"""


@pytest.mark.behaviour("auth:runs:owner")
async def test_a_workflow_calls_only_what_its_owner_may_run(world: Guarded) -> None:
    await world.admin.upload("/workflows", "w.py", CALLS)
    ann = await world.member("ann", permissions=("workflow:default:outer:run",))
    failed = await ann.run_workflow("default/outer")
    assert failed["state"] == "FAILED"
    assert "workflow:default:inner:run" in str(failed)
    bob = await world.member("bob", permissions=("workflow:default:*:run",))
    done = await bob.run_workflow("default/outer")
    assert done["output"] == "ran"
    rows = await world.served.process.executions.page(LOCAL._replace(principal="bob"))
    assert {row.workflow for row in rows} == {"default/outer", "default/inner"}


@pytest.mark.behaviour("auth:runs:owner")
async def test_a_schedule_starts_only_what_its_owner_may_start_then(world: Guarded) -> None:
    world.served.models["helper"] = says("hi")
    await world.admin.post("/agents", {"name": "helper", "model": "test/helper"})
    ann = await world.member("ann", permissions=(*TALK, "schedule:*"))
    process = world.served.process
    process.recovery.draining.set()  # only this test fires it
    await ann.post("/schedules", {"name": "often", "agent": "helper", "message": "Hi", "interval": "1h"})
    await process.principals.set_state(LOCAL, "ann", "disabled")
    made = await process.schedules.get(LOCAL, "often")
    assert made.next_at is not None
    with pytest.raises(Forbidden, match="agent:helper:start"):
        await process.starter(made, made.next_at)
    await process.principals.set_state(LOCAL, "ann", "active")
    await process.database.write(await process.starter(made, made.next_at))
    (row,) = await process.sessions.page(LOCAL._replace(principal="ann"))
    assert row.owner == "ann"
