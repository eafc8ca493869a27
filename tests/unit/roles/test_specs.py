"""What the helpers of roles take, how they are put together, and what they refuse: every fault at once."""

import subprocess
import sys
import warnings
from typing import Any, cast

import pytest
from pydantic import BaseModel, field_validator

from flux.agents.define.yaml import to_yaml
from flux.errors import DefinitionInvalid, TopologyInvalid
from flux.roles import (
    AgentSpec,
    LayeredPrompt,
    ModelSpec,
    Runtime,
    TaggedUnion,
    define_coordinator,
    define_executor,
    define_plan,
    define_planner,
    define_runtime,
    define_specialist,
    define_tenant,
    define_tool,
    layered_prompt,
)
from flux.roles.compiling import compiled
from flux.tools.rules import ApprovalRequest


class Add(BaseModel):
    """Add something."""

    name: str


class Drop(BaseModel):
    """Drop something."""

    name: str


class Change(BaseModel):
    """A change."""

    steps: list[TaggedUnion[Add, Drop]]


class Plain(BaseModel):
    """A change of one kind."""

    steps: list[Add]


class Numbered(BaseModel):
    id: int


def add(name: str) -> str:
    """Add it."""
    return name


def drop(name: str) -> str:
    """Drop it."""
    return name


def pour(litres: int) -> int:
    """Pour it out."""
    return litres


def is_large(request: ApprovalRequest) -> bool:
    return True


big_drop = define_tool("big_drop", drop, effect="idempotent")
PLAN = define_plan("change", schema=Change, actions={Add: add, Drop: drop}, description="Changes.")
COMMON: dict[str, Any] = {"model": "anthropic/claude", "prompt": "Do it."}
PLANNER = define_planner("planner", plan=PLAN, **COMMON)


def runtime(*agents: AgentSpec, **more: Any) -> Runtime:
    return define_runtime(tenant=define_tenant("acme"), agents=agents, **more)


@pytest.mark.behaviour("roles:specs:frozen")
def test_a_spec_is_frozen_and_each_role_has_its_own_defaults() -> None:
    boss = define_coordinator("boss", routes=[PLANNER, "doer"], **COMMON)
    doer = define_executor("doer", plan=PLAN, **COMMON)
    one = define_specialist("one", stateful=True, max_turns=3, tools=[add, "web_fetch"], **COMMON)
    assert (boss.routes, boss.stateful) == (("planner", "doer"), True)
    assert (PLANNER.stateful, doer.stateful, one.stateful) == (True, False, True)
    assert (one.tool_names, one.max_turns) == (("add", "web_fetch"), 3)
    assert define_planner("p", plan=PLAN, stateful=False, **COMMON).stateful is False
    with pytest.raises(AttributeError):
        boss.name = "other"  # type: ignore[misc]
    mappings: list[Any] = [PLAN.actions, one.tool_approvals, runtime(PLANNER).spec.tools]
    for mapping in mappings:
        with pytest.raises(TypeError):
            mapping["add"] = "never"


@pytest.mark.behaviour("roles:specs:refused")
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: define_specialist("1", **COMMON), "name"),
        (lambda: define_specialist("a", model="", prompt="x"), "model must be"),
        (lambda: define_specialist("a", model={"id": "x", "size": 1}, prompt="x"), "model must be"),
        (lambda: define_specialist("a", model="m/m", prompt=" "), "prompt is empty"),
        (lambda: define_specialist("a", toolz=[], **COMMON), "unknown field 'toolz'"),
        (lambda: define_specialist("a", tools="add", **COMMON), "tools must be a list"),
        (lambda: define_specialist("a", tools=[3], **COMMON), "is no function"),
        (lambda: define_specialist("a", max_turns=0, **COMMON), "max_turns must be"),
        (lambda: define_specialist("a", stateful=1, **COMMON), "stateful must be"),
        (lambda: define_specialist("a", approval="often", **COMMON), "is no rule"),
        (lambda: define_specialist("a", approval={"plan": "always"}, **COMMON), "plan"),
        (lambda: define_specialist("a", tool_approvals={"x": "often"}, **COMMON), "tool_approvals"),
        (lambda: define_coordinator("a", routes=[], **COMMON), "at least one agent"),
        (lambda: define_coordinator("a", routes=["b", "b"], **COMMON), "given twice"),
        (lambda: define_planner("a", plan=cast(Any, Change), **COMMON), "define_plan"),
        (lambda: define_plan("x", schema=Change, actions={Add: add}), "no tool for the actions Drop"),
        (lambda: define_plan("x", schema=Change, actions={Add: add, Drop: drop, Plain: add}), "no actions Plain"),
        (lambda: define_plan("x", schema=dict, actions={}), "must be a Pydantic model"),
        (lambda: define_plan("x", schema=Change, actions=cast(Any, [add])), "must be a mapping"),
        (lambda: define_plan("x", schema=Change, actions={Add: add, Drop: cast(Any, 3)}), "Drop: 3 is no tool"),
        (lambda: TaggedUnion[Numbered, Add], "id is a field of every action"),
        (lambda: define_plan("x", schema=Add, actions={}), "no list of actions"),
        (lambda: define_tenant("a/b"), "tenant"),
        (lambda: layered_prompt([("a", "x"), ("a", "y")]), "two layers"),
        (lambda: layered_prompt([("a",)]), "pair of name and text"),
        (lambda: layered_prompt([]), "at least one layer"),
        (lambda: define_tool("x", add, approval=cast(Any, "often")), "is no rule"),
        (lambda: define_tool("x", add, approval="always", requires_approval=True), "give one of them"),
    ],
)
def test_what_cannot_be_is_refused_by_name(make: Any, said: str) -> None:
    with pytest.raises(DefinitionInvalid, match=said):
        make()


@pytest.mark.behaviour("roles:topology:all-faults")
def test_every_fault_of_a_topology_is_told_at_once() -> None:
    other = define_plan("change", schema=Plain, actions={Add: add})
    mixed = define_plan("mixed", schema=Change, actions={Add: add, Drop: define_tool("pour", pour)})
    lonely = define_plan("lonely", schema=Plain, actions={Add: "gone"})

    def add_too(name: str) -> str:
        """Another one."""
        return name

    with pytest.raises(TopologyInvalid) as raised:
        runtime(
            define_coordinator("boss", routes=["nobody"], **COMMON),
            define_coordinator("chief", routes=["boss"], approval={"kind": "dynamic", "value": "who"}, **COMMON),
            PLANNER,
            PLANNER,
            define_executor("doer", plan=other, **COMMON),
            define_executor("idler", plan=lonely, tools=[define_tool("add", add_too)], **COMMON),
            define_specialist("one", model="strange", prompt="x", tools=["nothing"], toolkits=["nokit"]),
            define_specialist("endless", max_turns=10**9, **COMMON),
            define_planner("mixer", plan=mixed, **COMMON),
            tools=[define_tool("call_agent", add)],
            providers={"odd": {"url": "x"}, "anthropic": {"retries": -1}},
            approval_policies={"plan": "never"},
        )
    faults = raised.value.details["faults"]
    for said in (
        "two agents are called planner",
        "a runtime has one coordinator, this one has 2: boss, chief",
        "coordinator boss: routes: unknown agent 'nobody'",
        "executor doer: another plan is called change, with another schema",
        "executor idler: no planner shares its plan lonely",
        "plan lonely: action Add: unknown tool 'gone'",
        "two tools are called add",
        "call_agent is a tool of a role",
        "unknown predicate 'who'",
        "specialist one: model 'strange' does not tell its provider",
        "specialist one: tools: unknown tool 'nothing'",
        "unknown tool or group 'nokit'",
        "providers: odd: unknown field 'url'",
        "give its base_url",
        "retries must be",
        "approval_policies unknown channel 'plan'; did you mean 'plans'?",
        "specialist endless: max_turns",
        "plan mixed: action Drop: it has no field 'litres', which the tool pour needs",
        "plan mixed: action Drop: the tool pour does not take its field 'name'",
    ):
        assert any(said in fault for fault in faults), (said, faults)
    assert raised.value.type == "topology_invalid"
    assert all(fault in str(raised.value) for fault in faults)


@pytest.mark.behaviour("roles:specs:model")
@pytest.mark.parametrize(
    ("model", "providers", "named"),
    [
        ("openai/gpt-5", (), "openai/gpt-5"),
        ("claude-sonnet", (), "anthropic/claude-sonnet"),
        ("gpt-5", (), "openai/gpt-5"),
        ("o3-mini", (), "openai/o3-mini"),
        ("gemini-pro", (), "google/gemini-pro"),
        ("claude-sonnet", ("openrouter",), "openrouter/claude-sonnet"),
        ({"id": "x", "provider": "ollama"}, ("a", "b"), "ollama/x"),
        (ModelSpec("y", "ollama"), (), "ollama/y"),
    ],
)
def test_a_bare_model_takes_the_only_provider_or_that_of_its_name(
    model: Any, providers: tuple[str, ...], named: str
) -> None:
    assert define_specialist("a", model=model, prompt="x").model.named(providers) == named


@pytest.mark.behaviour("roles:approval:unbound")
def test_a_rule_for_a_tool_that_is_not_bound_is_a_warning() -> None:
    one = define_specialist("one", tool_approvals={"gone": "always"}, **COMMON)
    with pytest.warns(UserWarning, match="it has no tool gone"):
        runtime(one)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        doer = define_executor("doer", plan=PLAN, tool_approvals={"drop": "always"}, **COMMON)
        runtime(PLANNER, doer)


@pytest.mark.behaviour("roles:prompt:layers")
def test_layers_have_one_key_in_every_process() -> None:
    layers = [("identity", "You are a clerk."), ("rules", "Be brief.")]
    prompt = layered_prompt(layers)
    assert prompt == LayeredPrompt(tuple(layers))
    assert prompt.text == "You are a clerk.\n\nBe brief."
    assert layered_prompt(reversed(layers)).cache_key != prompt.cache_key
    code = f"from flux.roles import layered_prompt; print(layered_prompt({layers!r}).cache_key)"
    again = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert again.stdout.strip() == prompt.cache_key
    made = runtime(define_specialist("one", model="m/m", prompt=prompt))
    (agent,) = made.spec.agents
    definition = compiled(made.spec, agent)
    assert (definition.prompt_cache_key, definition.system_prompt) == (prompt.cache_key, prompt.text)


@pytest.mark.behaviour("roles:export:named")
def test_an_agent_is_exported_with_its_functions_by_name() -> None:
    rule = {"kind": "dynamic", "value": "large"}
    doer = define_executor("doer", plan=PLAN, tools=[big_drop], tool_approvals={"drop": rule}, **COMMON)
    made = runtime(PLANNER, doer, predicates={"large": is_large})
    definition = made.definition("doer")
    place = __name__
    assert definition.tools == ({"function": f"{place}:big_drop"},)
    assert definition.plan is not None
    assert definition.plan.actions == {"Add": {"function": f"{place}:add"}, "Drop": {"function": f"{place}:drop"}}
    assert definition.plan.model == f"{place}:Change"
    assert definition.approvals is not None
    assert definition.approvals.predicates == {"large": f"{place}:is_large"}
    text = to_yaml(definition)
    assert "role" not in text.lower().replace("roles", "")
    assert "executor" not in text


@pytest.mark.behaviour("roles:export:refused")
def test_what_cannot_be_named_is_refused_by_name() -> None:
    class Strict(BaseModel):
        steps: list[Add]

        @field_validator("steps")
        @classmethod
        def _few(cls, steps: list[Any]) -> list[Any]:
            return steps

    local = define_tool("local", lambda: "x", description="Local.", parameters={})
    plan = define_plan("strict", schema=Strict, actions={Add: local})
    doer = define_executor("doer", plan=plan, approval={"kind": "dynamic", "value": "odd"}, **COMMON)
    made = runtime(define_planner("p", plan=plan, **COMMON), doer, predicates={"odd": lambda request: True})
    with pytest.raises(DefinitionInvalid, match=r"the tool local.*Strict.*the predicate odd.*cannot be named"):
        made.definition("doer")
