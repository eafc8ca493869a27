"""Actions of a plan that wait: for an answer of a person, or for a time."""

import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from flux.engine.intake.answers import Decision
from flux.roles import (
    RunResult,
    Runtime,
    TaggedUnion,
    define_coordinator,
    define_executor,
    define_plan,
    define_planner,
    define_runtime,
    define_tenant,
    define_tool,
)
from flux.settings import Settings
from flux.testing import Call, Reply, ScriptedModel
from flux.tools.base import Done, Later, NeedsInput, ToolContext, ToolOutcome
from tests.integration.roles.shop import ended


class Ask(BaseModel):
    """Ask the person."""

    question: str


class Order(BaseModel):
    """Order something."""

    what: str


class Work(BaseModel):
    actions: list[TaggedUnion[Ask, Order]]


class Desk:
    """A runtime whose plan has an action that asks and one that takes the answer; `order` is what orders."""

    def __init__(self, order: Any, *actions: dict[str, Any], effect: Any = "once", **rules: Any) -> None:
        plan = define_plan(
            "work", schema=Work, actions={Ask: "ask_user", Order: define_tool("order", order, effect=effect, **rules)}
        )
        script = {
            "boss": [
                Reply(calls=(Call("call_agent", {"agent": "planner", "prompt": "plan"}),)),
                Reply(calls=(Call("call_agent", {"agent": "doer", "prompt": "do"}),)),
                Reply("Done."),
            ],
            "planner": [Reply(calls=(Call("storePlan", {"plan": {"actions": list(actions)}}),)), Reply("stored")],
            "doer": [Reply(calls=(Call("executePlan"),)), Reply("executed")],
        }
        self.runtime = define_runtime(
            tenant=define_tenant("acme"),
            agents=[
                define_coordinator("boss", model="test/boss", prompt="x", routes=["planner", "doer"]),
                define_planner("planner", model="test/planner", prompt="x", plan=plan, approval="never"),
                define_executor("doer", model="test/doer", prompt="x", plan=plan),
            ],
            providers={"test": lambda name: ScriptedModel(script[name], name=f"test/{name}")},
        )

    @asynccontextmanager
    async def open(self, home: Path, **more: Any) -> Any:
        """The runtime on a home."""
        settings = Settings(home=home, synchronous="normal", **more)
        async with self.runtime.on(settings=settings, environment={}, workspace=home) as runtime:
            yield runtime


async def answer(runtime: Runtime, result: RunResult, decision: Decision) -> RunResult:
    """Answer the only open question."""
    (question,) = result.pending_approvals
    process = await runtime.process()
    await process.sessions.answer(runtime.scope, result.session, question.id, decision)
    return await runtime.settled(result.session)


ASKED = {"type": "Ask", "id": "which", "question": "Which fruit?"}
TAKES = {"type": "Order", "id": "buy", "what": {"result_of": "which"}}


@pytest.mark.behaviour("roles:plan:action-asks")
async def test_an_action_asks_a_person_and_goes_on_in_another_process(tmp_path: Path, database_url: str) -> None:
    done: list[str] = []

    def order(what: str) -> str:
        """Order something."""
        done.append(what)
        return f"ordered {what}"

    desk = Desk(order, ASKED, TAKES, {"type": "Order", "id": "other", "what": "milk"})
    async with desk.open(tmp_path, database_url=database_url) as runtime:
        asked = await runtime.run("Go.", session="desk")
        (question,) = asked.pending_approvals
        assert (question.kind, question.channel, question.subject) == ("input", None, "Which fruit?")
        assert done == ["milk"]
    async with desk.open(tmp_path, database_url=database_url) as runtime:
        result = await answer(runtime, await runtime.settled("desk"), Decision("answer", content="figs"))
        assert (result.state, result.text) == ("completed", "Done.")
        assert ended(result.plan) == {"which": "done", "buy": "done", "other": "done"}
        assert done == ["milk", "figs"]


@pytest.mark.behaviour("roles:plan:action-asks")
@pytest.mark.parametrize(("decision", "status"), [("accept", "done"), ("decline", "failed")])
async def test_a_tool_that_acts_once_elicits_and_acts_with_the_answer(
    tmp_path: Path, decision: str, status: str
) -> None:
    calls: list[tuple[int, str]] = []

    async def order(what: str, context: ToolContext) -> ToolOutcome:
        """Order something, after a login."""
        calls.append((len(context.answers), context.call))
        shown = {"mode": "url", "server_name": "shop", "elicitation_id": "e1", "url": "https://shop.example/login"}
        if context.answer is None:
            return NeedsInput("elicitation", {"message": "Log in", "state": {"at": what}, **shown})
        if context.answer.decision != "accept":
            raise ValueError("nobody has logged in")
        return Done(f"ordered by {getattr(context.answer.question, 'state', None)}")

    desk = Desk(order, {"type": "Order", "id": "buy", "what": "figs"}, approval="always")
    async with desk.open(tmp_path) as runtime:
        asked = await answer(runtime, await runtime.run("Go."), Decision("approve"))
        assert asked.pending_approvals[0].kind == "elicitation"
        result = await answer(runtime, asked, Decision(decision))
        assert ended(result.plan) == {"buy": status}
        assert [given for given, _ in calls] == [0, 1]
        assert len({call for _, call in calls}) == 1


@pytest.mark.behaviour("roles:plan:action-asks")
async def test_an_action_that_asks_twice_gets_both_answers_and_a_stop_closes_its_question(tmp_path: Path) -> None:
    async def order(what: str, context: ToolContext) -> ToolOutcome:
        """Order something."""
        given = [str(one.content) for one in context.answers]
        asked = NeedsInput("input", {"question": f"After {given}?"})
        return asked if len(given) < 2 else Done(" and ".join(given))

    desk = Desk(order, {"type": "Order", "id": "buy", "what": "figs"})
    async with desk.open(tmp_path) as runtime:
        asked = await answer(runtime, await runtime.run("Go.", session="one"), Decision("answer", content="red"))
        assert asked.pending_approvals[0].subject == "After ['red']?"
        result = await answer(runtime, asked, Decision("answer", content="blue"))
        assert (result.plan or {})["actions"] == [{"id": "buy", "status": "done", "result": "red and blue"}]
        stopped = await runtime.run("Go.", session="two")
        process = await runtime.process()
        await process.sessions.cancel(runtime.scope, stopped.session)
        result = await runtime.settled("two")
        assert ((result.plan or {})["state"], await runtime.pending_approvals()) == ("cancelled", ())


@pytest.mark.behaviour("roles:plan:action-later")
async def test_an_action_goes_on_later_and_one_without_a_time_fails(tmp_path: Path) -> None:
    tries: list[str] = []

    async def order(what: str) -> ToolOutcome:
        """Order something."""
        tries.append(what)
        if what == "never":
            return Later()
        return Later(time.time() + 0.05) if tries.count(what) == 1 else Done("ordered")

    actions = ({"type": "Order", "id": id, "what": id} for id in ("soon", "never"))
    async with Desk(order, *actions).open(tmp_path) as runtime:
        result = await runtime.run("Go.")
        assert ended(result.plan) == {"soon": "done", "never": "failed"}
        assert tries.count("soon") == 2
        assert "waits for something else" in (result.plan or {})["actions"][1]["result"]
