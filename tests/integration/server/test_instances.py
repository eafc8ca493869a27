"""Instances of a project's agents over HTTP: prompts, streams, and input to work on later."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from flux import configure_provider, create_agent, define_tool, init_agent
from flux.agents.define.agent import AgentCreateContext
from flux.agents.harness.host import close_hosts
from flux.agents.project.discovery import Project
from flux.client.sse import Parser
from flux.errors import AgentNotFound, Forbidden
from flux.messages import ToolResult
from flux.models.configured import forget_provider
from flux.models.scripted import Call, Reply, ScriptedModel
from tests.integration.server.models import Held, says
from tests.integration.server.serving import Served, serving
from tests.integration.server.test_errors import error_of
from tests.integration.server.test_sessions import call

ASK = {"message": "hello"}


def support(ctx: AgentCreateContext) -> dict[str, Any]:
    if ctx.id == "broken":
        raise ValueError("no such ticket")

    def ticket() -> str:
        return f"ticket of {ctx.id} for {ctx.env['shop']}"

    return {
        "model": "test/support",
        "instructions": f"Help with {ctx.id}.",
        "tools": [
            define_tool("ticket", ticket, description="The ticket.", effect="read"),
            define_tool("refund", ticket, description="Pay back.", requires_approval=True),
        ],
    }


def mine(request: Any, agent: str, id: str) -> bool:
    return id != "theirs"


def project(root: Path) -> Project:
    agents = {"support": create_agent(support, name="support")}
    return Project("shop", root, agents, {}, {"support": mine}, {"shop": "flowers"})


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(tmp_path, in_process=True, project=project(tmp_path)) as served:
        yield served


async def prompt(served: Served, id: str, *, status: int = 200, **more: Any) -> Any:
    return await call(served, "POST", f"/agents/support/{id}", status, {"message": "hello", **more})


@pytest.mark.behaviour("instances:prompt:result")
async def test_a_prompt_gives_the_envelope_and_the_next_one_goes_on(shop: Served) -> None:
    model = shop.models["support"] = ScriptedModel([Reply("", calls=(Call("ticket", {}),)), Reply("one"), Reply("two")])
    found = (await prompt(shop, "t-1"))["result"]
    assert (found["text"], found["model"]) == ("one", {"provider": "scripted", "id": "test"})
    assert found["metadata"] | {"session_id": ""} == {
        "agent": "support", "id": "t-1", "session": "default", "session_id": "",
    }  # fmt: skip
    assert (await prompt(shop, "t-1"))["result"]["text"] == "two"
    seen = json.dumps([str(message) for message in model.requests[-1].messages])
    assert "ticket of t-1 for flowers" in seen
    row = await call(shop, "GET", f"/sessions/{found['metadata']['session_id']}", 200)
    assert (row["agent_name"], row["state"]) == ("support", "idle")


@pytest.mark.behaviour("instances:prompt:apart")
async def test_instances_and_sessions_do_not_see_each_other(shop: Served) -> None:
    model = shop.models["support"] = says("fine")
    odd = ["a", "A", "ü", "a b", "%2e%2e", "%252e", "a.b", "x" * 256, "a%3Fb=c", "'; drop table"]
    for id in odd:
        response = await shop.http.post(f"/agents/support/{id}", json=ASK)
        assert response.status_code == 200, (id, response.text)
    await prompt(shop, "a", session="other")
    for request in model.requests:
        assert len(request.messages) == 1


@pytest.mark.behaviour("instances:prompt:refused")
async def test_what_cannot_be_is_refused(shop: Served, in_memory: Served) -> None:
    assert "did you mean 'support'" in error_of(await shop.http.post("/agents/suport/x", json=ASK), 404)["message"]
    assert "flux dev" in error_of(await in_memory.http.post("/agents/support/x", json=ASK), 404)["message"]
    assert "256" in error_of(await shop.http.post(f"/agents/support/{'x' * 257}", json=ASK), 400)["message"]
    assert "printed" in error_of(await shop.http.post("/agents/support/a%0Ab", json=ASK), 400)["message"]
    assert "%2F" in error_of(await shop.http.post("/agents/support/a%2Fdispatch", json={"input": 1}), 400)["message"]
    assert "may not use" in error_of(await shop.http.post("/agents/support/theirs", json=ASK), 403)["message"]
    error_of(await shop.http.post("/agents/support/x", json={"message": ""}), 400)
    error_of(await shop.http.post("/agents/support/x", json={"mesage": "x"}), 400)
    failed = error_of(await shop.http.post("/agents/support/broken", json=ASK), 500)
    assert "no such ticket" in failed["message"]


@pytest.mark.behaviour("instances:prompt:busy")
async def test_a_second_prompt_is_refused_while_one_is_under_way(shop: Served) -> None:
    model = shop.models["support"] = Held([Reply("slow")] * 30)
    first = asyncio.create_task(prompt(shop, "busy"))
    await asyncio.wait_for(model.asked.wait(), 20)
    assert "working" in error_of(await shop.http.post("/agents/support/busy", json=ASK), 409)["message"]
    model.open()
    assert (await first)["result"]["text"] == "slow"
    for _ in range(20):
        await prompt(shop, "quick")


@pytest.mark.behaviour("instances:prompt:waits")
async def test_a_prompt_that_needs_a_person_answers_with_the_question(shop: Served) -> None:
    shop.models["support"] = ScriptedModel([Reply("", calls=(Call("refund", {}),)), Reply("paid back")])
    waiting = await prompt(shop, "t-2", status=202)
    (asked,) = waiting["interrupts"]
    assert (waiting["result"], waiting["status"], asked["payload"]["tool"]) == (None, "waiting", "refund")
    answer = f"/sessions/{waiting['session_id']}/interrupts/{asked['id']}"
    await call(shop, "POST", answer, 202, {"decision": "approve"})
    async with shop.http.stream("GET", f"/sessions/{waiting['session_id']}/events", headers=EVENTS) as response:
        assert "chat_response" in await until(response, "chat_response")


EVENTS = {"Accept": "text/event-stream"}


async def until(response: httpx.Response, last: str) -> list[str]:
    parser, seen = Parser(), list[str]()
    async for chunk in response.aiter_bytes():
        seen += [event.type for event in parser.feed(chunk)]
        if last in seen:
            break
    return seen


@pytest.mark.behaviour("instances:stream:events")
async def test_a_stream_tells_what_happens_and_is_read_on_where_it_broke(shop: Served) -> None:
    shop.models["support"] = ScriptedModel([Reply("", calls=(Call("ticket", {}),)), Reply("one two three")])
    headers = EVENTS | {"Idempotency-Key": "k"}
    response = await shop.http.post("/agents/support/t-3", json=ASK, headers=headers)
    events = list(Parser().feed(response.content))
    types = [event.type for event in events]
    assert [one for at, one in enumerate(types) if one != "delta" or types[at - 1] != "delta"] == [
        "start", "tool_start", "tool_end", "delta", "end",
    ]  # fmt: skip
    said = "".join(json.loads(event.data)["text"] for event in events if event.type == "delta")
    assert said == json.loads(events[-1].data)["result"]["text"] == "one two three"
    cut = types.index("delta")
    more = headers | {"Last-Event-ID": events[cut].id}
    again = list(Parser().feed((await shop.http.post("/agents/support/t-3", json=ASK, headers=more)).content))
    assert again[-1].type == "end"
    assert "start" not in [event.type for event in again]


async def fate(served: Served, id: str) -> Any:
    """What became of a dispatch, once its run has ended."""
    told = await call(served, "GET", f"/dispatches/{id}", 200)
    after = int(id.rpartition(".")[2])
    async with served.http.stream(
        "GET", f"/sessions/{told['session_id']}/events?after={after}", headers=EVENTS
    ) as response:
        async for _ in response.aiter_bytes():
            told = await call(served, "GET", f"/dispatches/{id}", 200)
            if told["status"] == "completed":
                return told
    raise AssertionError("the stream has ended")


@pytest.mark.behaviour("instances:dispatch:durable")
async def test_dispatched_input_is_worked_on_in_order_and_its_fate_is_known(shop: Served) -> None:
    model = shop.models["support"] = says("done")
    receipts = [
        await call(shop, "POST", "/agents/support/t-4/dispatch", 202, {"input": {"n": n}, "session": "case"})
        for n in range(3)
    ]
    for receipt in receipts:
        told = await fate(shop, receipt["dispatch_id"])
        assert (told["text"], told["session"], told["accepted_at"]) == ("done", "case", receipt["accepted_at"])
    assert [f'"n": {n}' in str(request.messages[-1]) for n, request in enumerate(model.requests)] == [True] * 3
    error_of(await shop.http.get("/dispatches/nothing"), 404)
    error_of(await shop.http.get(f"/dispatches/{receipts[0]['dispatch_id']}9"), 404)


@pytest.mark.behaviour("instances:dispatch:once")
async def test_a_dispatch_with_a_key_is_accepted_once(shop: Served) -> None:
    shop.models["support"] = says("done")
    headers = {"Idempotency-Key": "once"}
    ids = {
        (await shop.http.post("/agents/support/t-5/dispatch", json={"input": [1]}, headers=headers)).json()[
            "dispatch_id"
        ]
        for _ in "12"
    }
    assert len(ids) == 1
    error_of(await shop.http.post("/agents/support/t-5/dispatch", json={"input": [2]}, headers=headers), 409)


@pytest.mark.behaviour("sandbox:virtual:instance")
async def test_virtual_files_of_an_instance_outlive_the_worker(tmp_path: Path) -> None:
    async def run(id: str, session: str, command: str) -> str:
        """A command in a worker of its own."""
        call = Call("bash", {"command": command})
        model = ScriptedModel([Reply("", calls=(call,)), Reply("done")])
        async with serving(tmp_path, in_process=True, project=project(tmp_path), support=model) as served:
            await prompt(served, id, session=session)
        result = model.requests[1].messages[-1]
        assert isinstance(result, ToolResult)
        return result.content

    await run("a", "one", "echo kept > notes")
    assert "stdout:\nkept\n" in await run("a", "two", "cat notes")
    assert "stdout: (empty)" in await run("b", "one", "ls")


@pytest.mark.behaviour("client:instances")
async def test_the_client_talks_to_an_instance(shop: Served) -> None:
    ask = Reply("", calls=(Call("ticket", {}),))
    shop.models["support"] = ScriptedModel([Reply("one"), ask, Reply("two three")])
    async with shop.client.agents.connect("support", "a ü?%") as conn:
        reply = await conn.prompt("hello", session="s")
        assert reply["result"]["text"] == "one"
        told = [event async for event in conn.stream("again", session="s")]
        assert [told[0].type, told[-1].type, told[-1].data["result"]["text"]] == ["start", "end", "two three"]
        assert {"tool_start", "tool_end", "delta"} <= {event.type for event in told}
    assert (await shop.client.agents.invoke("support", "x", "hi"))["result"]["text"] == "one"
    receipt = await shop.client.agents.dispatch("support", "x", {"n": 1}, key="k")
    assert (await conn.dispatched(receipt["dispatch_id"]))["accepted_at"] == receipt["accepted_at"]
    with pytest.raises(Forbidden):
        await shop.client.agents.invoke("support", "theirs", "hi")
    with pytest.raises(AgentNotFound):
        [event async for event in shop.client.agents.stream("nobody", "x", "hi")]


@pytest.mark.behaviour("instances:code:same-session")
async def test_code_and_http_reach_the_same_session(
    shop: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = shop.models["support"] = ScriptedModel([Reply("one"), Reply("two"), Reply("three")])
    monkeypatch.setenv("FLUX_HOME", str(tmp_path))
    configure_provider("test", model=shop.models.__getitem__)
    assert shop.process.project is not None
    async with await init_agent(shop.process.project.agents["support"], id="t-9", env={"shop": "x"}) as harness:
        session = await harness.session("case")
        assert (await session.prompt("first")).text == "one"
        reply = await prompt(shop, "t-9", session="case")
        assert (reply["result"]["text"], reply["result"]["metadata"]["session_id"]) == ("two", session.id)
        assert (await session.prompt("third")).text == "three"
    assert [len(request.messages) for request in model.requests] == [1, 3, 5]
    await close_hosts()
    forget_provider("test")
