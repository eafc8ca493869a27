"""Typed plans: stored, approved by a person, executed action by action, and told about."""

from pathlib import Path
from typing import Any, cast

import pytest

from flux.engine.intake.answers import Decision
from flux.errors import InterruptDecided, InterruptNotFound, InvalidInput, PlanInvalid
from flux.events import ToolDone
from flux.messages import ToolResult
from flux.roles import ApprovalRequest, RunResult, Runtime
from flux.testing import Call, Reply
from tests.integration.roles.shop import (
    USUAL,
    Script,
    Shop,
    call,
    create,
    ended,
    entries,
    results,
    said,
    states,
    store,
)

ANSWER: Any = lambda request: Reply(results(request))  # noqa: E731 - a turn of a script
WHOLE = ["draft", "awaiting_approval", "approved", "executing", "completed"]


def script(*actions: dict[str, Any], **more: Any) -> Script:
    """The usual script with another plan."""
    return {**USUAL, "planner": [store(*actions), ANSWER], **more}


async def approve_all(runtime: Runtime, result: RunResult, *, but: str = "") -> RunResult:
    """Approve whatever is asked, but for one subject, until nothing is."""
    while result.state == "waiting":
        for question in result.pending_approvals:
            await runtime.respond_to_approval(question.id, question.subject != but, "not that one")
        result = await runtime.settled(result.session)
    return result


@pytest.mark.behaviour("roles:plan:whole")
async def test_a_plan_is_stored_approved_and_executed(tmp_path: Path, database_url: str) -> None:
    shop = Shop(USUAL)
    async with shop.open(tmp_path, database_url=database_url) as runtime:
        asked = await runtime.run("Order fruit.")
        assert asked.state == "waiting"
        (question,) = asked.pending_approvals
        assert (question.kind, question.channel, question.subject) == ("plan", "plans", "restock")
        assert [step["name"] for step in question.args["steps"]] == ["a", "b"]
        assert shop.shelf.done == []
        await runtime.respond_to_approval(question.id, approved=True)
        done = await runtime.settled(asked.session)
        assert (done.state, done.text) == ("completed", "All done.")
        assert shop.shelf.done == ["create apple 1", "create pear 1"]
        assert ended(done.plan) == {"a": "done", "b": "done"}
        assert await states(runtime, done.session) == [(1, state) for state in WHOLE]
        assert done.usage.total > 0
        with pytest.raises(InterruptDecided):
            await runtime.respond_to_approval(question.id, approved=False)


@pytest.mark.behaviour("roles:plan:rejected")
async def test_a_rejected_plan_is_not_executed_and_the_reason_comes_back(tmp_path: Path) -> None:
    second = [*USUAL["planner"][:1], store(create("c", "fig")), ANSWER]
    shop = Shop({**USUAL, "planner": second})
    async with shop.open(tmp_path) as runtime:
        asked = await runtime.run("Order fruit.")
        process, edit = await runtime.process(), Decision("approve", content={"steps": []})
        with pytest.raises(PlanInvalid, match="approved as it is"):
            await process.sessions.answer(runtime.scope, asked.session, asked.pending_approvals[0].id, edit)
        await runtime.respond_to_approval(asked.pending_approvals[0].id, False, "too much")
        again = await runtime.settled(asked.session)
        assert again.plan is not None
        assert (again.state, again.plan["version"]) == ("waiting", 2)
        assert "too much" in results(shop.models["planner"].requests[1])
        done = await approve_all(runtime, again)
        assert shop.shelf.done == ["create fig 1"]
        rejected = [(1, "draft"), (1, "awaiting_approval"), (1, "rejected")]
        assert await states(runtime, done.session) == [*rejected, *((2, state) for state in WHOLE)]


@pytest.mark.behaviour("roles:plan:does-not-fit")
async def test_a_plan_that_does_not_fit_goes_back_to_the_model_with_paths(tmp_path: Path) -> None:
    wrong = store(create("a", "apple", colour="red"), create("b", "pear", "z"))
    shop = Shop({**USUAL, "planner": [wrong, store(create("a", "apple")), ANSWER]})
    async with shop.open(tmp_path) as runtime:
        done = await approve_all(runtime, await runtime.run("Order fruit."))
        told = results(shop.models["planner"].requests[1])
        assert "`actions.0`: unknown argument 'colour'" in told
        assert "`actions.1.depends_on`: unknown action 'z'" in told
        assert (done.state, (done.plan or {})["version"]) == ("completed", 1)


@pytest.mark.behaviour("roles:plan:only-approved")
async def test_only_the_approved_newest_version_is_executed(tmp_path: Path) -> None:
    both = {"boss": [call("doer", "do it"), call("planner", "plan"), call("doer", "v2"), call("doer", "again"), ANSWER]}

    def doer(request: Any) -> Reply:
        if results(request):
            return Reply(results(request))
        return Reply("", calls=(Call("executePlan", {"version": 2} if said(request) == "v2" else {}),))

    shop = Shop({**USUAL, **both, "doer": doer}, agents={"doer": {"approval": "never"}})
    async with shop.open(tmp_path) as runtime:
        done = await approve_all(runtime, await runtime.run("Order fruit."))
        told = [entry.content for entry in await entries(runtime, done.session) if isinstance(entry, ToolDone)]
        assert "There is no plan to execute." in told[0]
        assert "Version 2 of the plan is outdated: the newest is 1, and it is approved." in told[2]
        assert shop.shelf.done == ["create apple 1", "create pear 1"]
        assert '"completed"' in told[3]


@pytest.mark.behaviour("roles:plan:only-approved")
async def test_the_rule_of_an_executor_never_approves_a_plan(tmp_path: Path) -> None:
    boss = [call("planner", "plan"), call("doer", "do it"), ANSWER]
    shop = Shop({**USUAL, "boss": boss}, agents={"doer": {"approval": {"plans": "never"}}})
    async with shop.open(tmp_path) as runtime:
        asked = await runtime.run("Order fruit.")
        await runtime.respond_to_approval(asked.pending_approvals[0].id, False)
        done = await runtime.settled(asked.session)
        assert "only an approved plan is executed" in done.text
        assert shop.shelf.done == []


@pytest.mark.behaviour("roles:plan:failed-action")
async def test_a_failed_action_stops_its_dependants_and_the_rest_is_done(tmp_path: Path) -> None:
    shop = Shop(script(create("a", "bad"), create("b", "pear", "a"), create("c", "fig"), create("d", "kiwi", "b")))
    shop.shelf.broken.add("bad")
    async with shop.open(tmp_path) as runtime:
        done = await approve_all(runtime, await runtime.run("Order fruit."))
        assert ended(done.plan) == {"a": "failed", "b": "skipped", "c": "done", "d": "skipped"}
        assert (done.plan or {})["state"] == "failed"
        assert "bad is not for sale" in (done.plan or {})["actions"][0]["result"]
        assert shop.shelf.done == ["create fig 1"]


@pytest.mark.behaviour("roles:plan:replanned")
async def test_what_failed_is_planned_again_by_way_of_the_coordinator(tmp_path: Path) -> None:
    boss = [call("planner", "plan"), call("doer", "do"), call("planner", "again"), call("doer", "do"), Reply("Done.")]

    def planner(request: Any) -> Reply:
        if isinstance(request.messages[-1], ToolResult):
            return Reply("stored")
        return store(create("a", "bad" if said(request) == "plan" else "good"))

    shop = Shop({**USUAL, "boss": boss, "planner": planner})
    shop.shelf.broken.add("bad")
    async with shop.open(tmp_path) as runtime:
        done = await approve_all(runtime, await runtime.run("Order fruit."))
        assert shop.shelf.done == ["create good 1"]
        assert [state for _, state in await states(runtime, done.session)] == [*WHOLE[:-1], "failed", *WHOLE]


@pytest.mark.behaviour("roles:plan:results")
async def test_an_action_takes_the_result_of_another_one(tmp_path: Path) -> None:
    move = {"type": "Move", "id": "m", "item": {"result_of": "a", "path": "id"}, "place": "shelf"}
    lost = {"type": "Move", "id": "l", "item": {"result_of": "a", "path": "size"}, "place": "shelf"}
    shop = Shop(script(move, create("a", "apple"), lost))
    async with shop.open(tmp_path) as runtime:
        done = await approve_all(runtime, await runtime.run("Order fruit."))
        assert shop.shelf.done == ["create apple 1", "move 1 shelf"]
        assert ended(done.plan) == {"m": "done", "a": "done", "l": "failed"}
        assert "the result of a has no 'size'" in (done.plan or {})["actions"][2]["result"]


@pytest.mark.behaviour("roles:plan:concurrent")
async def test_actions_that_do_not_depend_on_each_other_run_together(tmp_path: Path) -> None:
    shop = Shop(script(*(create(f"a{n}", f"s{n}") for n in range(4)), create("z", "last", "a0", "a3")))
    async with shop.open(tmp_path) as runtime:
        await approve_all(runtime, await runtime.run("Order fruit."))
        assert shop.shelf.most > 1
        assert shop.shelf.done[-1] == "create last 1"


@pytest.mark.behaviour("roles:plan:gated")
async def test_each_action_goes_through_the_gate(tmp_path: Path) -> None:
    plan = (create("a", "apple"), create("b", "pear"), create("c", "fig", "b"))
    shop = Shop(script(*plan), tool_rules={"create_item": {"kind": "dynamic", "value": "pears"}}, predicates=PEARS)
    async with shop.open(tmp_path) as runtime:
        asked = await runtime.run("Order fruit.")
        await runtime.respond_to_approval(asked.pending_approvals[0].id, approved=True)
        gated = await runtime.settled(asked.session)
        assert shop.shelf.done == ["create apple 1"]
        (question,) = gated.pending_approvals
        assert (question.kind, question.subject, question.agent) == ("approval", "create_item", "doer")
        assert question.args == {"action": "b", "args": {"sku": "pear"}}
        done = await approve_all(runtime, gated, but="create_item")
        assert ended(done.plan) == {"a": "done", "b": "denied", "c": "skipped"}
        assert shop.shelf.done == ["create apple 1"]


PEARS = {"pears": lambda request: request.args["sku"] == "pear"}


@pytest.mark.behaviour("roles:plan:predicate")
async def test_a_predicate_decides_about_plans_once_and_one_that_raises_asks(tmp_path: Path) -> None:
    asked: list[str] = []

    def few(request: ApprovalRequest) -> bool:
        asked.append(f"{request.channel} {request.agent} {request.subject} {len(request.args['actions'])}")
        return len(request.args["actions"]) > 5

    def broken(request: ApprovalRequest) -> bool:
        raise RuntimeError("the rules are lost")

    rule = {"kind": "dynamic", "value": "few"}
    shop = Shop(USUAL, agents={"planner": {"approval": {"plans": rule}}}, predicates={"few": few})
    async with shop.open(tmp_path / "few") as runtime:
        done = await runtime.run("Order fruit.")
        assert (done.state, asked) == ("completed", ["plans planner restock 2"])
        assert await states(runtime, done.session) == [(1, state) for state in WHOLE]
    shop = Shop(USUAL, agents={"planner": {"approval": {"plans": rule}}}, predicates={"few": broken})
    async with shop.open(tmp_path / "broken") as runtime:
        assert (await runtime.run("Order fruit.")).state == "waiting"


@pytest.mark.behaviour("roles:plan:cancelled")
async def test_a_plan_whose_run_is_stopped_is_cancelled_and_its_questions_are_closed(tmp_path: Path) -> None:
    shop = Shop(USUAL, tool_rules={"create_item": "always"})
    async with shop.open(tmp_path) as runtime:
        asked = await runtime.run("Order fruit.")
        await runtime.respond_to_approval(asked.pending_approvals[0].id, approved=True)
        gated = await runtime.settled(asked.session)
        process = await runtime.process()
        await process.sessions.cancel(runtime.scope, asked.session)
        stopped = await runtime.settled(asked.session)
        assert (stopped.state, str(stopped.error)) == ("failed", "the run was stopped")
        with pytest.raises(InterruptDecided):
            await runtime.respond_to_approval(gated.pending_approvals[0].id, approved=True)
        assert shop.shelf.done == []
        assert (stopped.plan or {})["state"] == "cancelled"
        rest = iter([call("doer", "go on"), call("planner", "plan again"), Reply("Done.")])
        shop.script = {**USUAL, "boss": lambda request: next(rest), "planner": lambda r: store(create("z", "fig"))}
        again = await runtime.run("Go on.", session=asked.session)
        refused = results(shop.models["boss"].requests[-1])
        assert "was stopped while it was executed" in refused or "is cancelled: only an approved plan" in refused
        assert (again.plan or {})["version"] == 2
        assert [state for _, state in await states(runtime, asked.session)][3:] == [
            "executing", "cancelled", "draft", "awaiting_approval",
        ]  # fmt: skip


@pytest.mark.behaviour("roles:approval:unknown")
async def test_only_approvals_are_approved_and_only_those_there_are(tmp_path: Path) -> None:
    ask = Reply("", calls=(Call("ask_user", {"question": "Which?"}),))
    shop = Shop({**USUAL, "boss": [ask, ANSWER]}, agents={"boss": {"tools": ["ask_user"]}})
    async with shop.open(tmp_path) as runtime:
        asked = await runtime.run("Hello")
        with pytest.raises(InvalidInput, match="kind input"):
            await runtime.respond_to_approval(asked.pending_approvals[0].id, approved=True)
        with pytest.raises(InterruptNotFound):
            await runtime.respond_to_approval("nothing", approved=True)
        with pytest.raises(InvalidInput, match="True or False"):
            await runtime.respond_to_approval(asked.pending_approvals[0].id, approved=cast(Any, "no"))
