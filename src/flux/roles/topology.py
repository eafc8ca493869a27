"""Do the agents of a runtime go together? Every fault is told at once."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from flux.agents.define.approval import Channels, Predicate
from flux.agents.define.definition import RESERVED
from flux.agents.define.tool import ToolDefinition
from flux.errors import DefinitionInvalid, FluxError, TopologyInvalid
from flux.roles.plans import PlanSpec
from flux.roles.specs import AgentSpec, tool_of
from flux.suggest import unknown
from flux.tools.base import Tool
from flux.tools.groups import resolve
from flux.tools.rules import Dynamic, Rule

TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
#: Tools that agents get by their roles: nobody else may be called so.
ROLE_TOOLS = frozenset({"call_agent", "storePlan", "getPlan", "executePlan", "resolveRef", "glimpseRef"})


class TenantSpec(Struct, frozen=True):
    """Whose agents, sessions, references and memories a runtime has. `define_tenant` makes it."""

    id: str


def define_tenant(id: Any) -> TenantSpec:
    """A tenant.

    :raises DefinitionInvalid: its name cannot be one
    """
    if not isinstance(id, str) or not TENANT.fullmatch(id):
        raise DefinitionInvalid(f"tenant: {id!r:.80} must be a letter or digit, then letters, digits, '_', '.' or '-'")
    return TenantSpec(id)


class RuntimeSpec(Struct, frozen=True):
    """What a runtime is made of; `define_runtime` checks it."""

    tenant: TenantSpec
    agents: tuple[AgentSpec, ...]
    tools: Mapping[str, ToolDefinition]
    providers: Mapping[str, Any]
    approval_policies: Channels | None
    predicates: Mapping[str, Predicate]

    @property
    def coordinator(self) -> AgentSpec | None:
        """The one that people talk to."""
        return next((one for one in self.agents if one.role == "coordinator"), None)

    def agent(self, name: str) -> AgentSpec | None:
        """An agent by its name."""
        return next((one for one in self.agents if one.name == name), None)


def collected(agents: Sequence[AgentSpec], tools: Iterable[Any], faults: list[str]) -> dict[str, ToolDefinition]:
    """The tools of a runtime by name: those it is given, those of its agents, and those that its plans bind."""
    found: dict[str, ToolDefinition] = {}
    for where, given in _given_tools(agents, tools):
        try:
            tool = tool_of(where, given)
        except FluxError as error:
            faults.append(str(error))
            continue
        known = found.get(tool.name)
        if known is not None and known.execute is not tool.execute:
            faults.append(f"{where}: two tools are called {tool.name}")
        if tool.name in ROLE_TOOLS:
            faults.append(f"{where}: {tool.name} is a tool of a role; rename this one")
        found.setdefault(tool.name, tool)
    return found


def check(spec: RuntimeSpec, faults: list[str], compile: Callable[[AgentSpec], Any] | None) -> None:
    """Say all that is wrong, in one error; `compile` makes a definition of an agent.

    :raises TopologyInvalid: something is
    """
    faults += _agents(spec)
    for agent in spec.agents:
        found = list(_agent(spec, agent))
        faults += found or _uncompiled(agent, compile)
    faults += _plans(spec)
    faults += _predicates(spec)
    if faults:
        raise TopologyInvalid("; ".join(dict.fromkeys(faults)), faults=list(dict.fromkeys(faults)))
    for agent in spec.agents:
        for name in sorted(set(agent.tool_approvals) - set(bound_tools(spec, agent))):
            warnings.warn(f"{agent.role} {agent.name}: tool_approvals: it has no tool {name}", stacklevel=3)


def _uncompiled(agent: AgentSpec, compile: Callable[[AgentSpec], Any] | None) -> list[str]:
    """What a definition of an agent would not take."""
    try:
        if compile is not None:
            compile(agent)
    except DefinitionInvalid as error:
        return [f"{agent.role} {agent.name}: {error}"]
    return []


def bound_tools(spec: RuntimeSpec, agent: AgentSpec) -> tuple[str, ...]:
    """The names of the tools that an agent may use, by itself or as actions of its plan."""
    actions = agent.plan.tools if agent.plan is not None and agent.role == "executor" else ()
    kits = tuple(tool.name for tool in _toolkits(agent, []))
    return (*agent.tool_names, *(name_of(one) for one in actions), *kits)


def name_of(tool: ToolDefinition | Callable[..., Any] | str) -> str:
    """What a tool is called."""
    return tool if isinstance(tool, str) else str(getattr(tool, "name", None) or getattr(tool, "__name__", "?"))


def _given_tools(agents: Sequence[AgentSpec], tools: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    for one in tools:
        yield "tools", one
    for agent in agents:
        bound = agent.plan.tools if agent.plan is not None else ()
        for one in (*agent.tools, *bound):
            if not isinstance(one, str):
                yield f"{agent.role} {agent.name}", one


def _agents(spec: RuntimeSpec) -> Iterator[str]:
    names = [agent.name for agent in spec.agents]
    if not names:
        yield "a runtime needs at least one agent"
    yield from (f"two agents are called {name}" for name in sorted({n for n in names if names.count(n) > 1}))
    yield from (f"{name} is a reserved name" for name in sorted(set(names) & RESERVED))
    coordinators = [agent.name for agent in spec.agents if agent.role == "coordinator"]
    if len(coordinators) > 1:
        yield f"a runtime has one coordinator, this one has {len(coordinators)}: {', '.join(coordinators)}"


def _agent(spec: RuntimeSpec, agent: AgentSpec) -> Iterator[str]:
    what = f"{agent.role} {agent.name}"
    others = [one.name for one in spec.agents if one.name != agent.name]
    yield from (f"{what}: routes: {unknown('agent', name, others)}" for name in agent.routes if name not in others)
    faults: list[str] = []
    kits = {tool.name for tool in _toolkits(agent, faults)}
    yield from (f"{what}: toolkits: {fault}" for fault in faults)
    yield from (f"{what}: two tools are called {name}" for name in _twice([*agent.tool_names, *kits]))
    for name in agent.tool_names:
        if name not in spec.tools and not _bundled(name):
            yield f"{what}: tools: {unknown('tool', name, spec.tools)}"
    if agent.plan is not None:
        yield from (f"{what}: plan {agent.plan.name}: {fault}" for fault in _actions(spec, agent.plan))
    try:
        agent.model.named(tuple(spec.providers))
    except DefinitionInvalid as error:
        yield f"{what}: {error}"


def _actions(spec: RuntimeSpec, plan: PlanSpec) -> Iterator[str]:
    """Each action has a tool that can take what it says."""
    for type, tool in plan.actions.items():
        name = name_of(tool)
        if name in spec.tools:
            yield from (f"action {type}: {fault}" for fault in _misfits(plan, type, spec.tools[name]))
        elif _bundled(name) != [name]:
            yield f"action {type}: {unknown('tool', name, spec.tools)}"


def _misfits(plan: PlanSpec, type: str, tool: ToolDefinition) -> Iterator[str]:
    fields, takes = plan.fields_of(type), tool.parameters.get("properties", {})
    for name in tool.parameters.get("required", ()):
        if name not in fields:
            yield f"it has no field {name!r}, which the tool {tool.name} needs"
    if tool.parameters.get("additionalProperties") is False:
        yield from (f"the tool {tool.name} does not take its field {name!r}" for name in fields if name not in takes)


def _plans(spec: RuntimeSpec) -> Iterator[str]:
    """Plans of one name are one plan; an executor needs somebody who plans for it."""
    kinds: dict[str, PlanSpec] = {}
    for agent in spec.agents:
        if (
            agent.plan is not None
            and kinds.setdefault(agent.plan.name, agent.plan).json_schema != agent.plan.json_schema
        ):
            yield f"{agent.role} {agent.name}: another plan is called {agent.plan.name}, with another schema"
    planned = {agent.plan.name for agent in spec.agents if agent.role == "planner" and agent.plan is not None}
    for agent in spec.agents:
        if agent.role == "executor" and agent.plan is not None and agent.plan.name not in planned:
            yield f"executor {agent.name}: no planner shares its plan {agent.plan.name}"


def _predicates(spec: RuntimeSpec) -> Iterator[str]:
    for where, rule in _rules(spec):
        if isinstance(rule, Dynamic) and rule.value not in spec.predicates:
            yield f"{where}: {unknown('predicate', rule.value, spec.predicates)}"
    yield from (
        f"predicates: {name} is no function"
        for name, one in dict[str, Any](spec.predicates).items()
        if not callable(one)
    )


def _rules(spec: RuntimeSpec) -> Iterator[tuple[str, Rule]]:
    for channel in ("plans", "tools"):
        if spec.approval_policies is not None:
            yield "approval_policies", getattr(spec.approval_policies, channel)
        yield from ((f"{one.role} {one.name}: approval", getattr(one.approval, channel)) for one in spec.agents)
    for agent in spec.agents:
        where = f"{agent.role} {agent.name}: tool_approvals"
        yield from ((f"{where}: {name}", rule) for name, rule in agent.tool_approvals.items())
    yield from ((f"tool {name}: approval", tool.approval) for name, tool in spec.tools.items())


def _toolkits(agent: AgentSpec, faults: list[str]) -> tuple[Tool, ...]:
    found: dict[str, Tool] = {}
    for one in agent.toolkits:
        try:
            found |= {tool.name: tool for tool in resolve([one])}
        except FluxError as error:
            faults.append(str(error).removeprefix("tools: "))
    return tuple(found.values())


def _bundled(name: str) -> list[str]:
    """The tools that Flux brings under a name: one, or those of a group."""
    try:
        return [tool.name for tool in resolve([name])]
    except FluxError:
        return []


def _twice(names: list[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})
