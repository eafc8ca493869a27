"""The hierarchy of approvals: every combination of levels, told by a table that is made in another way."""

import itertools
from collections.abc import Sequence
from typing import Any

import pytest

from flux.agents.define.approval import Approvals, Channels, base_rule, judged, plan_need, tool_need
from flux.agents.define.definition import define
from flux.agents.turn.gate import decide
from flux.tools.base import Done, Tool, ToolContext, ToolOutcome
from flux.tools.rules import ApprovalRequest, Dynamic, Need, Rule, rule_of

ASKED = Dynamic(value="large")
RULES: tuple[Rule, ...] = ("default", "always", "never", ASKED)
#: How strict a rule is; what is not said is not there.
STRICT = {"never": 0, "large": 1, "always": 2}


def word(rule: Rule) -> str:
    return rule.value if isinstance(rule, Dynamic) else rule


def verdict(rules: Sequence[Rule], large: bool) -> str:
    """Of the rules of one level, the strictest."""
    strictest = max((word(rule) for rule in rules), key=STRICT.__getitem__)
    return "ask" if strictest == "always" or (strictest == "large" and large) else "allow"


async def nothing(args: dict[str, Any], context: ToolContext) -> ToolOutcome:
    return Done("")


@pytest.mark.behaviour("roles:approval:every-combination")
@pytest.mark.parametrize("large", [True, False])
@pytest.mark.parametrize("runtime", [None, *RULES])
@pytest.mark.parametrize("coordinator", RULES)
def test_each_level_gives_way_to_the_next_and_of_the_last_two_the_stricter_wins(
    coordinator: Rule, runtime: Rule | None, large: bool
) -> None:
    for agent, override, own, granted in itertools.product(RULES, RULES, RULES, (True, False)):
        policies = None if runtime is None else Channels(tools=runtime)
        base = base_rule(
            "tools", runtime=policies, coordinator=Channels(tools=coordinator), agent=Channels(tools=agent)
        )
        approvals = Approvals(tools=base, overrides={"pay": override} if override != "default" else {})
        definition = define({"name": "a", "model": "m/m", "approvals": approvals.model_dump()})
        tool = Tool("pay", "Pay.", {"type": "object"}, nothing, approval=own)
        grants = frozenset({"pay"} if granted else ())
        decision = decide(tool, {}, definition, grants, {"large": large})

        above = coordinator if runtime is None else runtime
        levels: list[list[Rule]] = [[override, own], [agent], [above], ["never"]]
        said = next(set_ for level in levels if (set_ := [rule for rule in level if rule != "default"]))
        wanted = verdict(said, large)
        assert decision.verdict == ("allow" if granted else wanted), (agent, override, own, granted)
        assert decision.rule


@pytest.mark.behaviour("roles:approval:every-combination")
@pytest.mark.parametrize(("agent", "runtime", "coordinator"), list(itertools.product(RULES, (None, *RULES), RULES)))
def test_plans_ask_unless_a_level_says_otherwise(agent: Rule, runtime: Rule | None, coordinator: Rule) -> None:
    policies = None if runtime is None else Channels(plans=runtime)
    base = base_rule("plans", runtime=policies, coordinator=Channels(plans=coordinator), agent=Channels(plans=agent))
    need, rule = plan_need(Approvals(plans=base))
    above = coordinator if runtime is None else runtime
    levels: list[Rule] = [agent, above, "always"]
    said = next(one for one in levels if one != "default")
    assert need == (Need(predicates=("large",)) if said == ASKED else Need(ask=said == "always"))
    assert word(said) in rule


@pytest.mark.behaviour("roles:approval:every-combination")
def test_what_the_tool_says_of_its_arguments_is_a_rule_of_its_own() -> None:
    definition = define({"name": "a", "model": "m/m", "approvals": {"tools": "never"}})
    tool = Tool("pay", "Pay.", {"type": "object"}, nothing, requires_approval=lambda args: args["n"] > 1)
    assert decide(tool, {"n": 2}, definition, frozenset()).verdict == "ask"
    assert decide(tool, {"n": 1}, definition, frozenset()).verdict == "allow"
    assert tool_need(Approvals(overrides={"pay": "never"}), "pay", "always")[0] == Need(ask=True)


@pytest.mark.behaviour("roles:approval:predicate")
async def test_a_predicate_is_asked_once_and_one_that_raises_or_is_missing_asks_a_person() -> None:
    asked: list[Any] = []

    async def small(request: ApprovalRequest) -> bool:
        asked.append(request)
        return False

    def broken(request: ApprovalRequest) -> bool:
        raise RuntimeError("no")

    request = ApprovalRequest("tools", "a", "pay", {"n": 1})
    verdicts = await judged(("small", "broken", "gone"), {"small": small, "broken": broken}, request)
    assert verdicts == {"small": False, "broken": True, "gone": True}
    assert asked == [request]
    assert Need(predicates=("new",)).asks({})


@pytest.mark.behaviour("roles:approval:rules")
def test_a_rule_is_a_word_or_a_predicate() -> None:
    assert rule_of({"kind": "dynamic", "value": "large"}) == ASKED
    assert rule_of("never") == "never"
    for wrong in ("sometimes", {"kind": "static", "value": "x"}, {"kind": "dynamic"}, 3, None, True):
        with pytest.raises(ValueError, match="is no rule"):
            rule_of(wrong)
