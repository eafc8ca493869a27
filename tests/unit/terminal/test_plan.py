"""Plans at a terminal: what is shown of them, and what a person's edits make of them."""

import io

import pytest

from flux.events import Planned, PlanReview, ToolDone, ToolStarted
from flux.surfaces.terminal.plain import PlainView
from flux.surfaces.terminal.plan import edited, plan_lines
from flux.surfaces.terminal.questions import Reply
from flux.surfaces.terminal.view import Projection
from tests.unit.terminal.test_questions import asked

STEPS = (
    {"name": "look", "description": "", "depends_on": [], "state": "done", "result": "seen"},
    {"name": "build", "description": "Build it.", "depends_on": ["look"], "state": "pending"},
    {"name": "ship", "description": "", "depends_on": ["build"], "state": "pending"},
)


@pytest.mark.behaviour("terminal:plan:shown")
def test_a_plan_is_shown_whole_and_then_where_it_changes() -> None:
    out = io.StringIO()
    projection = Projection(PlainView(out, out))
    running = (*STEPS[:1], STEPS[1] | {"state": "running"}, STEPS[2])
    for steps in (STEPS, running, running, running[:2]):
        projection.feed(Planned(steps=steps))
    assert out.getvalue() == (
        "Plan\n  1. look [done]\n  2. build: Build it.\n  3. ship\n"
        "Plan: 2. build: Build it. [running]\n"
        "Plan\n  1. look [done]\n  2. build: Build it. [running]\n"
    )


@pytest.mark.behaviour("terminal:plan:shown")
def test_a_step_that_changed_tells_of_its_call_and_one_that_could_not_is_shown_as_a_call() -> None:
    out = io.StringIO()
    projection = Projection(PlainView(out, out))
    projection.feed(Planned(steps=STEPS))
    running = (*STEPS[:1], STEPS[1] | {"state": "running"}, STEPS[2])
    done = ToolDone(call="c", name="start_step", status="success", outcome="success", content="")
    failed = ToolDone(call="d", name="start_step", status="error", outcome="error", content="it must wait")
    for event in (ToolStarted(call="c", name="start_step"), Planned(steps=running), done):
        projection.feed(event)
    for event in (ToolStarted(call="d", name="start_step"), failed):
        projection.feed(event)
    assert out.getvalue().partition("ship\n")[2] == (
        "Plan: 2. build: Build it. [running]\nCalling start_step()... Failed: it must wait\n"
    )


@pytest.mark.behaviour("terminal:plan:edited")
@pytest.mark.parametrize(
    ("typed", "lines"),
    [
        ("2 Build two.", ["1. look [done]", "2. build: Build two.", "3. ship"]),
        ("3. Ship it ", ["1. look [done]", "2. build: Build it.", "3. ship: Ship it"]),
        ("-2", ["1. look [done]", "2. ship"]),
        ("+ paint", ["1. look [done]", "2. build: Build it.", "3. ship", "4. paint"]),
    ],
)
def test_what_is_typed_changes_the_plan(typed: str, lines: list[str]) -> None:
    changed = edited(STEPS, typed)
    assert isinstance(changed, list)
    assert plan_lines(changed) == lines


@pytest.mark.behaviour("terminal:plan:edited")
def test_a_step_waits_for_what_the_removed_one_waited_for_and_a_long_one_gets_a_short_name() -> None:
    changed = edited(STEPS, "- 2")
    assert [step["depends_on"] for step in changed if isinstance(step, dict)] == [[], ["look"]]
    long = edited(STEPS, "+ " + "x" * 150)
    assert isinstance(long, list)
    assert (len(long[-1]["name"]), long[-1]["description"]) == (100, "x" * 150)


@pytest.mark.behaviour("terminal:plan:edited")
@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("1 Look again", "Step 1 is done already"),
        ("-1", "Step 1 is done already"),
        ("-4", "There is no step 4."),
        ("0 x", "There is no step 0."),
        ("+ ship", "There is a step 'ship' already."),
        ("+", "Type for example"),
        ("2", "Type for example"),
        ("rather not", "Type for example"),
    ],
)
def test_what_cannot_be_done_is_said(typed: str, said: str) -> None:
    assert said in str(edited(STEPS, typed))


@pytest.mark.behaviour("terminal:plan:edited")
async def test_a_reviewed_plan_is_edited_until_it_is_approved() -> None:
    review = PlanReview(id="i", digest="d", steps=STEPS)
    reply, shown, labels = await asked(review, "e", "2 Build two.", "-9", "", "a")
    assert reply == Reply("approve", content={"steps": [STEPS[0], STEPS[1] | {"description": "Build two."}, STEPS[2]]})
    assert "There is no step 9." in shown
    assert "  | 2. build: Build two.\n" in shown
    assert labels[0] == labels[-1] == "[a]pprove [e]dit [r]eject "
    assert (await asked(review, "e", "", "a"))[0] == Reply("approve")
    assert (await asked(review, "e", "-3", "", "r", "no"))[0] == Reply("reject", reason="no")


@pytest.mark.behaviour("roles:approval:terminal")
async def test_a_typed_plan_is_approved_as_it_is_or_rejected() -> None:
    review = PlanReview(id="i", digest="d", steps=STEPS, plan="restock")
    reply, _, labels = await asked(review, "a")
    assert (reply, labels[0]) == (Reply("approve"), "[a]pprove [r]eject ")
    assert (await asked(review, "r", "no"))[0] == Reply("reject", reason="no")
