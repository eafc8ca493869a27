"""A runtime: one process, one tenant, its agents, and the ways to talk to them."""

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from flux.engine.intake.inputs import NewMessage
from flux.errors import AgentNotFound, InterruptNotFound, InvalidInput, SessionNotFound, TurnLimitReached
from flux.events import AssistantSaid, Token
from flux.messages import AssistantMessage, ModelFailure, ToolResult
from flux.roles import Ref, Runtime, define_coordinator, define_runtime, define_specialist, define_tenant
from flux.settings import Settings
from flux.store import driven
from flux.store.executions import Execution
from flux.testing import Call, Reply, ScriptedModel
from tests.integration.roles.shop import EXECUTE, USUAL, Shelf, Shop, call, create, results, store

ANSWER: Any = lambda request: Reply(results(request))  # noqa: E731 - a turn of a script


async def children(runtime: Runtime, session: str) -> list[Execution]:
    """The sessions that a session drives."""
    process = await runtime.process()
    return await process.database.read(driven.children(runtime.scope, session, session))


@pytest.mark.behaviour("roles:runtime:stateful")
async def test_a_stateful_agent_is_one_session_for_all_calls_and_others_are_fresh(tmp_path: Path) -> None:
    boss = [call("counter", "one"), call("counter", "two"), call("planner", "plan"), call("planner", "again"), ANSWER]
    script = {**USUAL, "boss": boss, "planner": [Reply("first"), Reply("second")]}
    shop = Shop(script)
    async with shop.open(tmp_path) as runtime:
        done = await runtime.run("Go.")
        assert (done.state, done.text) == ("completed", "second")
        agents = sorted(str(row.agent) for row in await children(runtime, done.session))
        assert agents == ["counter", "counter", "planner"]
        assert [len(request.messages) for request in shop.models["counter"].requests] == [1, 1]
        assert [len(request.messages) for request in shop.models["planner"].requests] == [1, 3]
        rest = iter([call("planner", "more"), Reply("over")])
        shop.script = {**script, "boss": lambda request: next(rest)}
        await runtime.run("Go on.", session=done.session)
        assert len(shop.models["planner"].requests[-1].messages) == 5
        shop.script = {**script, "boss": [Reply("new here")]}
        assert (await runtime.run("Somebody else.", session="another")).text == "new here"
        assert done.usage.total > 0


@pytest.mark.behaviour("roles:runtime:max-turns")
async def test_at_the_limit_of_turns_there_is_one_forced_answer_and_the_state_is_kept(tmp_path: Path) -> None:
    def endless(request: Any) -> Reply:
        return Reply("I stop.") if request.final else Reply("", calls=(Call("getPlan"),))

    shop = Shop({**USUAL, "boss": [call("planner", "plan"), ANSWER], "planner": endless}, agents={"planner": TWO})
    async with shop.open(tmp_path) as runtime:
        done = await runtime.run("Go.")
        assert (done.state, done.error) == ("completed", None)
        assert done.text == "I stop.\n\n[planner came to its limit max_turns, so this answer was forced]"
        assert [request.final for request in shop.models["planner"].requests] == [False, False, True]
        rest = iter([call("planner", "again"), Reply("ok")])
        shop.script = {**shop.script, "boss": lambda request: next(rest)}
        assert (await runtime.run("More.", session=done.session)).state == "completed"


TWO = {"max_turns": 2}


@pytest.mark.behaviour("roles:runtime:max-turns")
async def test_a_result_says_that_the_limit_was_reached(tmp_path: Path) -> None:
    def endless(request: Any) -> Reply:
        return Reply("I stop.") if request.final else call("nobody", "x")

    shop = Shop({**USUAL, "boss": endless}, agents={"boss": TWO})
    async with shop.open(tmp_path) as runtime:
        done = await runtime.run("Go.")
        assert (done.state, done.text) == ("completed", "I stop.")
        assert isinstance(done.error, TurnLimitReached)
        assert (done.error.type, done.error.details) == ("turn_limit_reached", {"agent": "boss", "limit": "max_turns"})
        shop.script = {**USUAL, "boss": lambda request: Reply("fine")}
        again = await runtime.run("More.", session=done.session)
        assert (again.text, again.error) == ("fine", None)


@pytest.mark.behaviour("roles:runtime:nobody")
async def test_who_is_not_there_cannot_be_called(tmp_path: Path) -> None:
    shop = Shop({**USUAL, "boss": [call("nobody", "x"), call("boss", "x"), ANSWER]})
    async with shop.open(tmp_path) as runtime:
        done = await runtime.run("Go.")
        assert done.text == "There is no agent 'boss' to call. Agents: planner, doer, counter."
        with pytest.raises(AgentNotFound, match="unknown specialist 'conter'; did you mean 'counter'"):
            await runtime.run_specialist("conter", "x")
        with pytest.raises(AgentNotFound, match="unknown specialist"):
            await runtime.run_specialist("doer", "x")
        with pytest.raises(SessionNotFound):
            await runtime.settled("nothing")
        with pytest.raises(InvalidInput, match="must be text"):
            await runtime.run(" ")
        with pytest.raises(AgentNotFound):
            runtime.definition("bos")


@pytest.mark.behaviour("roles:runtime:specialist")
async def test_a_specialist_is_asked_without_the_coordinator(tmp_path: Path) -> None:
    shop = Shop({**USUAL, "counter": [Reply('{"count": 7}')]})
    async with shop.open(tmp_path) as runtime:
        done = await runtime.run_specialist("counter", "How many?")
        assert (done.data, done.state, done.plan) == ({"count": 7}, "completed", None)
    alone = define_runtime(
        tenant=define_tenant("acme"),
        agents=[define_specialist("one", model="test/counter", prompt="x")],
        providers={"test": shop.model},
    )
    async with alone.on(settings=Settings(home=tmp_path), environment={}, workspace=tmp_path) as runtime:
        with pytest.raises(AgentNotFound, match="no coordinator"):
            await runtime.run("x")
        assert (await runtime.run_specialist("one", "x")).state == "completed"


@pytest.mark.behaviour("roles:runtime:failed")
async def test_a_run_that_fails_says_why_and_the_session_goes_on(tmp_path: Path) -> None:
    shop = Shop({**USUAL, "boss": lambda request: BROKEN})
    async with shop.open(tmp_path) as runtime:
        failed = await runtime.run("Go.", session="desk")
        assert (failed.state, failed.text) == ("failed", "")
        assert "no credit" in str(failed.error)
        shop.script = {**USUAL, "boss": lambda request: Reply("fine")}
        again = await runtime.run("Go.", session="desk")
        assert (again.state, again.session) == ("completed", failed.session)


BROKEN: Any = ModelFailure("no credit", "rejected")


@pytest.mark.behaviour("roles:runtime:stream")
async def test_a_stream_gives_typed_events_until_a_person_is_needed(tmp_path: Path) -> None:
    shop = Shop({**USUAL, "boss": [Reply("I plan.", calls=call("planner", "plan").calls), Reply("Done it.")]})
    async with shop.open(tmp_path) as runtime:
        async with aclosing(runtime.stream("Order fruit.", session="desk")) as events:
            seen = [one async for one in events]
        assert {type(one.event) for one in seen} >= {Token, AssistantSaid}
        (question,) = await runtime.pending_approvals()
        assert (seen[-1].type, seen[-1].event) == ("approval_required", question)
        assert (question.channel, question.agent, question.subject) == ("plans", "planner", "restock")
        waiting = asyncio.create_task(runtime.settled("desk", wait=True))
        await runtime.respond_to_approval(question.id, approved=True)
        assert (await waiting).text == "Done it."
        assert await runtime.pending_approvals("desk") == ()


@pytest.mark.behaviour("roles:runtime:references")
async def test_a_large_value_stays_outside_the_prompt_and_reaches_the_tool_of_another_call(tmp_path: Path) -> None:
    rows = [{"sku": f"s{n}", "count": n, "secret": "hidden" * 20} for n in range(100)]

    def fetch() -> Any:
        """Fetch the stock."""
        return Ref("table", rows)

    def total(table: Ref) -> int:
        """Add up the counts."""
        return sum(row[1] for row in table.value["rows"])

    def turn(request: Any) -> Reply:
        answers = sum(isinstance(message, AssistantMessage) for message in request.messages)
        handle = next((_handle(m.content) for m in request.messages if isinstance(m, ToolResult)), "")
        read = Call("read_file", {"path": handle.replace("ref:table:", "artifact://")})
        calls = [Call("fetch"), Call("total", {"table": handle}), read, Call("total", {"table": OTHER})]
        return Reply("", calls=(calls[answers],)) if answers < 4 else Reply(results(request))

    shop = Shop({**USUAL, "counter": turn}, agents={"counter": {"tools": [fetch, total], "toolkits": ["workspace"]}})
    async with shop.open(tmp_path) as runtime:
        done = await runtime.run_specialist("counter", "Count.")
        assert done.text.startswith("there is no reference")
        told = [m for m in shop.models["counter"].requests[-1].messages if isinstance(m, ToolResult)]
        assert told[1].content == "4950"
        assert len(told[0].content) < 2_000
        assert told[2].content.startswith("there is no artifact")
        # Nobody outside of the session finds it.
        rest = iter([Reply("", calls=(Call("total", {"table": _handle(told[0].content)}),)), ANSWER])
        shop.script = {**USUAL, "counter": lambda request: _made(next(rest), request)}
        other = await runtime.run_specialist("counter", "And?")
        assert other.text.startswith("there is no reference")


OTHER = "ref:table:00000000-0000-0000-0000-000000000000"


def _made(turn: Any, request: Any) -> Any:
    return turn(request) if callable(turn) else turn


def _handle(content: str) -> str:
    start = content.find("ref:table:")
    return content[start : start + len(OTHER)]


class Pallets(Shelf):
    """What is created is a reference, and moved by it."""

    async def create_item(self, sku: str, count: int = 1) -> Any:
        """Add an item."""
        return Ref("table", [{"sku": sku, "count": count}])

    async def move(self, item: Ref, place: str) -> str:  # type: ignore[override]
        """Move items."""
        self.done.append(f"move {item.value['rows']} {place}")
        return "moved"


@pytest.mark.behaviour("roles:runtime:executor-references")
async def test_the_result_of_an_action_may_be_a_reference_that_another_one_takes(tmp_path: Path) -> None:
    move = {"type": "Move", "id": "m", "item": {"result_of": "a"}, "place": "cellar"}
    looked = [
        EXECUTE,
        lambda r: Reply("", calls=(Call("glimpseRef", {"ref": _handle(results(r)), "count": 1}),)),
        ANSWER,
    ]
    script = {"planner": [store(create("a", "apple"), move), ANSWER], "doer": looked}
    boss = [call("planner", "p"), call("doer", "d"), ANSWER]
    shop = Shop({**USUAL, "boss": boss, **script}, approval_policies="never", shelf=Pallets())
    async with shop.open(tmp_path) as runtime:
        done = await runtime.run("Go.")
        assert '"first":[["apple",1]]' in done.text
        assert shop.shelf.done == ["move [['apple', 1]] cellar"]


@pytest.mark.behaviour("roles:tenants:apart")
async def test_what_is_one_tenants_is_not_there_for_another(tmp_path: Path) -> None:
    ours, theirs = Shop(USUAL), Shop(USUAL, tenant="other")
    async with ours.open(tmp_path) as runtime, theirs.open(tmp_path) as stranger:
        asked = await runtime.run("Order fruit.", session="desk")
        (question,) = asked.pending_approvals
        assert await stranger.pending_approvals() == ()
        with pytest.raises(InterruptNotFound):
            await stranger.respond_to_approval(question.id, approved=True)
        for name in (asked.session, "desk"):
            with pytest.raises(SessionNotFound):
                await stranger.settled(name)
        other = await stranger.run("Order fruit.", session=asked.session)
        assert other.session != asked.session
        assert (other.plan or {})["version"] == 1


@pytest.mark.behaviour("roles:export:runs-the-same")
async def test_an_exported_agent_runs_without_the_runtime(tmp_path: Path) -> None:
    model = ScriptedModel([Reply("", calls=(Call("noted", {"text": "x"}),)), Reply("ok")])
    agents = [
        define_coordinator("boss", model="test/m", prompt="x", routes=["one"]),
        define_specialist("one", model="test/m", prompt="x", tools=[noted]),
    ]
    runtime = define_runtime(tenant=define_tenant("acme"), agents=agents, providers={"test": lambda name: model})
    definition = runtime.definition("one")
    other = define_runtime(
        tenant=define_tenant("acme"),
        agents=[define_specialist("two", model="test/m", prompt="x")],
        providers={"test": lambda name: model},
    )
    async with other.on(settings=Settings(home=tmp_path), environment={}, workspace=tmp_path) as elsewhere:
        process = await elsewhere.process()
        await process.agents.put(elsewhere.scope, definition, create=True, update=True)
        admitted = await process.sessions.start(elsewhere.scope, "one", NewMessage("go"))
        row = await process.sessions.get(elsewhere.scope, admitted.id)
        assert row.agent == "one"
        async with asyncio.timeout(20):
            async for frames in process.sessions.follow(elsewhere.scope, admitted.id):
                if any(frame.type == "chat_response" for frame in frames):
                    break
    assert NOTED == ["x"]


NOTED: list[str] = []


def noted(text: str) -> str:
    """Note it."""
    NOTED.append(text)
    return "noted"
