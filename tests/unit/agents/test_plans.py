"""Plans as values: what may follow what, and what is refused in one line."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux.agents.history.plan import MAX_NAME, Plan, Step, drafted, edited
from flux.errors import PlanInvalid

HOUSE = (
    {"name": "ground"},
    {"name": "walls", "description": "Four of them.", "depends_on": ["ground"]},
    {"name": "roof", "depends_on": ["walls"]},
    {"name": "garden", "depends_on": ["ground"]},
)


def planned(*steps: dict[str, Any], most: int = 20) -> Plan:
    return Plan().replanned(drafted(steps), most)


def names(steps: tuple[Step, ...]) -> list[str]:
    return [step.name for step in steps]


def states(plan: Plan) -> dict[str, str]:
    return {step.name: step.state for step in plan.steps}


@pytest.mark.behaviour("plans:steps:order")
def test_a_step_may_start_when_those_it_depends_on_are_done() -> None:
    plan = planned(*HOUSE)
    assert names(plan.ready()) == ["ground"]
    with pytest.raises(PlanInvalid, match="'roof' must wait for walls"):
        plan.started("roof")
    plan = plan.started("ground").done("ground", "level")
    assert names(plan.ready()) == ["walls", "garden"]
    plan = plan.done("walls", "stand").started("roof").failed("roof", "no tiles")
    assert states(plan) == {"ground": "done", "walls": "done", "roof": "failed", "garden": "pending"}
    assert plan.steps[2].reason == "no tiles"
    assert states(plan.started("roof").done("roof", "on"))["roof"] == "done"
    assert planned(*HOUSE).failed("ground", "mud").waiting_for("ground") == ("walls", "roof", "garden")


@pytest.mark.behaviour("plans:steps:order")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda plan: plan.started("walls"), "step 'walls' must wait for ground"),
        (lambda plan: plan.done("walls", "x"), "step 'walls' must wait for ground"),
        (lambda plan: plan.started("grund"), "unknown step 'grund'; did you mean 'ground'?"),
        (lambda plan: plan.started("ground").started("ground"), "step 'ground' is running already"),
        (lambda plan: plan.done("ground", "x").started("ground"), "step 'ground' is done already"),
        (lambda plan: plan.done("ground", "x").done("ground", "y"), "step 'ground' is done already"),
        (lambda plan: plan.failed("ground", "x").done("ground", "y"), "is failed already; start it again first"),
    ],
)
def test_a_step_that_cannot_change_so_is_left_alone(change: Any, said: str) -> None:
    with pytest.raises(PlanInvalid) as raised:
        change(planned(*HOUSE))
    assert said in str(raised.value)


@pytest.mark.behaviour("plans:make:checked")
@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([], "at least one step"),
        (["ground"], "step 1 must be a mapping"),
        ([{"name": ""}], "step 1: its name must have between 1 and 100"),
        ([{"name": " \n"}], "step 1: its name must have between 1 and 100"),
        ([{"name": "x" * (MAX_NAME + 1)}], "between 1 and 100"),
        ([{"description": "no name"}], "step 1: "),
        ([{"name": 5}], "step 1: "),
        ([{"name": "a", "depends_on": "b"}], "step 1: "),
        ([{"name": "a", "description": "x" * 2_001}], "more than 2,000 characters"),
        ([{"name": "a", "depend_on": []}], "did you mean 'depends_on'?"),
        ([{"name": "a"}, {"name": " a "}], "two steps are called 'a'"),
        ([{"name": "a", "depends_on": ["b"]}], "step 'a' depends on unknown step 'b'"),
        ([{"name": "a", "depends_on": ["a"]}], "wait for each other: a -> a"),
        ([{"name": "a", "depends_on": ["b"]}, {"name": "b", "depends_on": ["a"]}], "wait for each other"),
        ([{"name": str(n)} for n in range(4)], "3 steps that are not done yet, this one has 4"),
    ],
)
def test_steps_that_make_no_plan_are_refused_in_one_line(steps: list[Any], said: str) -> None:
    with pytest.raises(PlanInvalid) as raised:
        planned(*steps, most=3)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.behaviour("plans:make:again")
def test_a_new_plan_keeps_what_is_finished() -> None:
    plan = planned(*HOUSE).done("ground", "level").started("walls").started("garden").failed("garden", "frost")
    new = plan.replanned(drafted([HOUSE[0], HOUSE[1], {"name": "tent", "depends_on": ["ground"]}]), 20)
    assert states(new) == {"ground": "done", "garden": "failed", "walls": "running", "tent": "pending"}
    assert new.steps[0].result == "level"
    again = new.replanned(drafted([{"name": "garden", "depends_on": ["ground"]}]), 20)
    assert states(again) == {"ground": "done", "garden": "pending"}
    with pytest.raises(PlanInvalid, match="depends on 'garden', which has failed; plan that one again too"):
        new.replanned(drafted([{"name": "party", "depends_on": ["garden"]}]), 20)
    with pytest.raises(PlanInvalid, match="at least one step that is not done yet"):
        new.replanned(drafted([{"name": "ground"}]), 20)
    later = plan.replanned(drafted([{"name": "shed"}, {"name": "walls", "depends_on": ["shed"]}]), 20)
    assert states(later)["walls"] == "pending"
    with pytest.raises(PlanInvalid, match="must wait for shed"):
        later.done("walls", "x")


@pytest.mark.behaviour("plans:make:again")
def test_a_plan_that_is_over_gives_way() -> None:
    plan = planned({"name": "one"}).done("one", "x")
    assert plan.over
    assert states(plan.replanned(drafted([{"name": "one"}, {"name": "two"}]), 20)) == {
        "one": "pending",
        "two": "pending",
    }


@pytest.mark.behaviour("plans:review:edited")
def test_an_edited_plan_is_checked_and_keeps_what_is_finished() -> None:
    reviewed = planned(*HOUSE).done("ground", "level").told()
    plan = edited(reviewed, {"steps": [*reviewed[:2], {"name": "fence"}]}, 20)
    assert states(plan) == {"ground": "done", "walls": "pending", "fence": "pending"}
    assert plan.digest != Plan.of(reviewed).digest
    wrong: tuple[Any, ...] = (None, [], {"steps": "x"}, {"steps": [], "more": 1}, {"step": []})
    for content in wrong:
        with pytest.raises(PlanInvalid, match="has the form"):
            edited(reviewed, content, 20)
    for steps in ([], [{"name": "a", "depends_on": ["b"]}], ["a"]):
        with pytest.raises(PlanInvalid):
            edited(reviewed, {"steps": steps}, 20)


@pytest.mark.behaviour("plans:make:checked")
def test_a_plan_is_told_and_read_and_known_by_its_digest() -> None:
    plan = planned(*HOUSE)
    on = plan.done("ground", "level").failed("garden", "frost")
    assert Plan.of(on.told()) == on
    assert on.digest == plan.digest != planned(*HOUSE[:3]).digest
    assert on.text().splitlines() == [
        "1. [done] ground",
        "   done: level",
        "2. [pending] walls (after ground): Four of them.",
        "3. [pending] roof (after walls)",
        "4. [failed] garden (after ground)",
        "   failed: frost",
    ]


STEPS = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from("abcde"), "depends_on": st.lists(st.sampled_from("abcdef"), max_size=3)}
    ),
    max_size=6,
)
MOVES = st.lists(st.tuples(st.sampled_from(("start", "done", "fail", "plan")), st.sampled_from("abcde"), STEPS))


@pytest.mark.behaviour("plans:steps:order")
@given(STEPS, MOVES)
def test_whatever_is_tried_no_step_runs_before_those_it_needs(first: list[Any], moves: list[Any]) -> None:
    plan = Plan()
    for move, name, steps in [("plan", "", first), *moves]:
        done = {step.name for step in plan.steps if step.state == "done"}
        was_over = plan.over
        try:
            match move:
                case "start":
                    plan = plan.started(name)
                case "done":
                    plan = plan.done(name, "r")
                case "fail":
                    plan = plan.failed(name, "r")
                case "plan":
                    plan = plan.replanned(drafted(steps), 4)
        except PlanInvalid:
            continue
        now = {step.name: step for step in plan.steps}
        assert len(now) == len(plan.steps)
        finished = {name for name, step in now.items() if step.state == "done"}
        assert was_over or done <= finished
        for step in plan.steps:
            if step.state == "running":
                assert set(step.depends_on) <= finished
        assert plan.over or plan.ready() or any(step.state in ("running", "failed") for step in plan.steps)
