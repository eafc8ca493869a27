"""Agents as workflows: the documented contract of agents/agent_chat, whoever talks behind it."""

import json
from typing import Any

import pytest

from flux.messages import ModelFailure
from flux.models.scripted import Call, Reply, ScriptedModel
from tests.integration.server.conversations import talker
from tests.integration.server.models import Held, says
from tests.integration.server.serving import Served
from tests.integration.server.test_runs import streamed
from tests.integration.server.test_sessions import call, refused

CHAT = "/workflows/agents/agent_chat"
SILENCE = {"type": "chat_response", "content": None, "turn": 0}


async def started(served: Served, agent: str, workflow: str = "agent_chat") -> str:
    """The id of a session that was started as an execution and waits."""
    shown = await call(served, "POST", f"/workflows/agents/{workflow}/run/sync", 200, {"agent": agent})
    assert (shown["state"], shown["input"], shown["agent"]) == ("PAUSED", {"agent": agent}, agent)
    assert shown["output"]["type"] == "chat_response"
    return str(shown["execution_id"])


async def resumed(
    served: Served, id: str, input: Any, mode: str = "sync", workflow: str = "agent_chat"
) -> dict[str, Any]:
    """What a resume is answered with."""
    path = f"/workflows/agents/{workflow}/resume/{id}/{mode}"
    return await call(served, "POST", path, 202 if mode == "async" else 200, input)


@pytest.mark.behaviour("conversation:contract:sync")
async def test_an_agent_is_started_and_resumed_as_a_workflow(stored: Served) -> None:
    agent = await stored.agent(says("hello", "again"))
    id = await started(stored, agent)
    shown = await call(stored, "GET", f"/executions/{id}", 200)
    assert (shown["kind"], shown["workflow"], shown["output"]) == ("session", "agents/agent_chat", SILENCE)
    first = await resumed(stored, id, {"message": "hi"})
    assert (first["state"], first["output"]) == ("PAUSED", {"type": "chat_response", "content": "hello", "turn": 1})
    assert (await resumed(stored, id, {"message": "hi"}, "async"))["execution_id"] == id
    at_once = await call(stored, "POST", f"{CHAT}/run/sync", 200, {"agent": agent, "message": "hi"})
    assert at_once["output"]["content"] == "hello"
    found = {row["execution_id"] async for row in stored.client.pages("/executions", workflow="agents/agent_chat")}
    assert {id, at_once["execution_id"]} <= found


@pytest.mark.behaviour("conversation:contract:own")
async def test_an_agent_with_its_own_workflow_keeps_the_same_contract(stored: Served) -> None:
    agent = await talker(stored)
    for workflow in ("agent_chat", agent):
        id = await started(stored, agent, workflow)
        assert (await call(stored, "GET", f"/executions/{id}", 200))["output"] == SILENCE
        shown = await resumed(stored, id, {"message": "hello"}, workflow=workflow)
        assert (shown["state"], shown["output"]) == (
            "PAUSED", {"type": "chat_response", "content": "HELLO", "turn": 1}
        )  # fmt: skip
        assert shown["workflow"] == f"agents/{agent}"
        asked = await resumed(stored, id, {"message": "login"}, workflow=workflow)
        assert (asked["waiting_for"], asked["output"]["elicitation_id"]) == ("elicitation", "el-1")
        assert await refused(stored, "POST", f"{CHAT}/resume/{id}/sync", 409, {"message": "x"}) == "not_paused"
        response = {"elicitation_response": {"elicitation_id": "el-1", "action": "decline"}}
        assert "decline" in (await resumed(stored, id, response, workflow=workflow))["output"]["content"]
        form = await resumed(stored, id, {"message": "form"}, workflow=workflow)
        assert (form["pause"], form["output"]) == ("form", {"type": "form", "fields": ["name"]})
        assert (await resumed(stored, id, {"any": "thing"}, workflow=workflow))["output"]["content"] == (
            "{'any': 'thing'}"
        )
        done = await resumed(stored, id, {"message": "done"}, workflow=workflow)
        assert (done["state"], done["output"]["agent"]) == ("COMPLETED", agent)
        path = f"/workflows/agents/{workflow}/resume/{id}/sync"
        assert await refused(stored, "POST", path, 400, {"message": "x"}) == "execution_finished"


@pytest.mark.behaviour("conversation:contract:stream")
async def test_a_stream_tells_states_and_tokens(in_memory: Served) -> None:
    for agent, name in (
        (await in_memory.agent(says("one two")), "agent_chat"),
        (own := await talker(in_memory, model=says("one two")), own),
    ):
        frames = await streamed(in_memory, f"{CHAT}/run/stream", {"agent": agent})
        assert frames[-1].type == f"{name}.execution.paused"
        last = json.loads(frames[-1].data)
        assert (last["state"], last["output"]) == ("PAUSED", SILENCE)
        frames = await streamed(in_memory, f"{CHAT}/resume/{last['execution_id']}/stream", {"message": "ask"})
        progress = [json.loads(frame.data) for frame in frames if frame.type == "task.progress"]
        assert "".join(one["value"]["token"] for one in progress) == "one two"
        assert {one["type"] for one in progress} == {"TASK_PROGRESS"}
        states = [frame.type for frame in frames if frame.type != "task.progress"]
        assert states[-1] == f"{name}.execution.paused"
        assert f"{name}.execution.running" in states
        assert json.loads(frames[-1].data)["output"] == {"type": "chat_response", "content": "one two", "turn": 1}


@pytest.mark.behaviour("conversation:contract:approval")
async def test_an_approval_pauses_and_is_given_by_the_routes_of_executions(stored: Served) -> None:
    agent = await stored.agent(
        says_calls("shell", {"command": "true"}), tools=["shell"], tool_approvals={"shell": True}
    )
    id = await started(stored, agent)
    shown = await resumed(stored, id, {"message": "go"})
    assert (shown["state"], shown["output"]["type"], shown["output"]["tool"]) == (
        "PAUSED", "approval_required", "shell"
    )  # fmt: skip
    approved = await call(stored, "POST", f"/executions/{id}/approvals/{shown['output']['id']}/approve", 200)
    assert approved["status"] == "approved"


def says_calls(tool: str, args: dict[str, Any]) -> Any:
    """A model that calls a tool, and then says so."""
    return ScriptedModel([Reply("", (Call(tool, args),)), Reply("done")])


@pytest.mark.behaviour("conversation:contract:failed")
async def test_a_failed_run_is_a_pause_with_its_error_and_a_stopped_session_is_cancelled(in_memory: Served) -> None:
    agent = await in_memory.agent(ScriptedModel([ModelFailure("no credit", "auth")]))
    id = await started(in_memory, agent)
    shown = await resumed(in_memory, id, {"message": "hi"})
    assert (shown["state"], bool(shown["error"])) == ("PAUSED", True)
    ended = await call(in_memory, "POST", f"/executions/{id}/cancel", 202)
    assert (ended["state"], ended["output"]) == (
        "CANCELLED",
        {"type": "session_end", "reason": "user_exit", "turns": 0},
    )


@pytest.mark.behaviour("conversation:contract:busy")
async def test_what_works_is_not_resumed(in_memory: Served) -> None:
    model = Held([Reply("never")])
    id = await started(in_memory, await in_memory.agent(model))
    await resumed(in_memory, id, {"message": "hi"}, "async")
    await model.asked.wait()
    assert (await call(in_memory, "GET", f"/executions/{id}", 200))["state"] == "RUNNING"
    assert await refused(in_memory, "POST", f"{CHAT}/resume/{id}/sync", 409, {"message": "x"}) == "not_paused"
    model.open()


@pytest.mark.behaviour("conversation:contract:input")
@pytest.mark.parametrize(
    "input",
    [
        None,
        7,
        {},
        {"agent": 7},
        {"agent": "x", "more": 1},
        {"agent": "AGENT", "message": ""},
        {"agent": "AGENT", "message": "\0"},
    ],
)
async def test_wrong_input_is_refused(in_memory: Served, input: Any) -> None:
    agent = await talker(in_memory)
    given = {**input, "agent": agent} if isinstance(input, dict) and input.get("agent") == "AGENT" else input
    assert await refused(in_memory, "POST", f"{CHAT}/run/sync", 400, given) == "invalid_input"
    id = await started(in_memory, agent)
    for wrong in (input, {"message": 7}, {"message": "x", "elicitation_response": {"action": "accept"}}):
        assert await refused(in_memory, "POST", f"{CHAT}/resume/{id}/sync", 400, wrong) == "invalid_input"
    other = await in_memory.agent(says("hi"))
    assert await refused(in_memory, "POST", f"/workflows/agents/{agent}/run/sync", 400, {"agent": other})
    assert await refused(in_memory, "POST", f"/workflows/agents/{other}/run/sync", 404, {"agent": other})
    assert await refused(in_memory, "POST", f"{CHAT}/run/sync", 404, {"agent": "nobody"}) == "agent_not_found"
    assert await refused(in_memory, "POST", f"/workflows/agents/{other}/resume/{id}/sync", 404, {"message": "x"})
