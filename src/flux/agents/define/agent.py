"""`create_agent`: an agent whose parts are made anew for each instance, by a function of the application."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from flux.agents.define.definition import ThinkingLevel
from flux.agents.define.profile import (
    LISTS,
    AgentProfile,
    AgentRuntimeConfig,
    CompactionConfig,
    checked,
    given_of,
)
from flux.agents.define.tool import NAME, ToolDefinition
from flux.errors import DefinitionInvalid
from flux.tools.skill import Skill


class AgentCreateContext(Struct, frozen=True):
    """What an initialiser may know: the id of the instance, what the application passes as `env`, and a payload."""

    id: str
    env: Any = None
    payload: Any = None


Initialise = Callable[..., Any]


class CreatedAgent:
    """An agent of the application; `create_agent` makes it. It is given to `init_agent`, `ctx.init` and `dispatch`.

    `module` is the name of the module that made it and `file` its file, None where there is none; `begin` makes its
    harness in an execution of a workflow.
    """

    def __init__(
        self, initialise: Initialise, name: str | None, module: str, file: str | None, begin: Callable[..., Any]
    ) -> None:
        self._initialise = initialise
        self._begin = begin
        self._name = name
        self.module = module
        self.file = file

    @property
    def name(self) -> str:
        """What it is called: as it was told, else as its file.

        :raises DefinitionInvalid: neither gives it a name
        """
        stem = self.file and Path(self.file).stem
        found = self._name or (Path(str(self.file)).parent.name if stem == "__init__" else stem)
        if not found or not NAME.fullmatch(found):
            raise DefinitionInvalid(
                f"an agent of the module {self.module} has no name: its file gives none that can be one"
                f" ({found!r}); call create_agent(…, name=…)",
                field="name",
            )
        return found

    async def init_in(self, context: Any, **options: Any) -> Any:
        """A harness in an execution of a workflow: what `ctx.init` gives."""
        return await self._begin(self, context, **options)

    def check_alone(self) -> None:
        """Refuse an agent that has only its file's name, where another one of the same file is meant by that.

        :raises DefinitionInvalid: both would have the same sessions
        """
        module = sys.modules.get(self.module)
        bound = {id(one): key for key, one in vars(module).items() if isinstance(one, CreatedAgent)} if module else {}
        unnamed = [one for one in vars(module).values() if isinstance(one, CreatedAgent)] if module else []
        others = [one for one in unnamed if one is not self and one._name is None and one.file == self.file]
        if self._name is None and others and bound.get(id(self)) not in (None, "default", "agent"):
            raise DefinitionInvalid(
                f"two agents of {self.file} would be called {self.name}, and have the same sessions;"
                " call create_agent(…, name=…)",
                field="name",
            )

    def __repr__(self) -> str:
        return f"<CreatedAgent {self._name or self.file or self.module}>"


class Resolved(Struct, frozen=True):
    """An agent as one instance has it: its profile, its configuration and what came later, together."""

    name: str
    model: str | bool
    instructions: str = ""
    description: str | None = None
    skills: tuple[Skill, ...] = ()
    tools: tuple[ToolDefinition, ...] = ()
    subagents: tuple[AgentProfile, ...] = ()
    thinking_level: ThinkingLevel | None = None
    compaction: CompactionConfig | bool | None = None
    tool_approvals: Mapping[str, bool] = {}
    cwd: str | None = None
    sandbox: Any = None
    persist: Any = None


async def resolve(agent: CreatedAgent, context: AgentCreateContext) -> Resolved:
    """Call the initialiser, and put the parts of what it returns together. What it raises is raised.

    :raises DefinitionInvalid: it returns what cannot be an agent
    """
    if not isinstance(agent, CreatedAgent):
        raise DefinitionInvalid(f"an agent is what create_agent returns, not {type(agent).__name__}")
    agent.check_alone()
    made = agent._initialise(*((context,) if _takes_context(agent._initialise) else ()))
    if inspect.isawaitable(made):
        made = await made
    return merged(agent.name, made)


def merged(name: str, made: Any) -> Resolved:
    """What an initialiser has returned, over its profile: given fields replace, lists are added.

    :raises DefinitionInvalid: it is no agent, or its parts do not go together
    """
    what = f"agent {name}"
    if isinstance(made, AgentProfile):
        made = AgentRuntimeConfig(profile=made)
    if not isinstance(made, Mapping | AgentRuntimeConfig):
        raise DefinitionInvalid(
            f"{what}: its initialiser returned {type(made).__name__};"
            " return a mapping, an AgentRuntimeConfig or a profile"
        )
    config = made if isinstance(made, AgentRuntimeConfig) else checked(AgentRuntimeConfig, made, what)
    profile = config.profile or AgentProfile()
    given = given_of(config)
    given.pop("profile", None)
    below = given_of(profile)
    below.pop("name", None)
    description = below.pop("description", None)
    fields = {**below, **given} | {key: (*below.get(key, ()), *given.get(key, ())) for key in LISTS}
    if fields.get("model") is None:
        raise DefinitionInvalid(
            f"{what}: model is missing: give provider/model, or False to name one with each call", field="model"
        )
    whole = checked(AgentRuntimeConfig, fields, what)
    found = {key: getattr(whole, key) for key in Resolved.__struct_fields__ if key not in ("name", "description")}
    return Resolved(name=name, description=description, **found | {"instructions": whole.instructions or ""})


def extended(
    resolved: Resolved,
    tools: Sequence[ToolDefinition] = (),
    skills: Sequence[Any] = (),
    subagents: Sequence[AgentProfile] = (),
) -> Resolved:
    """The same agent with more tools, skills and sub-agents.

    :raises DefinitionInvalid: a name is used twice, or what is added cannot be used
    """
    if not (tools or skills or subagents):
        return resolved
    more = {"tools": tools, "skills": skills, "subagents": subagents}
    for key, one in more.items():
        if isinstance(one, str | Mapping) or not isinstance(one, Sequence):
            raise DefinitionInvalid(f"agent {resolved.name}: {key}: must be a list", field=key)
    fields = {key: (*getattr(resolved, key), *one) for key, one in more.items()}
    whole = checked(AgentRuntimeConfig, fields, f"agent {resolved.name}")
    return replace(resolved, tools=whole.tools, skills=whole.skills, subagents=whole.subagents)


def of_profile(profile: AgentProfile, parent: Resolved, model: str) -> Resolved:
    """A sub-agent as its parent, which works with `model`, gives it work: what it leaves out is as with the parent."""
    given = given_of(profile)
    name = given.pop("name", None) or parent.name
    given.pop("description", None)
    fields = {"thinking_level": parent.thinking_level, "compaction": parent.compaction, **given}
    whole = checked(AgentRuntimeConfig, fields, f"sub-agent {name}")
    return Resolved(
        name=name,
        model=whole.model or model,
        instructions=whole.instructions or "",
        description=profile.description,
        skills=whole.skills,
        tools=whole.tools,
        subagents=whole.subagents,
        thinking_level=whole.thinking_level,
        compaction=whole.compaction,
        tool_approvals={**parent.tool_approvals, **whole.tool_approvals},
    )


def _takes_context(initialise: Initialise) -> bool:
    try:
        parameters = inspect.signature(initialise).parameters.values()
    except (TypeError, ValueError):
        return True
    return any(one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD, one.VAR_POSITIONAL) for one in parameters)
