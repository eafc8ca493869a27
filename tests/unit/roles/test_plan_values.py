"""Plans as values: what fits, what does not and where, and how results take the place of references."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, field_validator

from flux.agents.define.typed_plan import TypedPlan
from flux.agents.plans.checks import Checked, actions_of, check_plan, with_results
from flux.agents.plans.source import model_check
from flux.agents.plans.state import ARROWS, StoredPlan, after, drafted, folded
from flux.errors import PlanInvalid
from flux.events import PlanState
from flux.roles import TaggedUnion, define_plan


class Buy(BaseModel):
    """Buy."""

    sku: str
    count: int = Field(default=1, ge=1)


class Sell(BaseModel):
    """Sell."""

    type: str = "x"
    order: int


class Trade(BaseModel):
    """Trades."""

    note: str = ""
    buys: list[TaggedUnion[Buy, Sell]] = []

    @field_validator("note")
    @classmethod
    def _polite(cls, note: str) -> str:
        if note == "now!":
            raise ValueError("say please")
        return note


SPEC = define_plan("trade", schema=Trade, actions={Buy: "buy", Sell: "sell"})
KIND = TypedPlan(name="trade", json_schema=SPEC.json_schema, lists=SPEC.lists, actions={"Buy": "b", "Sell": "s"})


def buy(id: str, *after_: str, **more: Any) -> dict[str, Any]:
    return {"type": "Buy", "id": id, "sku": "x", "depends_on": list(after_), **more}


@pytest.mark.behaviour("roles:plan:fits")
def test_a_plan_that_fits_is_repaired_and_has_a_graph() -> None:
    value = {"buys": [buy("a", count="3"), {"type": "Sell", "id": "b", "order": {"result_of": "a", "path": "n.0"}}]}
    checked = check_plan(KIND, value)
    first, second = checked.actions
    assert first.args == {"sku": "x", "count": 3}
    assert second.needs == ("a",)
    assert with_results(second.args, {"a": {"n": [7]}}) == {"order": 7}
    assert checked.digest == Checked(checked.value, ()).digest
    assert actions_of(KIND, checked.value) == checked.actions


@pytest.mark.behaviour("roles:plan:faults")
@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ({"buys": []}, "at least one action"),
        ({"bys": []}, "unknown argument 'bys'; did you mean 'buys'?"),
        ({"buys": 3}, "`buys.0`: 3 is not of type"),
        ({"buys": [{"type": "Steal", "id": "a"}]}, "`buys.0.type`: unknown action 'Steal'; did you mean 'Sell'?"),
        ({"buys": [{"type": "Buy", "sku": "x"}]}, '`buys.0`: "id" is a required property'),
        ({"buys": [buy("a", count=0)]}, "`buys.0.count`"),
        ({"buys": [buy("a", colour="red")]}, "unknown argument 'colour'"),
        ({"buys": [buy("a"), buy("a")]}, "`buys.1.id`: 'a' is the id of buys.0 too"),
        ({"buys": [buy("a", "z")]}, "`buys.0.depends_on`: unknown action 'z'"),
        ({"buys": [buy("a", sku={"result_of": "z"})]}, "result_of: unknown action 'z'"),
        ({"buys": [buy("a", "b"), buy("b", "a")]}, "wait for each other"),
        ({"buys": [buy("a", sku={"result_of": "a"})]}, "wait for each other: a -> a"),
        ({"buys": [buy(str(n)) for n in range(201)]}, "may have 200 actions"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused_with_the_path(plan: dict[str, Any], said: str) -> None:
    with pytest.raises(PlanInvalid) as raised:
        check_plan(KIND, plan)
    assert said in str(raised.value)
    assert raised.value.details["faults"]


@pytest.mark.behaviour("roles:plan:model-check")
def test_what_the_model_checks_beyond_its_schema_counts_too_but_not_where_a_result_will_stand() -> None:
    check = model_check(SPEC.model)
    assert check({"note": "now!", "buys": [buy("a")]}) == ["`note`: say please"]
    assert check({"buys": [buy("a", count={"result_of": "b"}), buy("b")]}) == []


@pytest.mark.behaviour("roles:plan:results")
def test_a_result_that_lacks_what_a_path_names_is_a_fault() -> None:
    for path in ("b", "a.x", "l.9", "l.x"):
        with pytest.raises(PlanInvalid, match="the result of r has no"):
            with_results({"result_of": "r", "path": path}, {"r": {"a": 1, "l": [1]}})
    assert with_results({"x": [{"result_of": "r"}]}, {"r": "whole"}) == {"x": ["whole"]}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "id", "buys", "depends_on"]), inner)
    ),
    max_leaves=8,
)


@pytest.mark.behaviour("roles:plan:faults")
@pytest.mark.parametrize("wrong", [{}, {"id": ""}, {"id": "a", "depends_on": 3}])
def test_a_schema_by_hand_need_not_say_what_every_action_has(wrong: dict[str, Any]) -> None:
    action = {"type": "object", "properties": {"type": {"const": "Do"}}}
    items = {"type": "array", "items": {"$ref": "#/$defs/Do"}}
    schema = {"type": "object", "properties": {"steps": items}, "$defs": {"Do": action}}
    kind = TypedPlan(name="work", json_schema=schema, lists=("steps",), actions={"Do": "ask_user"})
    with pytest.raises(PlanInvalid, match=r"`steps\.0"):
        check_plan(kind, {"steps": [{"type": "Do", **wrong}]})
    assert check_plan(kind, {"steps": [{"type": "Do", "id": "a"}]}).actions[0].id == "a"


@pytest.mark.behaviour("roles:plan:faults")
@given(st.dictionaries(st.sampled_from(["buys", "note", "x"]), JSON | st.lists(st.just(buy("a")) | JSON, max_size=3)))
def test_any_mapping_is_a_plan_or_a_clear_fault(value: dict[str, Any]) -> None:
    try:
        actions = check_plan(KIND, value).actions
    except PlanInvalid as error:
        actions = tuple(error.details["faults"])
    assert actions


@pytest.mark.behaviour("roles:plan:arrows")
def test_states_change_only_along_the_arrows() -> None:
    checked = check_plan(KIND, {"buys": [buy("a")]})
    plan = after(None, drafted("trade", None, checked, "c1"))
    assert (plan.version, plan.state) == (1, "draft")
    states: tuple[PlanState, ...] = tuple(ARROWS)
    for state in states:
        here = StoredPlan("trade", 1, state, plan.digest, plan.value, "c1")
        for other in states:
            if other in ARROWS[state]:
                assert after(here, here.to(other, "c2")).state == other
            else:
                with pytest.raises(PlanInvalid, match="cannot become"):
                    here.to(other, "c2")
    second = drafted("trade", plan, checked, "c2")
    assert folded([drafted("trade", None, checked, "c1"), plan.to("awaiting_approval", "c1"), second]) == after(
        plan, second
    )
