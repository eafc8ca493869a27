"""A spec becomes an AgentDefinition: data that every door yields. What a role was is not to be seen in it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from flux.agents.define.approval import Approvals, base_rule
from flux.agents.define.definition import AgentDefinition, define
from flux.agents.define.named import reference_to
from flux.agents.define.tool import ToolDefinition
from flux.engine.dispatching.pools import RUNTIME
from flux.errors import DefinitionInvalid
from flux.roles.prompts import LayeredPrompt
from flux.roles.specs import AgentSpec
from flux.roles.topology import RuntimeSpec, name_of
from flux.tools.rules import Dynamic, Rule

MAY: Mapping[str, tuple[str, ...]] = {"planner": ("store",), "executor": ("execute",)}
#: Model answers of a run that may ask for tools, where `max_turns` does not say it.
TOOL_CALLS = 50


def compiled(spec: RuntimeSpec, agent: AgentSpec) -> AgentDefinition:
    """The definition of an agent of a runtime; its tools are those of the process, by their names.

    Its sessions run in processes of the runtime: others on the same database do not have its functions.

    :raises DefinitionInvalid: it cannot be one
    """
    return define(_fields(spec, agent) | {"affinity": labels_of(spec)})


def labels_of(spec: RuntimeSpec) -> dict[str, str]:
    """The labels of the workers of a runtime."""
    return {RUNTIME: spec.tenant.id}


def exported(spec: RuntimeSpec, agent: AgentSpec) -> AgentDefinition:
    """The definition of an agent that runs without the runtime: functions stand in it as `module:attribute`.

    :raises DefinitionInvalid: something of it cannot be named; it says what
    """
    lacking: list[str] = []
    fields = _fields(spec, agent)
    fields["tools"] = [_entry(spec, entry, lacking) for entry in fields["tools"]]
    if agent.plan is not None:
        bound = {type: _entry(spec, tool, lacking) for type, tool in fields["plan"]["actions"].items()}
        fields["plan"] |= {"actions": bound}
        model = reference_to(agent.plan.schema)
        if model is not None:
            fields["plan"]["model"] = model
        elif agent.plan.schema.__pydantic_decorators__.field_validators:
            lacking.append(f"the schema {agent.plan.schema.__qualname__} of the plan {agent.plan.name}")
    predicates = {name: reference_to(spec.predicates[name]) for name in _asked(spec, agent, fields["approvals"])}
    lacking += [f"the predicate {name}" for name, found in predicates.items() if found is None]
    if lacking:
        raise DefinitionInvalid(
            f"{agent.name} cannot be exported: {', '.join(dict.fromkeys(lacking))} cannot be named as module:attribute;"
            " move it to the top of a module that can be imported"
        )
    fields["approvals"] |= {"predicates": predicates} if predicates else {}
    return define(fields)


def _fields(spec: RuntimeSpec, agent: AgentSpec) -> dict[str, Any]:
    prompt = agent.prompt
    fields: dict[str, Any] = {
        "name": agent.name,
        "model": agent.model.named(tuple(spec.providers)),
        "system_prompt": prompt.text if isinstance(prompt, LayeredPrompt) else prompt,
        "description": agent.description,
        "tools": [*agent.toolkits, *agent.tool_names],
        "approvals": _approvals(spec, agent),
        "max_tool_calls": min(agent.max_turns or TOOL_CALLS, 1000),
    }
    if isinstance(prompt, LayeredPrompt):
        fields["prompt_cache_key"] = prompt.cache_key
    if agent.max_turns is not None:
        fields["max_turns"] = agent.max_turns
    if agent.routes:
        fields["routes"] = list(agent.routes)
    if agent.stateful:
        fields["stateful"] = True
    if agent.plan is not None:
        fields["plan"] = {
            "name": agent.plan.name,
            "description": agent.plan.description,
            "json_schema": agent.plan.json_schema,
            "lists": list(agent.plan.lists),
            "actions": {type: name_of(tool) for type, tool in agent.plan.actions.items()},
            "may": list(MAY[agent.role]),
        }
    return fields


def _approvals(spec: RuntimeSpec, agent: AgentSpec) -> dict[str, Any]:
    coordinator = spec.coordinator
    above = coordinator.approval if coordinator is not None else None
    plans, tools = (
        base_rule(channel, runtime=spec.approval_policies, coordinator=above, agent=agent.approval)
        for channel in ("plans", "tools")
    )
    found = Approvals(plans=plans, tools=tools, overrides=dict(agent.tool_approvals))
    return found.model_dump(mode="json", exclude_unset=True)


def _entry(spec: RuntimeSpec, entry: Any, lacking: list[str]) -> Any:
    """A tool as it can be named elsewhere."""
    tool = spec.tools.get(entry) if isinstance(entry, str) else None
    if tool is None:
        return entry
    reference = _reference(tool)
    if reference is None:
        lacking.append(f"the tool {tool.name}")
    return {"function": reference or ""}


def _reference(tool: ToolDefinition) -> str | None:
    """Where a tool is found: as it was made, or as the function that makes it again."""
    made = reference_to_tool(tool)
    return made if made is not None else (reference_to(tool.execute) if _plain(tool) else None)


def reference_to_tool(tool: ToolDefinition) -> str | None:
    """The `module:attribute` of a tool that a module holds; None: none holds it."""
    return _held(getattr(tool.execute, "__module__", None), tool)


def _held(module: Any, tool: ToolDefinition) -> str | None:
    names = vars(sys.modules[module]) if module in sys.modules and module != "__main__" else {}
    return next((f"{module}:{name}" for name, found in names.items() if found is tool), None)


def _plain(tool: ToolDefinition) -> bool:
    """Whether the function alone makes the same tool."""
    plain = tool.effect == "once" and tool.timeout is None and tool.requires_approval is False
    return plain and tool.approval == "default" and tool.name == getattr(tool.execute, "__name__", None)


def _asked(spec: RuntimeSpec, agent: AgentSpec, approvals: Mapping[str, Any]) -> list[str]:
    """The predicates that an agent's rules, and those of its tools, ask."""
    known = Approvals.model_validate(approvals)
    names = {*agent.tool_names, *(map(name_of, agent.plan.tools) if agent.plan is not None else ())}
    rules: list[Rule] = [known.plans, known.tools, *known.overrides.values()]
    rules += [tool.approval for name, tool in spec.tools.items() if name in names]
    return sorted({rule.value for rule in rules if isinstance(rule, Dynamic)})
