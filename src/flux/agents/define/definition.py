"""AgentDefinition: frozen, JSON-safe data that says what an agent is."""

from __future__ import annotations

import hashlib
import re
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema, field_validator, model_validator

from flux.agents.define.approval import Approvals
from flux.agents.define.memory import FIELD, LongTermMemory
from flux.agents.define.typed_plan import TypedPlan
from flux.agents.define.workflow_file import PATH_OR_FILE, WorkflowFile
from flux.engine.dispatching.pools import pool_of
from flux.errors import DefinitionInvalid, InvalidInput
from flux.suggest import nearest
from flux.tools.mcp.config import McpServer, server_names
from flux.tools.skill import Skill, check_skills
from flux.tools.tool_file import ToolFile

NAME = re.compile(r"^[A-Za-z][A-Za-z0-9_-]{0,63}$")
RESERVED = frozenset({"agent_chat", "sessions"})
MAX_BYTES = 8_000_000
MOST_STEPS = 100

ThinkingLevel = Literal["off", "minimal", "low", "medium", "high", "xhigh"]

#: How pydantic names the choice of False, and those of an entry of tools.
NO_COMPACTION = "literal[False]"
TEXT, MAPPING = "str", "dict[str,any]"
#: What a field must be, by the type of pydantic's fault.
WHOLE, YES_OR_NO = "a whole number", "true or false"
KINDS = {
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "string_type": "text; in YAML, numbers, dates, yes and no are text in quotes",
    "int_type": WHOLE,
    "int_parsing": WHOLE,
    "int_from_float": WHOLE,
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": YES_OR_NO,
    "bool_parsing": YES_OR_NO,
}


def model_name(text: str) -> str:
    """The name of a model as it is given.

    :raises ValueError: it is not "provider/model"
    """
    provider, slash, name = text.partition("/")
    if not (provider and slash and name):
        raise ValueError(f"{text!r} must be provider/model, for example anthropic/claude-sonnet-5-5")
    return text


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)  # it may hold a password


class Limit(_Frozen):
    """What may be spent: tokens, and US dollars."""

    max_tokens: int | None = Field(default=None, gt=0)
    max_cost_usd: float | None = Field(default=None, gt=0)


class Budget(_Frozen):
    """Limits per run, per session, and of all sessions of an agent together."""

    run: Limit = Limit()
    session: Limit = Limit()
    agent: Limit = Limit()


class CompactionConfig(_Frozen):
    """When and how history is summarised; in tokens. `model` None: the agent's own."""

    reserve_tokens: int | None = Field(default=None, gt=0)
    keep_recent_tokens: int = Field(default=8000, gt=0)
    model: str | None = None

    @field_validator("model")
    @classmethod
    def _valid_model(cls, model: str | None) -> str | None:
        return model if model is None else model_name(model)


class AgentDefinition(_Frozen):
    """An agent as data; keys of the YAML form map to these fields one to one."""

    name: str
    model: str
    system_prompt: str = ""
    description: str | None = None
    tools: tuple[str | dict[str, Any], ...] = ()
    mcp_servers: tuple[McpServer, ...] = ()
    tools_file: ToolFile | None = None
    skills: tuple[Skill, ...] = ()
    skills_dir: str | None = None
    agents: tuple[str, ...] = ()
    subagents: tuple[AgentDefinition, ...] = ()
    routes: tuple[str, ...] = ()
    stateful: bool = False
    max_tool_calls: int = Field(default=10, ge=1, le=1000)
    max_turns: int | None = Field(default=None, ge=1, le=10_000)
    max_concurrent_tools: int = Field(default=4, ge=1, le=64)
    max_tokens: int = Field(default=4096, ge=1, le=10_000_000)
    stream: bool = True
    approval_mode: Literal["default", "always", "never"] = "default"
    tool_approvals: dict[str, bool] = {}
    approvals: Approvals | None = None
    reasoning_effort: Literal["low", "medium", "high"] | None = None
    thinking_level: ThinkingLevel | None = None
    fallback_models: tuple[str, ...] = ()
    sandbox: Literal["auto", "local", "isolated", "virtual"] = "auto"
    cwd: str | None = None
    workflow_file: Annotated[WorkflowFile | None, WithJsonSchema(PATH_OR_FILE)] = None
    affinity: dict[str, str] = {}
    budget: Budget | None = None
    planning: bool = False
    max_plan_steps: int = Field(default=20, ge=1, le=MOST_STEPS)
    approve_plan: bool = False
    plan: TypedPlan | None = None
    prompt_cache_key: str | None = Field(default=None, max_length=64)
    compaction: CompactionConfig | Literal[False] = CompactionConfig()
    long_term_memory: LongTermMemory | None = None

    @field_validator("name")
    @classmethod
    def _valid_name(cls, name: str) -> str:
        if not NAME.match(name):
            raise ValueError("must be a letter followed by at most 63 letters, digits, '-' or '_'")
        if name in RESERVED:
            raise ValueError(f"{name!r} is a reserved name")
        return name

    @field_validator("model", "fallback_models")
    @classmethod
    def _valid_model(cls, value: Any) -> Any:
        for model in (value,) if isinstance(value, str) else value:
            model_name(model)
        return value

    @field_validator("mcp_servers")
    @classmethod
    def _valid_servers(cls, servers: tuple[McpServer, ...]) -> tuple[McpServer, ...]:
        server_names(servers)
        return servers

    @field_validator("skills")
    @classmethod
    def _possible_skills(cls, skills: tuple[Skill, ...]) -> tuple[Skill, ...]:
        check_skills(skills)
        return skills

    @field_validator("skills_dir")
    @classmethod
    def _place_on_workers(cls, directory: str | None) -> str | None:
        if directory is not None and not (directory.startswith("/") and directory.isprintable()):
            raise ValueError("must be an absolute path: of a directory on the workers, where it is read")
        return directory

    @field_validator("affinity")
    @classmethod
    def _valid_affinity(cls, labels: dict[str, str]) -> dict[str, str]:
        try:
            pool_of(labels)
        except InvalidInput as error:
            raise ValueError(str(error)) from error
        return labels

    @field_validator("agents", "subagents", "routes")
    @classmethod
    def _named_once(cls, value: Any) -> Any:
        names = [one if isinstance(one, str) else one.name for one in value]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice!r} is given twice")
        return value

    @model_validator(mode="after")
    def _one_reasoning_field(self) -> AgentDefinition:
        if self.reasoning_effort and self.thinking_level:
            raise ValueError("give reasoning_effort or thinking_level, not both")
        return self

    @model_validator(mode="after")
    def _plans_to_approve(self) -> AgentDefinition:
        if self.approve_plan and not self.planning:
            raise ValueError("approve_plan needs planning: true")
        return self

    @property
    def reasoning(self) -> ThinkingLevel | None:
        """The one internal form of both reasoning fields."""
        return self.thinking_level or self.reasoning_effort

    @cached_property
    def digest(self) -> str:
        """The identity of this definition's content."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:32]

    def to_json(self) -> str:
        """The stored form: only what was given."""
        return self.model_dump_json(exclude_unset=True)

    @classmethod
    def from_json(cls, text: str) -> AgentDefinition:
        """The definition of its stored form.

        :raises DefinitionInvalid: another version of Flux wrote it, and this one cannot read it
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise DefinitionInvalid(faults_of(error)) from error


def define(fields: Any) -> AgentDefinition:
    """The definition of a mapping of fields.

    :raises DefinitionInvalid: a field is unknown, missing or wrong; every fault is named
    """
    if not isinstance(fields, dict):
        raise DefinitionInvalid(f"an agent definition is a mapping of fields, not {type(fields).__name__}")
    try:
        return AgentDefinition.model_validate(fields)
    except ValidationError as error:
        raise DefinitionInvalid(faults_of(error)) from None


#: What fields that are mappings hold, by their place.
PARTS: dict[str, type[BaseModel]] = {
    "budget": Budget,
    **{f"budget.{name}": Limit for name in Budget.model_fields},
    "compaction": CompactionConfig,
    "mcp_servers": McpServer,
    FIELD: LongTermMemory,
}


def faults_of(error: ValidationError) -> str:
    """What is wrong with fields, in one line."""
    faults = error.errors(include_url=False)
    return "; ".join(_fault(fault) for fault in faults if not {NO_COMPACTION, MAPPING} & {*fault["loc"][-1:]})


def _fields_beside(place: tuple[int | str, ...]) -> list[str]:
    """The fields that could have stood there; none where that is not known."""
    *above, _ = (part for part in place if isinstance(part, str) and part != CompactionConfig.__name__)
    model = PARTS.get(".".join(above), _Frozen) if above else AgentDefinition
    return list(model.model_fields)


def _fault(fault: Any) -> str:
    # Of what may be False or fields, pydantic names the choice too.
    where = ".".join(str(part) for part in fault["loc"] if part not in (CompactionConfig.__name__, TEXT))
    if fault["type"] == "extra_forbidden":
        valid = _fields_beside(fault["loc"])
        like = nearest(str(fault["loc"][-1]), valid)
        hint = f"; did you mean {like!r}?" if like else f"; valid: {', '.join(valid)}" if len(fault["loc"]) > 1 else ""
        return f"unknown field {where!r}" + (hint if valid else "")
    if fault["type"] == "missing":
        return f"missing field {where!r}"
    if fault["type"] == "model_type":
        return f"{where}: must be a mapping of fields" + (", or false" if where == "compaction" else "")
    if fault["loc"][-1:] == (TEXT,):
        message = "must be a name, or a mapping"
    elif fault["type"] in KINDS:
        message = f"must be {KINDS[fault['type']]}"
    else:
        message = str(fault["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    return f"{where}: {message}" if where else message
