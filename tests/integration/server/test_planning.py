"""Plans over HTTP: the events of a plan, and the review of one."""

from typing import Any

import pytest

from flux.errors import InterruptDecided, PlanInvalid
from flux.events import Planned, PlanReview, type_of
from flux.models.scripted import Call, Reply, ScriptedModel
from tests.integration.server.serving import Served
from tests.integration.server.test_sessions import call

STEPS = [{"name": "look"}, {"name": "build", "depends_on": ["look"]}]
DONE = Call("mark_step_done", {"step": "look", "result": "seen"})


async def agent(served: Served) -> str:
    script = [Reply("", calls=(Call("create_plan", {"steps": STEPS}),)), Reply("", calls=(DONE,)), Reply("ok")]
    return await served.agent(ScriptedModel(script), planning=True, approve_plan=True)


@pytest.mark.behaviour("server:plans:reviewed")
async def test_a_plan_is_reviewed_edited_and_followed_by_its_events(stored: Served) -> None:
    session = await stored.client.start_session(await agent(stored))
    review = [event.event async for event in session.send("go")][-1]
    assert isinstance(review, PlanReview)
    (asked,) = await session.interrupts()
    assert (asked["kind"], asked["id"], asked["payload"]["digest"]) == ("plan", review.id, review.digest)
    assert asked["payload"]["steps"] == list(review.steps)
    steps = [{"name": "look"}, {"name": "build", "depends_on": ["lok"]}]
    with pytest.raises(PlanInvalid, match="unknown step 'lok'; did you mean 'look'"):
        await session.answer(review.id, "approve", content={"steps": steps})
    content = {"steps": [*review.steps, {"name": "paint", "depends_on": ["build"]}]}
    events = [event.event async for event in session.resolve(review.id, "approve", content=content)]
    plans = [event for event in events if isinstance(event, Planned)]
    assert [[step["state"] for step in plan.steps] for plan in plans] == [["pending"] * 3, ["done", *["pending"] * 2]]
    assert plans[0].digest == plans[1].digest != review.digest
    assert type_of(events[-1]) == "chat_response"
    with pytest.raises(InterruptDecided):
        await session.answer(review.id, "reject")


@pytest.mark.behaviour("server:plans:reviewed")
async def test_what_an_edited_plan_lacks_is_one_clear_error(in_memory: Served) -> None:
    session = await in_memory.client.start_session(await agent(in_memory))
    review = [event.event async for event in session.send("go")][-1]
    assert isinstance(review, PlanReview)
    path = f"/sessions/{session.id}/interrupts/{review.id}"
    wrongs: list[Any] = ["yes", [], {"steps": {}}, {"steps": []}, {"steps": [{"nmae": "x"}]}, {"steps": [{"name": 5}]}]
    for content in wrongs:
        wrong = await call(in_memory, "POST", path, 400, {"decision": "approve", "content": content})
        assert wrong["error"]["type"] == "plan_invalid"
        assert "\n" not in wrong["error"]["message"]
    assert len(await session.interrupts()) == 1
    events = [event.event async for event in session.resolve(review.id, "reject", reason="no")]
    assert not [event for event in events[:2] if isinstance(event, Planned)]
