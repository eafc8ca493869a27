"""The workflow of an agent: how it is stored, which one is meant, and what is refused."""

import asyncio
import time
from typing import Any

import pytest

from flux.agents.types import ChatResponseOutput
from flux.engine.dispatching.pools import pool_of
from flux.engine.encoding.values import encode_value, readable
from flux.store import executions
from flux.store.database import LOCAL
from tests.integration.server.conversations import greeted, source, talker
from tests.integration.server.models import says
from tests.integration.server.serving import Served
from tests.integration.server.streams import history
from tests.integration.server.test_conversations import told, until
from tests.integration.server.test_sessions import call, refused

FLOW = "from flux import pause, workflow\n"
TALK = FLOW + '@workflow{options}\nasync def talk(ctx):\n    return await pause("x", output={output})\n'
MESSAGE = '{"type": "chat_response", "content": "VERSION", "turn": 0}'


def agent_of(name: str, text: str) -> dict[str, Any]:
    return {"name": name, "model": "scripted/echo", "workflow_file": {"source": text}}


def talk(options: str = "", output: str = MESSAGE) -> str:
    """The source of a workflow that talks."""
    return TALK.replace("{options}", options).replace("{output}", output)


@pytest.mark.behaviour("conversation:file:stored")
async def test_the_file_is_stored_with_its_digest_and_registered_under_the_name_of_the_agent(stored: Served) -> None:
    agent = await talker(stored)
    shown = await call(stored, "GET", f"/agents/{agent}", 200)
    file = shown["definition"]["workflow_file"]
    assert (file["name"], len(file["digest"])) == ("talk.py", 32)
    registered = await call(stored, "GET", f"/workflows/agents/{agent}?source=true", 200)
    assert (registered["source"], registered["digest"]) == (file["source"], file["digest"])
    assert await refused(stored, "GET", "/workflows/agents/talk", 404) == "workflow_not_found"
    other = await stored.agent(says("by myself"))
    session = await stored.client.start_session(other, "hello")
    assert "by myself" in str(await history(stored.client, session.id))
    again = await call(stored, "PUT", f"/agents/{agent}", 200, shown["definition"])
    assert again["version"] == 1


@pytest.mark.behaviour("conversation:file:versions")
async def test_a_session_stays_with_the_workflow_it_began_with(in_memory: Served) -> None:
    await call(in_memory, "POST", "/agents", 201, agent_of("versioned", talk().replace("VERSION", "one")))
    first = (await in_memory.client.start_session("versioned")).id
    changed = agent_of("versioned", talk().replace("VERSION", "two"))
    assert (await call(in_memory, "PUT", "/agents/versioned", 200, changed))["version"] == 2
    second = (await in_memory.client.start_session("versioned")).id
    for id, content, version in ((first, "one", 1), (second, "two", 2)):
        assert f'"content":"{content}"' in str(await history(in_memory.client, id))
        assert (await until(in_memory, id, "idle"))["agent_version"] == version
    # Back to the first: its sessions run the first source.
    await call(in_memory, "PUT", "/agents/versioned", 200, agent_of("versioned", talk().replace("VERSION", "one")))
    third = (await in_memory.client.start_session("versioned")).id
    assert '"content":"one"' in str(await history(in_memory.client, third))


@pytest.mark.behaviour("conversation:file:gone")
async def test_without_the_file_or_the_agent_the_workflow_is_gone_and_its_sessions_go_on(in_memory: Served) -> None:
    for path, method, body in (("", "PUT", {"model": "scripted/echo"}), ("", "DELETE", None)):
        id = await greeted(in_memory)
        agent = (await in_memory.client.session(id).info())["agent_name"]
        await call(in_memory, method, f"/agents/{agent}{path}", 204 if body is None else 200, body)
        assert await refused(in_memory, "GET", f"/workflows/agents/{agent}", 404) == "workflow_not_found"
        assert (await told(in_memory, id, "hello"))[-1].content == "HELLO"


@pytest.mark.behaviour("conversation:file:refused")
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "declares no workflow"),
        ("def (", "does not parse"),
        ("x = 1", "declares no workflow"),
        (talk() + talk().replace(FLOW, "").replace("def talk", "def other"), "default/other, default/talk"),
        (talk(".with_options(namespace='agents', schedule=interval(hours=1))"), "has a schedule"),
        (talk(".with_options(affinity={'a': 'x|y'})"), "cannot be used"),
        ("\ud800", "not Unicode"),
        ("#" * 1_100_000, "1,048,576"),
    ],
)
async def test_a_file_that_cannot_talk_is_refused_at_create(in_memory: Served, text: str, says: str) -> None:
    text = text.replace(FLOW, FLOW + "from flux import interval\n")
    if text == "\ud800":
        response = await in_memory.http.post(
            "/agents",
            content=b'{"name":"x","model":"scripted/echo","workflow_file":{"source":"\\ud800"}}',
            headers={"content-type": "application/json"},
        )
        assert response.status_code == 400, response.text
        return
    error = (await call(in_memory, "POST", "/agents", 400, agent_of("refused", text)))["error"]
    assert (error["type"], says in error["message"]) == ("definition_invalid", True), error
    assert await refused(in_memory, "GET", "/agents/refused", 404) == "agent_not_found"


@pytest.mark.behaviour("conversation:file:fields")
@pytest.mark.parametrize("file", ["talk.py", 7, {"name": "x"}, {"source": 7}, {"source": talk(), "digest": "other"}])
async def test_what_is_no_file_is_refused(in_memory: Served, file: Any) -> None:
    body = agent_of("refused", "") | {"workflow_file": file}
    error = (await call(in_memory, "POST", "/agents", 400, body))["error"]
    assert "workflow_file" in error["message"]


@pytest.mark.behaviour("conversation:file:names")
async def test_the_workflow_of_an_agent_changes_with_the_agent_alone(in_memory: Served) -> None:
    agent = await talker(in_memory)
    for name in (agent, "agent_chat"):
        text = talk(f".with_options(namespace='agents', name='{name}')")
        response = await in_memory.http.post("/workflows", files={"file": ("talk.py", text.encode())})
        assert (response.status_code, response.json()["error"]["type"]) == (400, "source_invalid")
    free = talk(".with_options(namespace='agents', name='mine')")
    await in_memory.client.upload("/workflows", "talk.py", free.encode())
    error = (await call(in_memory, "POST", "/agents", 400, agent_of("mine", talk())))["error"]
    assert "there is a workflow agents/mine already" in error["message"]
    chosen = talk(".with_options(namespace='agents')") + talk().replace(FLOW, "").replace("def talk", "def other")
    await call(in_memory, "POST", "/agents", 201, agent_of("chosen", chosen))
    colleague = {"name": "boss", "model": "scripted/echo", "agents": [agent]}
    await call(in_memory, "PUT", f"/agents/{agent}", 200, agent_of(agent, talk()) | {"description": "talks"})
    assert "delegated" in (await call(in_memory, "POST", "/agents", 400, colleague))["error"]["message"]


@pytest.mark.behaviour("conversation:file:affinity")
async def test_labels_of_the_workflow_pin_its_sessions(in_memory: Served) -> None:
    text = source(affinity=', affinity={"role": "harness"}')
    await call(in_memory, "POST", "/agents", 201, agent_of("pinned", text))
    id = (await in_memory.client.start_session("pinned", "hello")).id
    row = await in_memory.process.database.read(executions.get(LOCAL, id))
    assert row is not None
    assert (row.pool, row.state) == (pool_of({"role": "harness"}), "scheduled")


@pytest.mark.behaviour("conversation:file:scheduled")
async def test_a_schedule_of_the_agent_talks_to_its_workflow(in_memory: Served) -> None:
    agent = await talker(in_memory, "Welcome!")
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 1))
    await call(
        in_memory, "POST", "/schedules", 201, {"name": "morning", "agent": agent, "message": "hello", "once": at}
    )
    ends = await history(in_memory.client, await begun(in_memory, agent), ends=2)
    assert '"content":"HELLO"' in str(ends)


async def begun(served: Served, agent: str) -> str:
    """The session of an agent as soon as there is one."""
    async with asyncio.timeout(15):
        while True:
            for row in (await call(served, "GET", f"/agents/{agent}/sessions", 200))["items"]:
                return str(row["id"])


def timed(after: int) -> str:
    """The source of a workflow that waits so many seconds for a message, and holds when it is told to."""
    return (
        "import asyncio\nfrom flux import task\n"
        + FLOW
        + "@task\nasync def holds():\n    await asyncio.Event().wait()\n"
        "@workflow\nasync def talk(ctx):\n"
        f'    given = await pause("x", output={MESSAGE}, after={after})\n'
        '    if given == {"message": "hold"}:\n        await holds()\n'
        '    return {"given": given}\n'
    )


@pytest.mark.behaviour("conversation:sessions:timed")
async def test_an_answer_may_wake_by_itself(stored: Served) -> None:
    ids: dict[int, str] = {}
    for after in (5, 2, 600):  # to be stopped meanwhile, to be late, to be answered
        await call(stored, "PUT", f"/agents/timed{after}?create=true", 200, agent_of(f"timed{after}", timed(after)))
        ids[after] = (await stored.client.start_session(f"timed{after}")).id
        if after == 5:
            assert (await until(stored, ids[5], "waiting"))["waiting_for"] == "message"
            await stored.client.session(ids[5]).post("hold")
            await until(stored, ids[5], "running")
            await stored.client.session(ids[5]).cancel()
    await until(stored, ids[600], "waiting")
    await told(stored, ids[600], "hello")
    for after, given in ((600, {"message": "hello"}), (2, None), (5, None)):
        await until(stored, ids[after], "ended")
        assert (await call(stored, "GET", f"/executions/{ids[after]}", 200))["output"] == {"given": given}


@pytest.mark.behaviour("conversation:file:types")
def test_what_a_workflow_says_is_plain_json() -> None:
    shown = readable(encode_value(ChatResponseOutput("hi", 1)))
    assert shown == {"type": "chat_response", "content": "hi", "turn": 1}
