"""The gate: every combination of mode, the agent's rule, the tool's rule and a standing grant."""

import itertools
from collections.abc import Mapping
from typing import Any

import pytest

from flux.agents.turn.gate import decide
from flux.store.interrupts import digest_of
from flux.tools.base import Done, Tool, ToolContext, ToolOutcome
from tests.unit.agents.logs import definition

MODES = ("default", "always", "never")
OWN_RULES = (None, True, False)
TOOL_RULES = (True, False, "predicate")
ARGS: dict[str, Any] = {"path": "a"}


async def nothing(args: dict[str, Any], context: ToolContext) -> ToolOutcome:
    return Done("")


def tool(rule: object) -> Tool:
    def large(args: Mapping[str, Any]) -> bool:
        return bool(args["path"] == "a")

    asks = large if rule == "predicate" else bool(rule)
    return Tool("write", "Write.", {"type": "object"}, nothing, requires_approval=asks)


def expected(mode: str, own: bool | None, rule: object, granted: bool) -> str:
    if mode == "never":
        return "deny"
    asks = mode == "always" or (bool(rule) if own is None else own)
    return "ask" if asks and not granted else "allow"


@pytest.mark.behaviour("gate:decide:every-combination")
@pytest.mark.parametrize(
    ("mode", "own", "rule", "granted"), list(itertools.product(MODES, OWN_RULES, TOOL_RULES, (True, False)))
)
def test_mode_then_own_rule_then_tool_rule_then_grants(
    mode: str, own: bool | None, rule: object, granted: bool
) -> None:
    agent = definition(approval_mode=mode, tool_approvals={} if own is None else {"write": own})
    grants = frozenset({"write"} if granted else {"other"})
    decision = decide(tool(rule), ARGS, agent, grants)
    assert decision.verdict == expected(mode, own, rule, granted)
    assert decision.rule


@pytest.mark.behaviour("gate:decide:predicate")
def test_a_predicate_decides_by_the_arguments() -> None:
    assert decide(tool("predicate"), {"path": "b"}, definition(), frozenset()).verdict == "allow"


@pytest.mark.behaviour("gate:digest:binds-arguments")
def test_a_digest_is_of_the_tool_and_exactly_these_arguments() -> None:
    assert digest_of("write", {"a": 1, "b": 2}) == digest_of("write", {"b": 2, "a": 1})
    others: list[tuple[str, dict[str, Any]]] = [
        ("write", {"a": 1}),
        ("write", {"a": "1", "b": 2}),
        ("edit", {"a": 1, "b": 2}),
        ("write", {}),
    ]
    assert digest_of("write", {"a": 1, "b": 2}) not in {digest_of(name, args) for name, args in others}
