"""Cases of `flux eval`: what a file may say, and how what an agent did is judged."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from flux.errors import InvalidInput
from flux.surfaces.evaluation import Case, Did, cases_of, chosen, judged

PLAN = {
    "state": "failed",
    "value": {"note": "x", "steps": [{"id": "a", "type": "Order", "sku": "pear", "count": 3}]},
    "actions": [{"id": "a", "status": "failed"}],
}
DID = Did(
    text="All 7 pears are here.",
    calls=[("look", {"path": "a", "deep": {"x": 1, "y": 2}}), ("read", {}), ("look", {"path": "b"})],
    plan=PLAN,
)


ONE = "{name: x, input: y, expect: {}}"


def faults(did: Did = DID, **expect: Any) -> list[str]:
    return list(judged(msgspec.convert({"name": "c", "input": "x", "expect": expect}, Case), did))


@pytest.mark.behaviour("eval:judged")
@pytest.mark.parametrize(
    "expect",
    [
        {},
        {"text": "All 7 pears are here."},
        {"text": {"contains": ["PEARS", "7"], "excludes": "apples", "matches": r"\d pears"}},
        {"calls": ["look", "look"]},
        {"calls": [{"tool": "look", "args": {"deep": {"x": 1}}}, {"tool": "look", "args": {"path": "b"}}]},
        {"no_calls": ["pay"]},
        {"plan": {"state": "failed", "actions": [{"sku": "pear"}], "ended": {"a": "failed"}}},
    ],
)
def test_what_is_as_it_must_be_passes(expect: dict[str, Any]) -> None:
    assert faults(**expect) == []


@pytest.mark.behaviour("eval:judged")
@pytest.mark.parametrize(
    ("expect", "said"),
    [
        ({"state": "waiting"}, "it is completed, not waiting"),
        ({"text": "no"}, "the answer is 'All 7 pears are here.', not 'no'"),
        ({"text": {"contains": "figs"}}, "the answer lacks 'figs'"),
        ({"text": {"excludes": ["PEARS"]}}, "the answer has 'PEARS'"),
        ({"text": {"matches": "^7"}}, "does not match '^7'"),
        ({"calls": ["read", "read"]}, "no call of read there; calls: look, read, look"),
        ({"calls": [{"tool": "look", "args": {"path": "c"}}]}, 'no call of look with {"path":"c"} there'),
        ({"no_calls": ["read"]}, "read was called"),
        ({"plan": {"state": "completed"}}, "the plan is failed, not completed"),
        ({"plan": {"actions": [{"sku": "fig"}]}}, 'the plan has no action with {"sku":"fig"}'),
        ({"plan": {"ended": {"a": "done", "b": "done"}}}, "the action a is failed, not done"),
    ],
)
def test_what_is_not_is_told(expect: dict[str, Any], said: str) -> None:
    assert said in faults(**expect)[0]


@pytest.mark.behaviour("eval:judged")
def test_a_failure_says_why_and_no_plan_is_a_fault() -> None:
    assert faults(Did(state="failed", error="no credit")) == ["it is failed, not completed: no credit"]
    assert faults(Did(), plan={"state": "draft"}) == ["there is no plan"]


@pytest.mark.behaviour("eval:refused")
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "a file of cases is a mapping"),
        ("- a", "a file of cases is a mapping"),
        ("cases: []\nagent: a", "there are no cases"),
        (
            "agent: a\ncases: [{name: x, input: y, expect: {}, tiemout: 3}]",
            "cases[0]: unknown field 'tiemout'; did you mean 'timeout'?",
        ),
        ("agent: a\ncases: [{name: x, expect: {}}]", "cases[0]: missing field 'input'"),
        ("agent: a\ncases: [{name: x, input: y, expect: {state: done}}]", "done"),
        (
            "agent: a\ncases: [{name: x, input: y, expect: {}}, {name: x, input: y, expect: {}}]",
            "two cases are called 'x'",
        ),
        ("cases: [{name: x, input: y, expect: {}}]", "say whom the cases are about"),
        ("agent: a\nfile: b\ncases: [{name: x, input: y, expect: {}}]", "say whom the cases are about"),
        ("agent: a\ncases: [{name: x, input: y, expect: {text: {matches: '('}}}]", "matches: "),
        ("cases: [", "expected"),
    ],
)
def test_a_file_that_says_something_else_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "cases.yaml"
    path.write_text(text)
    with pytest.raises(InvalidInput) as raised:
        cases_of(path)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.behaviour("eval:chosen")
def test_cases_are_chosen_by_name(tmp_path: Path) -> None:
    path = tmp_path / "cases.yaml"
    path.write_text("agent: a\ncases: [{name: one, input: y, expect: {}}, {name: two, input: [y, z], expect: {}}]")
    cases = cases_of(path).cases
    assert [case.name for case in chosen(cases, ())] == ["one", "two"]
    assert [case.name for case in chosen(cases, ("two",))] == ["two"]
    with pytest.raises(InvalidInput, match="unknown case 'tow'"):
        chosen(cases, ("tow",))
