"""Agents of the Python door: profiles, and what an initialiser returns. Data and functions; nothing runs here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, field_validator

from flux.agents.define.definition import CompactionConfig as CompactionConfig  # noqa: PLC0414 - people take it from here
from flux.agents.define.definition import ThinkingLevel
from flux.agents.define.skills import skill_of
from flux.agents.define.tool import ToolDefinition, check_name
from flux.errors import DefinitionInvalid
from flux.suggest import unknown
from flux.tools.skill import Skill

#: Lists of an agent that its parts add to, and what one element is.
LISTS = {"tools": "tool", "skills": "skill", "subagents": "sub-agent"}


def _tool_of(given: Any) -> Any:
    if not isinstance(given, ToolDefinition):
        raise ValueError(f"must be a tool of define_tool or @tool, not {type(given).__name__}")
    return given


class Capabilities(BaseModel):
    """What a profile and a configuration have in common.

    `tool_approvals` says by a tool's name whether a person is asked before it runs, whatever the tool itself says.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, hide_input_in_errors=True)

    model: str | Literal[False] | None = None
    instructions: str | None = None
    skills: tuple[Annotated[Skill, BeforeValidator(skill_of)], ...] = ()
    tools: tuple[Annotated[ToolDefinition, BeforeValidator(_tool_of)], ...] = ()
    subagents: tuple[AgentProfile, ...] = ()
    thinking_level: ThinkingLevel | None = None
    compaction: CompactionConfig | Literal[False] | None = None
    tool_approvals: dict[str, bool] = {}

    @field_validator("model", mode="before")
    @classmethod
    def _names_a_model(cls, model: Any) -> Any:
        if model is False or model is None:
            return model
        provider, slash, name = model.partition("/") if isinstance(model, str) else ("", "", "")
        if not (provider and slash and name):
            raise ValueError(f"{model!r} must be provider/model, or False for one that each call names")
        return model

    @field_validator("compaction", mode="before")
    @classmethod
    def _compacts(cls, compaction: Any) -> Any:
        if compaction is True:
            raise ValueError("must be False or a CompactionConfig")
        return compaction

    @field_validator(*LISTS, mode="before")
    @classmethod
    def _is_a_list(cls, value: Any) -> Any:
        if isinstance(value, str | Mapping) or not isinstance(value, Sequence):
            raise ValueError(f"must be a list, not {type(value).__name__}")
        return value

    @field_validator(*LISTS)
    @classmethod
    def _named_once(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        names = [one.name for one in value]
        if None in names:
            raise ValueError(f"the one at {names.index(None)} has no name, by which it is chosen")
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice!r} is given twice")
        return value


class AgentProfile(Capabilities):
    """A reusable agent: a baseline of others, or a sub-agent. `define_agent_profile` makes it."""

    name: str | None = None
    description: str | None = None

    @field_validator("name")
    @classmethod
    def _valid_name(cls, name: str | None) -> str | None:
        if name is not None:
            try:
                check_name("profile", name)
            except DefinitionInvalid as error:
                raise ValueError(str(error).removeprefix("profile: name: ")) from error
        return name


class AgentRuntimeConfig(Capabilities):
    """What an initialiser returns: the fields that it gives replace those of `profile`, its lists are added.

    `cwd` is the directory in the sandbox, `sandbox` what makes that (False: the virtual one), `persist` a store
    of sessions besides the database.
    """

    profile: AgentProfile | None = None
    cwd: str | None = None
    sandbox: Any = None
    persist: Any = None

    @field_validator("sandbox")
    @classmethod
    def _makes_a_sandbox(cls, sandbox: Any) -> Any:
        made = callable(sandbox) or any(hasattr(sandbox, name) for name in ("open", "exec", "execute"))
        if not (made or sandbox is None or sandbox is False):
            raise ValueError("must be False, virtual(), local(), isolated(), or a function that makes a sandbox")
        return sandbox


C = TypeVar("C", bound=BaseModel)


def define_agent_profile(profile: Mapping[str, Any] | AgentProfile | None = None, /, **fields: Any) -> AgentProfile:
    """A profile of a mapping, of keywords, or of both; what it returns cannot be changed.

    :raises DefinitionInvalid: a field is unknown or wrong, a name is used twice, or sub-agents go round in a circle
    """
    if profile is not None and not isinstance(profile, Mapping | AgentProfile):
        raise DefinitionInvalid(f"a profile is a mapping of fields, not {type(profile).__name__}")
    given = given_of(profile) if isinstance(profile, AgentProfile) else dict(profile or {})
    return checked(AgentProfile, {**given, **fields}, "profile")


def given_of(one: BaseModel) -> dict[str, Any]:
    """The fields that were given, with their values as they are."""
    return {name: getattr(one, name) for name in type(one).model_fields if name in one.model_fields_set}


def checked(cls: type[C], fields: Mapping[str, Any], what: str) -> C:
    """An instance of these fields.

    :raises DefinitionInvalid: one is unknown or wrong; it is named
    """
    _check_circle(fields, ())
    try:
        return cls.model_validate(dict(fields))
    except ValidationError as error:
        faults = _telling(error.errors(include_url=False))
        said = "; ".join(_fault(cls, fault) for fault in faults)
        field = str(faults[0]["loc"][0] if faults[0]["loc"] else "")
        raise DefinitionInvalid(f"{what}: {said}", field=field) from None


def _check_circle(fields: Any, above: tuple[tuple[int, str], ...]) -> None:
    """Refuse sub-agents that hold themselves."""
    if not isinstance(fields, Mapping):
        return
    name = str(fields.get("name") or "?")
    if any(one == id(fields) for one, _ in above):
        first = [one for one, _ in above].index(id(fields))
        circle = " -> ".join([*(called for _, called in above[first:]), name])
        raise DefinitionInvalid(f"profile: subagents: {circle} is a circle", field="subagents")
    inner = [fields.get("profile"), *(fields.get("subagents") or () if _listed(fields.get("subagents")) else ())]
    for one in inner:
        _check_circle(one, (*above, (id(fields), name)))


def _listed(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _telling(faults: Sequence[Any]) -> Sequence[Any]:
    """Without the faults of what was plainly not meant: of a choice between False and a mapping."""
    return [fault for fault in faults if fault["loc"][-1:] != ("literal[False]",)] or faults


def _fault(cls: type[BaseModel], fault: Any) -> str:
    where = ".".join(str(part) for part in fault["loc"] if part not in ("CompactionConfig", "literal[False]"))
    if fault["type"] == "extra_forbidden":
        return unknown("field", where, _fields_at(cls, fault["loc"]))
    if fault["type"] == "missing":
        return f"missing field {where!r}"
    message = str(fault["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    return f"{where}: {message}" if where else message


def _fields_at(cls: type[BaseModel], loc: tuple[Any, ...]) -> list[str]:
    """The fields that may stand where an unknown one does."""
    inside: dict[str, type[BaseModel]] = {
        "subagents": AgentProfile,
        "profile": AgentProfile,
        "skills": Skill,
        "compaction": CompactionConfig,
    }
    named = [part for part in loc[:-1] if part in inside]
    found = inside[cast(str, named[-1])] if named else cls
    prefix = ".".join(str(part) for part in loc[:-1] if part not in ("CompactionConfig", "literal[False]"))
    return [f"{prefix}.{name}" if prefix else name for name in found.model_fields]


AgentProfile.model_rebuild()
AgentRuntimeConfig.model_rebuild()
