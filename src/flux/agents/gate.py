"""The one place that decides whether a tool call may run: allow, ask a person, or deny."""

from __future__ import annotations

from typing import Any, NamedTuple

from flux.agents.definition import AgentDefinition
from flux.events import Verdict
from flux.tools.base import Tool


class Decision(NamedTuple):
    """A verdict and the rule it comes from."""

    verdict: Verdict
    rule: str


def decide(tool: Tool, args: dict[str, Any], definition: AgentDefinition, grants: frozenset[str]) -> Decision:
    """Mode, then the agent's own rule, then the tool's, then standing grants."""
    if definition.approval_mode == "never":
        return Decision("deny", "approval_mode: never")
    asks, rule = _asks(tool, args, definition)
    rule = tool.alarm or rule
    if not (asks or tool.alarm):
        return Decision("allow", rule)
    if tool.grant in grants:
        return Decision("allow", "standing grant")
    return Decision("ask", rule)


def _asks(tool: Tool, args: dict[str, Any], definition: AgentDefinition) -> tuple[bool, str]:
    if definition.approval_mode == "always":
        return True, "approval_mode: always"
    if tool.name in definition.tool_approvals:
        return definition.tool_approvals[tool.name], f"tool_approvals: {tool.name}"
    if callable(tool.requires_approval):
        return bool(tool.requires_approval(args)), f"{tool.name} decides by its arguments"
    return tool.requires_approval, f"{tool.name} {'requires approval' if tool.requires_approval else 'is allowed'}"
