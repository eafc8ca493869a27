"""What the application gives by name: tools, the tools of actions, predicates, and further checks of plans."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from flux.agents.define.application_tools import FUNCTION, function_tool, is_function
from flux.agents.define.approval import Predicate
from flux.agents.define.definition import AgentDefinition
from flux.agents.define.named import CheckPlan, Registry, is_loaded, load
from flux.agents.define.typed_plan import TypedPlan
from flux.agents.plans.checks import is_reference
from flux.errors import DefinitionInvalid, FluxError
from flux.tools.base import Tool
from flux.tools.groups import resolve
from flux.tools.references import unlooked
from flux.tools.rules import Dynamic


def chosen(entries: Sequence[Any], own: Mapping[str, Tool], sandbox: str = "local") -> dict[str, Tool]:
    """The tools that entries name, in a stable order: bundled ones, those of `own`, and functions by their names.

    :raises DefinitionInvalid: a tool does not exist, or two are called alike
    """
    named = [entry for entry in entries if isinstance(entry, str) and entry in own]
    functions = [function_tool(entry[FUNCTION]) for entry in entries if is_function(entry)]
    others = [entry for entry in entries if entry not in named and not is_function(entry)]
    bundled = resolve(others, sandbox=sandbox)
    found: dict[str, Tool] = {tool.name: tool for tool in (*bundled, *(own[name] for name in named))}
    for tool in functions:
        if tool.name in found:
            raise DefinitionInvalid(f"tools: two tools are called {tool.name}")
        found[tool.name] = tool
    return found


class Named:
    """Finds what definitions name, in what the process was given and in modules that can be imported."""

    def __init__(self, tools: Mapping[str, Tool], registry: Registry) -> None:
        self._tools = tools
        self._registry = registry

    async def imported(self, definition: AgentDefinition) -> None:
        """Import the modules that a definition names, in a thread: their code may take its time.

        :raises DefinitionInvalid: something that it names cannot be found
        """
        if not all(map(is_loaded, _references(definition))):
            await asyncio.to_thread(self.check, definition)

    def check(self, definition: AgentDefinition) -> None:
        """Refuse what cannot be found.

        :raises DefinitionInvalid: a tool of an action, a predicate or the model of a plan does not exist
        """
        chosen(list(filter(is_function, definition.tools)), {})
        self.action_tools(definition)
        known = self.predicates_of(definition)
        for where, name in _asked(definition):
            if name not in known:
                raise DefinitionInvalid(f"approvals: {where}: there is no predicate {name!r} here")
        if definition.plan is not None:
            self.plan_check(definition.plan)

    def predicates_of(self, definition: AgentDefinition) -> Mapping[str, Predicate]:
        """Predicates by id: those of the process, and those that the definition names.

        :raises DefinitionInvalid: one of these does not exist
        """
        named = definition.approvals.predicates if definition.approvals is not None else {}
        missing = {id: reference for id, reference in named.items() if id not in self._registry.predicates}
        return {**self._registry.predicates, **{id: _function(reference) for id, reference in missing.items()}}

    def action_tools(self, definition: AgentDefinition) -> Mapping[str, Tool]:
        """The tools of actions by their types.

        :raises DefinitionInvalid: one does not exist
        """
        if definition.plan is None or "execute" not in definition.plan.may:
            return {}
        found: dict[str, Tool] = {}
        for type, entry in definition.plan.actions.items():
            try:
                (found[type],) = chosen([entry], self._tools).values()
            except (DefinitionInvalid, ValueError) as error:
                said = error if isinstance(error, FluxError) else f"{entry} is a group; name one tool"
                raise DefinitionInvalid(f"plan {definition.plan.name}: action {type}: {said}") from error
        return found

    def plan_check(self, plan: TypedPlan) -> CheckPlan | None:
        """What checks plans beyond their schema: of the process, or by the model that the plan names.

        :raises DefinitionInvalid: there is no such model
        """
        given = self._registry.plans.get(plan.name)
        if given is not None or plan.model is None:
            return given
        model = load(plan.model)
        if not isinstance(model, type) or not issubclass(model, BaseModel):
            raise DefinitionInvalid(f"plan {plan.name}: model: {plan.model} is no Pydantic model")
        return model_check(model)


def model_check(model: type[BaseModel]) -> CheckPlan:
    """Checks by a Pydantic model; what is a reference to a result can only be checked when that is there."""

    def check(value: Mapping[str, Any]) -> list[str]:
        try:
            with unlooked():
                model.model_validate(value)
        except ValidationError as error:
            return [_fault(fault) for fault in error.errors(include_url=False) if not _refers(value, fault["loc"])]
        return []

    return check


def _fault(fault: Any) -> str:
    return f"`{'.'.join(str(part) for part in fault['loc'])}`: {str(fault['msg']).removeprefix('Value error, ')}"


def _refers(value: Any, place: Sequence[Any]) -> bool:
    """Whether there is a reference at a place, or above it."""
    for part in place:
        if is_reference(value):
            return True
        if (isinstance(value, Mapping) and part in value) or (
            isinstance(value, list) and isinstance(part, int) and part < len(value)
        ):
            value = value[part]
        # Else it names the kind of an action, which is no place in the value.
    return is_reference(value)


def _function(reference: str) -> Predicate:
    found = load(reference)
    if not callable(found):
        raise DefinitionInvalid(f"approvals: predicates: {reference} is no function")
    made: Predicate = found
    return made


def _references(definition: AgentDefinition) -> list[str]:
    """Every `module:attribute` in a definition."""
    plan, approvals = definition.plan, definition.approvals
    entries: list[Any] = [*definition.tools, *(plan.actions.values() if plan else ())]
    named = [entry[FUNCTION] for entry in entries if is_function(entry)]
    named += [plan.model] if plan and plan.model else []
    return [*named, *(approvals.predicates.values() if approvals else ())]


def _asked(definition: AgentDefinition) -> list[tuple[str, str]]:
    approvals = definition.approvals
    if approvals is None:
        return []
    rules = {"plans": approvals.plans, "tools": approvals.tools, **approvals.overrides}
    return [(where, rule.value) for where, rule in rules.items() if isinstance(rule, Dynamic)]
