"""`define_plan`: a Pydantic model as a kind of plan, whose actions are bound to tools."""

from __future__ import annotations

import re
import typing
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
from msgspec import Struct
from pydantic import BaseModel, Field, PydanticUserError, create_model
from pydantic.json_schema import GenerateJsonSchema

from flux.agents.define.tool import ToolDefinition
from flux.agents.plans.checks import RESULT_OF
from flux.errors import DefinitionInvalid
from flux.tools.schema import schema_problem

__all__ = ["PlanSpec", "TaggedUnion", "define_plan"]

NAME = re.compile(r"^[A-Za-z][A-Za-z0-9_-]{0,63}$")
#: What every action has besides its own fields.
COMMON = ("type", "id", "depends_on")

ToolLike = ToolDefinition | Callable[..., Any] | str


class PlanSpec(Struct, frozen=True):
    """A kind of plan. `model` is the schema with ids and dependencies worked in; `define_plan` makes it.

    `actions` are the tools of its actions by the actions' `type`, `lists` its fields that hold actions.
    """

    name: str
    schema: type[BaseModel]
    model: type[BaseModel]
    actions: Mapping[str, ToolLike]
    lists: tuple[str, ...]
    json_schema: dict[str, Any]
    description: str = ""

    @property
    def tools(self) -> tuple[ToolLike, ...]:
        """What the actions are bound to."""
        return tuple(self.actions.values())

    def fields_of(self, type: str) -> tuple[str, ...]:
        """The fields of an action by its type, but for those that every action has."""
        every = (one.get("properties", {}) for one in self.json_schema.get("$defs", {}).values())
        found: list[dict[str, Any]] = [one for one in every if one.get("type", {}).get("const") == type]
        return tuple(name for one in found for name in one if name not in COMMON)


if TYPE_CHECKING:
    from typing import Union as TaggedUnion
else:

    class TaggedUnion:
        """`TaggedUnion[A, B]`: one of these kinds of actions, told apart by their `type`; the item of a list."""

        def __class_getitem__(cls, members: Any) -> Any:
            found = members if isinstance(members, tuple) else (members,)
            return _union(found)


class _Action:
    """Marks the item of a list as an action: the classes as they were written."""

    def __init__(self, members: tuple[type[BaseModel], ...]) -> None:
        self.members = members


def define_plan(
    name: Any,
    *,
    schema: Any,
    actions: Mapping[Any, ToolLike],
    description: str = "",
) -> PlanSpec:
    """A kind of plan: `schema` holds lists of actions, `actions` binds each class of action to a tool.

    :raises DefinitionInvalid: the schema has no actions, or an action has no tool
    """
    what = f"plan {name}"
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise DefinitionInvalid(f"plan: name: {name!r:.80} must be a letter, then at most 63 letters, digits, - or _")
    if not isinstance(schema, type) or not issubclass(schema, BaseModel):
        raise DefinitionInvalid(f"{what}: schema must be a Pydantic model", field="schema")
    _check_tools(what, actions)
    lists = dict(_lists(what, schema, actions))
    if not lists:
        raise DefinitionInvalid(f"{what}: schema has no list of actions, such as list[TaggedUnion[A, B]]")
    found = {member for members in lists.values() for member in members}
    _check_bound(what, found, actions)
    items: dict[str, Any] = {field: _union(members) for field, members in lists.items()}
    overrides: dict[str, Any] = {field: (list[item], _field(schema, field)) for field, item in items.items()}  # type: ignore[valid-type]
    model = create_model(schema.__name__, __base__=schema, **overrides)
    tools = {_tag(member): actions[member] for member in sorted(found, key=_tag)}
    shown = _json_schema(what, model, found)
    return PlanSpec(name, schema, model, MappingProxyType(tools), tuple(lists), shown, description)


def _check_tools(what: str, actions: Any) -> None:
    if not isinstance(actions, Mapping):
        raise DefinitionInvalid(f"{what}: actions must be a mapping of action and tool", field="actions")
    for action, tool in actions.items():
        if isinstance(tool, type) or not (isinstance(tool, ToolDefinition | str) or callable(tool)):
            named = getattr(action, "__name__", action)
            raise DefinitionInvalid(f"{what}: actions: {named}: {tool!r:.80} is no tool, function or name of one")


def _lists(
    what: str, schema: type[BaseModel], actions: Mapping[type[BaseModel], Any]
) -> Iterator[tuple[str, tuple[type[BaseModel], ...]]]:
    for field, info in schema.model_fields.items():
        members = _members(info.annotation)
        if not members or not (_marked(info.annotation) or set(members) & set(actions)):
            continue
        tags = [_tag(member) for member in members]
        twice = next((tag for tag in tags if tags.count(tag) > 1), None)
        if twice is not None:
            raise DefinitionInvalid(f"{what}: {field}: two actions have the type {twice!r}", field="schema")
        yield field, members


def _members(annotation: Any) -> tuple[type[BaseModel], ...]:
    """The classes of the items of a list; none where it is no list of models."""
    if get_origin(annotation) not in (list, tuple):
        return ()
    item = get_args(annotation)[0]
    marks = [one for one in getattr(item, "__metadata__", ()) if isinstance(one, _Action)]
    if marks:
        return marks[0].members
    plain = get_args(item)[0] if get_origin(item) is Annotated else item
    choices = get_args(plain) if get_origin(plain) in (Union, getattr(typing, "UnionType", Union)) else (plain,)
    models = tuple(one for one in choices if isinstance(one, type) and issubclass(one, BaseModel))
    return models if len(models) == len(choices) else ()


def _marked(annotation: Any) -> bool:
    item = get_args(annotation)[0]
    return any(isinstance(one, _Action) for one in getattr(item, "__metadata__", ()))


def _check_bound(what: str, found: set[type[BaseModel]], actions: Mapping[type[BaseModel], Any]) -> None:
    lacking = sorted(one.__name__ for one in found - set(actions))
    if lacking:
        raise DefinitionInvalid(f"{what}: no tool for the actions {', '.join(lacking)}; name one in actions={{…}}")
    strange = sorted(getattr(one, "__name__", repr(one)) for one in set(actions) - found)
    if strange:
        raise DefinitionInvalid(f"{what}: the schema has no actions {', '.join(strange)}", field="actions")


def _union(members: tuple[Any, ...]) -> Any:
    for one in members:
        if not isinstance(one, type) or not issubclass(one, BaseModel):
            raise DefinitionInvalid(f"TaggedUnion: {one!r:.80} is no Pydantic model")
    made = tuple(_with_common(member) for member in members)
    if len(made) == 1:
        return Annotated[made[0], _Action(members)]
    return Annotated[Union[made], Field(discriminator="type"), _Action(members)]  # noqa: UP007 - of a tuple


def _with_common(member: type[BaseModel]) -> type[BaseModel]:
    """The class with the fields that every action has."""
    common: dict[str, Any] = {
        "type": (Literal[_tag(member)], ...),
        "id": (str, Field(min_length=1, max_length=100, description="A short name, unique in the plan.")),
        "depends_on": (list[str], Field(default=[], description="Ids of actions that must be done before.")),
    }
    for name, kind in (("id", str), ("depends_on", list[str])):
        if name in member.model_fields and member.model_fields[name].annotation != kind:
            raise DefinitionInvalid(f"action {member.__name__}: {name} is a field of every action; rename your own")
    missing = {name: made for name, made in common.items() if name not in member.model_fields or name == "type"}
    return create_model(member.__name__, __base__=member, **missing)


def _tag(member: type[BaseModel]) -> str:
    """The `type` of an action: as its class says, else the name of the class."""
    info = member.model_fields.get("type")
    said = get_args(info.annotation) if info is not None and get_origin(info.annotation) is Literal else ()
    return str(said[0]) if said else member.__name__


def _field(schema: type[BaseModel], name: str) -> Any:
    info = schema.model_fields[name]
    said: dict[str, Any] = {"description": info.description}
    if not info.is_required():
        said |= {"default_factory": info.default_factory} if info.default_factory else {"default": info.default}
    return Field(**said)


class _Schema(GenerateJsonSchema):
    """Names each definition as its class is called."""


def _json_schema(what: str, model: type[BaseModel], actions: set[type[BaseModel]]) -> dict[str, Any]:
    """The schema as the model is shown it: a field of an action may also be the result of another one."""
    try:
        schema: dict[str, Any] = model.model_json_schema(schema_generator=_Schema)
    except PydanticUserError as error:
        raise DefinitionInvalid(f"{what}: the schema cannot be shown to a model: {error.message}") from error
    tags = {_tag(one) for one in actions}
    for definition in schema.get("$defs", {}).values():
        properties = definition.get("properties", {})
        if properties.get("type", {}).get("const") in tags:
            definition["properties"] = {
                key: value if key in COMMON else {"anyOf": [value, {"$ref": "#/$defs/ResultOf"}]}
                for key, value in properties.items()
            }
    schema.setdefault("$defs", {})["ResultOf"] = RESULT_OF
    problem = schema_problem(schema)
    if problem:
        raise DefinitionInvalid(f"{what}: {problem}", field="schema")
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(schema))
    return found
