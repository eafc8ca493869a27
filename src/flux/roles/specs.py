"""The role helpers: each returns a frozen, validated AgentSpec. A role decides what is asked for here; no more."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

from msgspec import Struct

from flux.agents.define.approval import Channels
from flux.agents.define.tool import ToolDefinition, check_name, define_tool
from flux.errors import DefinitionInvalid
from flux.roles.plans import PlanSpec
from flux.roles.prompts import LayeredPrompt, prompt_of
from flux.suggest import unknown
from flux.tools.rules import Rule, rule_of

Role = Literal["coordinator", "planner", "executor", "specialist"]
#: Names of models that tell their provider.
PREFIXES: Mapping[str, str] = {
    "claude-": "anthropic", "gpt-": "openai", "o1": "openai", "o3": "openai", "o4": "openai", "gemini-": "google",
}  # fmt: skip


class ModelSpec(Struct, frozen=True):
    """A model by its id, and its provider where that is said."""

    id: str
    provider: str | None = None

    def named(self, providers: Sequence[str] = ()) -> str:
        """The model as `provider/model`: a bare id takes the only provider, else the one that its name tells.

        :raises DefinitionInvalid: its provider cannot be known
        """
        if self.provider is not None:
            return f"{self.provider}/{self.id}"
        if len(providers) == 1:
            return f"{providers[0]}/{self.id}"
        found = next((provider for prefix, provider in PREFIXES.items() if self.id.startswith(prefix)), None)
        if found is None:
            raise DefinitionInvalid(
                f"model {self.id!r} does not tell its provider; write provider/model, or give the runtime one provider",
                field="model",
            )
        return f"{found}/{self.id}"


class AgentSpec(Struct, frozen=True):
    """An agent in a role. The helpers `define_coordinator`, `define_planner`, … make it.

    `approval` are its rules per channel, `tool_approvals` those of single tools. `max_turns` are model calls of a run,
    after which it answers once more without tools. `stateful`: its session lives across calls.
    """

    role: Role
    name: str
    model: ModelSpec
    prompt: LayeredPrompt | str
    description: str
    routes: tuple[str, ...] = ()
    plan: PlanSpec | None = None
    approval: Channels = Channels()
    tool_approvals: Mapping[str, Rule] = {}
    stateful: bool = False
    max_turns: int | None = None
    tools: tuple[ToolDefinition | str, ...] = ()
    toolkits: tuple[str | Mapping[str, Any], ...] = ()

    @property
    def tool_names(self) -> tuple[str, ...]:
        """The names of the tools that it is given; those of toolkits are not among them."""
        return tuple(tool if isinstance(tool, str) else tool.name for tool in self.tools)


def define_coordinator(name: str, *, model: Any, prompt: Any, routes: Sequence[Any], **more: Any) -> AgentSpec:
    """An agent that hands work to those in `routes` (names or specs) with `call_agent`. At most one per runtime.

    :raises DefinitionInvalid: a field is missing, unknown or wrong; it is named
    """
    return _spec("coordinator", name, model, prompt, {"stateful": True, **more}, routes=_routes(name, routes))


def define_planner(name: str, *, model: Any, prompt: Any, plan: PlanSpec, **more: Any) -> AgentSpec:
    """An agent that stores plans of one kind, with `storePlan` and `getPlan`.

    :raises DefinitionInvalid: a field is missing, unknown or wrong; it is named
    """
    return _spec("planner", name, model, prompt, {"stateful": True, **more}, plan=_plan(name, plan))


def define_executor(name: str, *, model: Any, prompt: Any, plan: PlanSpec, **more: Any) -> AgentSpec:
    """An agent that executes approved plans, with `executePlan`.

    :raises DefinitionInvalid: a field is missing, unknown or wrong; it is named
    """
    return _spec("executor", name, model, prompt, more, plan=_plan(name, plan))


def define_specialist(name: str, *, model: Any, prompt: Any, **more: Any) -> AgentSpec:
    """An agent for one kind of work: by `Runtime.run_specialist`, or by the coordinator that lists it.

    :raises DefinitionInvalid: a field is missing, unknown or wrong; it is named
    """
    return _spec("specialist", name, model, prompt, more)


OPTIONS = ("description", "approval", "tool_approvals", "stateful", "max_turns", "tools", "toolkits")
DESCRIPTIONS: Mapping[Role, str] = {
    "coordinator": "Coordinates the other agents.",
    "planner": "Makes plans.",
    "executor": "Executes approved plans.",
    "specialist": "Does one kind of work.",
}


def _spec(role: Role, name: Any, model: Any, prompt: Any, more: Mapping[str, Any], **fixed: Any) -> AgentSpec:
    check_name(role, name)
    what = f"{role} {name}"
    for key in more:
        if key not in OPTIONS:
            raise DefinitionInvalid(f"{what}: unknown field {key!r}; valid: {', '.join(OPTIONS)}", field=key)
    turns = more.get("max_turns")
    if turns is not None and (isinstance(turns, bool) or not isinstance(turns, int) or turns < 1):
        raise _wrong(what, "max_turns", f"must be a whole number of at least 1, not {turns!r}")
    stateful = more.get("stateful", False)
    if not isinstance(stateful, bool):
        raise _wrong(what, "stateful", f"must be True or False, not {stateful!r}")
    description = more.get("description", "")
    if not isinstance(description, str):
        raise _wrong(what, "description", f"must be text, not {description!r:.80}")
    tools = tuple(_tool(what, one) for one in _listed(what, "tools", more.get("tools", ())))
    return AgentSpec(
        role=role,
        name=name,
        model=_model(what, model),
        prompt=prompt_of(prompt, what),
        description=description or _described(role, fixed.get("plan")),
        approval=channels_of(what, more.get("approval", "default")),
        tool_approvals=MappingProxyType(_tool_rules(what, more.get("tool_approvals", {}))),
        stateful=stateful,
        max_turns=turns,
        tools=tools,
        toolkits=tuple(_listed(what, "toolkits", more.get("toolkits", ()))),
        **fixed,
    )


def channels_of(what: str, given: Any, field: str = "approval") -> Channels:
    """Rules per channel: one rule for both, or a mapping of `plans` and `tools`.

    :raises DefinitionInvalid: it is none
    """
    if isinstance(given, Channels):
        return given
    try:
        if not isinstance(given, Mapping) or "kind" in given:
            return Channels(plans=rule_of(given), tools=rule_of(given))
        for key in given:
            if key not in Channels.model_fields:
                raise _wrong(what, field, unknown("channel", str(key), Channels.model_fields))
        return Channels(**{key: rule_of(rule) for key, rule in given.items()})
    except ValueError as error:
        raise _wrong(what, field, str(error)) from error


def tool_of(what: str, given: Any) -> ToolDefinition:
    """A tool of a function, or as it was made.

    :raises DefinitionInvalid: it is neither
    """
    if isinstance(given, ToolDefinition):
        return given
    if isinstance(given, Callable) and not isinstance(given, type):  # type: ignore[arg-type]
        return define_tool(str(getattr(given, "__name__", "")), given)
    raise _wrong(what, "tools", f"{given!r:.80} is no function, and no tool of define_tool or @tool")


def _tool(what: str, given: Any) -> ToolDefinition | str:
    return given if isinstance(given, str) else tool_of(what, given)


def _model(what: str, given: Any) -> ModelSpec:
    if isinstance(given, ModelSpec):
        return given
    if isinstance(given, str) and given.strip():
        provider, slash, id = given.partition("/")
        if not slash:
            return ModelSpec(given)
        if provider and id:
            return ModelSpec(id, provider)
    if isinstance(given, Mapping) and set(given) <= {"id", "provider"} and isinstance(given.get("id"), str):
        return ModelSpec(given["id"], given.get("provider"))
    raise _wrong(
        what, "model", f'must be "provider/model", {{"id": …, "provider": …}} or a ModelSpec, not {given!r:.80}'
    )


def _routes(name: Any, given: Any) -> tuple[str, ...]:
    what = f"coordinator {name}"
    routes = tuple(
        one if isinstance(one, str) else getattr(one, "name", None) for one in _listed(what, "routes", given)
    )
    if not routes:
        raise _wrong(what, "routes", "must name at least one agent")
    if not all(isinstance(one, str) for one in routes):
        raise _wrong(what, "routes", "must be names of agents, or what the other helpers return")
    found = tuple(str(one) for one in routes)
    twice = next((one for one in found if found.count(one) > 1), None)
    if twice is not None:
        raise _wrong(what, "routes", f"{twice!r} is given twice")
    return found


def _plan(name: Any, given: Any) -> PlanSpec:
    if not isinstance(given, PlanSpec):
        raise _wrong(str(name), "plan", f"must be what define_plan returns, not {type(given).__name__}")
    return given


def _tool_rules(what: str, given: Any) -> dict[str, Rule]:
    if not isinstance(given, Mapping):
        raise _wrong(what, "tool_approvals", "must be a mapping of tools and rules")
    try:
        return {str(name): rule_of(rule) for name, rule in given.items()}
    except ValueError as error:
        raise _wrong(what, "tool_approvals", str(error)) from error


def _listed(what: str, field: str, given: Any) -> Sequence[Any]:
    if isinstance(given, str | Mapping) or not isinstance(given, Sequence):
        raise _wrong(what, field, f"must be a list, not {type(given).__name__}")
    return given


def _described(role: Role, plan: PlanSpec | None) -> str:
    return DESCRIPTIONS[role] if plan is None or not plan.description else f"{DESCRIPTIONS[role]} {plan.description}"


def _wrong(what: str, field: str, problem: str) -> DefinitionInvalid:
    return DefinitionInvalid(f"{what}: {field} {problem}", field=field)
