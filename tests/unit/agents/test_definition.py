"""Agent definitions: each wrong field is named in one line, and what is right comes back unchanged."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux.agents.define.definition import AgentDefinition, define
from flux.errors import DefinitionInvalid, InvalidInput

GOOD: dict[str, Any] = {"name": "coder", "model": "test/one", "system_prompt": "Help."}

WRONG: list[tuple[str, Any, str]] = [
    ("name", "1st", "name: must be a letter"),
    ("name", "a b", "name: must be a letter"),
    ("name", "x" * 65, "name: must be a letter"),
    ("name", "sessions", "name: 'sessions' is a reserved name"),
    ("name", 5, "name: "),
    ("model", "gpt", "model: 'gpt' must be provider/model"),
    ("model", "/gpt", "must be provider/model"),
    ("model", "openai/", "must be provider/model"),
    ("model", None, "model: "),
    ("system_prompt", ["a"], "system_prompt: "),
    ("description", 1, "description: must be text; in YAML, numbers, dates, yes and no are text in quotes"),
    ("tools", "shell", "tools: must be a list"),
    ("tools", [1], "tools.0: must be a name, or a mapping"),
    ("max_tool_calls", 0, "max_tool_calls: "),
    ("max_tool_calls", "many", "max_tool_calls: must be a whole number"),
    ("max_turns", 0, "max_turns: "),
    ("max_concurrent_tools", 65, "max_concurrent_tools: "),
    ("max_tokens", -1, "max_tokens: "),
    ("stream", "perhaps", "stream: must be true or false"),
    ("approval_mode", "sometimes", "approval_mode: "),
    ("tool_approvals", ["shell"], "tool_approvals: "),
    ("tool_approvals", {"shell": "perhaps"}, "tool_approvals.shell: "),
    ("reasoning_effort", "huge", "reasoning_effort: "),
    ("thinking_level", "deep", "thinking_level: "),
    ("fallback_models", ["one"], "fallback_models: 'one' must be provider/model"),
    ("sandbox", "moon", "sandbox: "),
    ("cwd", 3, "cwd: "),
    ("planning", "perhaps", "planning: "),
    ("max_plan_steps", 0, "max_plan_steps: "),
    ("max_plan_steps", 101, "max_plan_steps: "),
    ("approve_plan", True, "approve_plan needs planning: true"),
    ("budget", {"run": {"max_tokens": 0}}, "budget.run.max_tokens: "),
    ("budget", {"runs": {}}, "unknown field 'budget.runs'; did you mean 'run'?"),
    ("budget", {"max_tokens": 5}, "unknown field 'budget.max_tokens'; valid: run, session, agent"),
    ("budget", {"run": {"tokens": 5}}, "unknown field 'budget.run.tokens'; did you mean 'max_tokens'?"),
    ("compaction", {"keep": 5}, "unknown field 'compaction.keep'"),
    ("max_tokens", 10**20, "max_tokens: should be less than or equal to 10000000"),
    ("budget", {"session": {"max_cost_usd": -1}}, "budget.session.max_cost_usd: "),
    ("compaction", {"keep_recent_tokens": 0}, "compaction.keep_recent_tokens: should be greater than 0"),
    ("compaction", {"model": "gpt"}, "compaction.model: 'gpt' must be provider/model"),
    ("compaction", True, "compaction: must be a mapping of fields, or false"),
    ("modle", "x", "unknown field 'modle'; did you mean 'model'?"),
    ("max_tool_call", 3, "did you mean 'max_tool_calls'?"),
]


def refused(fields: Any) -> str:
    with pytest.raises(DefinitionInvalid) as raised:
        define(fields)
    return str(raised.value)


@pytest.mark.behaviour("loop:definition:one-clear-error")
@pytest.mark.parametrize(("field", "value", "said"), WRONG)
def test_a_wrong_field_is_named_in_one_line(field: str, value: Any, said: str) -> None:
    message = refused(GOOD | {field: value})
    assert said in message
    assert "\n" not in message


@pytest.mark.behaviour("loop:definition:one-clear-error")
@pytest.mark.parametrize("field", ["name", "model"])
def test_a_missing_field_is_named(field: str) -> None:
    assert refused({key: value for key, value in GOOD.items() if key != field}) == f"missing field {field!r}"


@pytest.mark.behaviour("loop:definition:one-clear-error")
def test_every_fault_is_named_at_once() -> None:
    assert refused(GOOD | {"modle": 1, "max_tokens": 0}).count(";") == 2


@pytest.mark.behaviour("loop:definition:one-clear-error")
def test_two_ways_to_say_how_hard_to_think_are_refused() -> None:
    assert "not both" in refused(GOOD | {"reasoning_effort": "low", "thinking_level": "low"})


@pytest.mark.behaviour("loop:definition:one-clear-error")
@given(st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text()))
def test_what_is_no_mapping_is_no_definition(value: Any) -> None:
    assert "mapping of fields" in refused(value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = sorted(AgentDefinition.model_fields)


@pytest.mark.behaviour("loop:definition:never-crashes")
@given(st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=12), JSON, max_size=5))
def test_any_mapping_is_a_definition_or_one_clear_error(fields: dict[str, Any]) -> None:
    made = defined(GOOD | fields)
    if isinstance(made, AgentDefinition):
        assert AgentDefinition.from_json(made.to_json()) == made
        assert AgentDefinition.from_json(made.to_json()).digest == made.digest
    else:
        assert str(made)


def defined(fields: dict[str, Any]) -> AgentDefinition | InvalidInput:
    try:
        return define(fields)
    except DefinitionInvalid as error:
        return error


@pytest.mark.behaviour("loop:definition:digest")
def test_a_digest_changes_with_the_content() -> None:
    assert define(GOOD).digest == define(dict(reversed(GOOD.items()))).digest
    assert define(GOOD).digest != define(GOOD | {"system_prompt": "Help!"}).digest


def test_both_forms_of_reasoning_have_one_inside() -> None:
    assert define(GOOD | {"reasoning_effort": "low"}).reasoning == "low"
    assert define(GOOD | {"thinking_level": "xhigh"}).reasoning == "xhigh"
    assert define(GOOD).reasoning is None
