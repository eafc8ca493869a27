"""The one place that decides whether a tool call may run: allow, ask a person, or deny."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from flux.agents.define.approval import tool_need
from flux.agents.define.definition import AgentDefinition
from flux.events import Verdict
from flux.tools.base import Tool
from flux.tools.rules import Need, Rule, need_of, told


class Decision(NamedTuple):
    """A verdict and the rule it comes from."""

    verdict: Verdict
    rule: str


def decide(
    tool: Tool,
    args: dict[str, Any],
    definition: AgentDefinition,
    grants: frozenset[str],
    verdicts: Mapping[str, bool] | None = None,
) -> Decision:
    """Mode, then the agent's own rules, then the tool's, then standing grants; `verdicts` are those of predicates."""
    if definition.approval_mode == "never":
        return Decision("deny", "approval_mode: never")
    need, rule = needed(tool, args, definition)
    rule = tool.alarm or rule
    if not (need.asks(verdicts or {}) or tool.alarm):
        return Decision("allow", rule)
    if tool.grant in grants:
        return Decision("allow", "standing grant")
    return Decision("ask", rule)


def needed(tool: Tool, args: dict[str, Any], definition: AgentDefinition) -> tuple[Need, str]:
    """Whether a person is to be asked, as far as that is known without predicates; and the rule."""
    if definition.approval_mode == "always":
        return Need(ask=True), "approval_mode: always"
    if definition.approvals is not None:
        return tool_need(definition.approvals, tool.name, _own(tool, args))
    if tool.name in definition.tool_approvals:
        return Need(ask=definition.tool_approvals[tool.name]), f"tool_approvals: {tool.name}"
    if tool.approval != "default":
        return need_of(tool.approval), f"the tool {tool.name}: {told(tool.approval)}"
    if callable(tool.requires_approval):
        return Need(ask=bool(tool.requires_approval(args))), f"{tool.name} decides by its arguments"
    said = "requires approval" if tool.requires_approval else "is allowed"
    return Need(ask=tool.requires_approval), f"{tool.name} {said}"


def _own(tool: Tool, args: dict[str, Any]) -> Rule:
    """The tool's own rule for these arguments."""
    if tool.approval != "default":
        return tool.approval
    asks = tool.requires_approval(args) if callable(tool.requires_approval) else tool.requires_approval
    return "always" if asks else "default"
