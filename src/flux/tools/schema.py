"""JSON Schema of tool arguments: check and repair what a model sent, derive a schema from a function."""

from __future__ import annotations

import inspect
import json
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import lru_cache
from typing import Any, NoReturn, get_type_hints

import jsonschema_rs
import msgspec
from msgspec import Struct
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.fields import FieldInfo

from flux.errors import DefinitionInvalid
from flux.suggest import unknown
from flux.tools.base import ToolContext

Schema = Mapping[str, Any]

_COMPOSED = ("additionalProperties", "patternProperties", "unevaluatedProperties", "allOf", "anyOf", "oneOf",
             "$ref", "if")  # fmt: skip
_MESSAGE = 300
_UNUSABLE = "the schema cannot be used"
_MISSING = object()


class Checked(Struct, frozen=True):
    """Arguments after the check, repaired where that was possible; usable when `errors` is empty."""

    args: dict[str, Any]
    errors: tuple[str, ...] = ()


def validate(schema: Schema, args: Mapping[str, Any]) -> Checked:
    """Check arguments against a tool's JSON Schema and repair what has one clear meaning.

    Repaired: text that is a number, boolean, or JSON object or array where one is wanted; a single
    value where an array is wanted; null for an optional argument that takes none. An argument the
    schema does not name is an error, unless the schema says more than `properties` about it.
    References to other documents are never fetched.
    """
    try:
        validator = _validator(_encoded(schema))
        repaired = _object(schema, dict(args), schema)
        found = [_sentence(error) for error in validator.iter_errors(repaired)]
    except jsonschema_rs.ValidationError as error:
        return Checked(dict(args), (f"the tool's own schema cannot be used: {_cut(error.message)}",))
    except RecursionError:
        return Checked(dict(args), ("the arguments, or the tool's own schema, are nested without end",))
    strangers = _strangers(schema, repaired)
    if strangers:
        found = [text for text in found if not text.startswith("Additional properties")]
    return Checked(repaired, (*strangers, *found))


def faults(schema: Schema, value: Any) -> tuple[str, ...]:
    """What is wrong with a JSON value by a schema, or with the schema itself; nothing is repaired."""
    try:
        return tuple(_sentence(error) for error in _validator(_encoded(schema)).iter_errors(value))
    except jsonschema_rs.ValidationError as error:
        return (f"{_UNUSABLE}: {_cut(error.message)}",)
    except RecursionError:
        return ("the value, or the schema, is nested without end",)


def schema_problem(schema: Schema) -> str | None:
    """Why a JSON Schema cannot be used; None when it can."""
    found = faults(schema, {})
    return next((fault for fault in found if fault.startswith(_UNUSABLE)), None)


def _strangers(schema: Schema, args: Mapping[str, Any]) -> list[str]:
    if "properties" not in schema or any(schema.get(word) not in (None, False) for word in _COMPOSED):
        return []
    valid = schema["properties"]
    named = ", ".join(valid) or "none"
    return [f"{unknown('argument', name, valid)} (valid: {named})" for name in args if name not in valid]


def _sentence(error: jsonschema_rs.ValidationError) -> str:
    where = ".".join(str(step) for step in error.instance_path)
    return f"`{where}`: {_cut(error.message)}" if where else _cut(error.message)


def _cut(message: str) -> str:
    half = _MESSAGE // 2
    return message if len(message) <= _MESSAGE else f"{message[:half]} ... {message[-half:]}"


def _encoded(schema: Schema) -> bytes:
    return msgspec.json.encode(schema)


@lru_cache(maxsize=512)
def _validator(encoded: bytes) -> Any:
    return jsonschema_rs.validator_for(msgspec.json.decode(encoded), retriever=_refuse)


def _refuse(uri: str) -> NoReturn:
    raise LookupError(f"{uri} is not part of the schema")


def _fits(schema: Any, value: Any, root: Schema) -> bool:
    """Whether a value is valid for a part of the schema `root`."""
    whole = {**schema, **{word: root[word] for word in ("$defs", "definitions") if word in root}}
    try:
        return bool(_validator(_encoded(whole)).is_valid(value))
    except jsonschema_rs.ValidationError:
        return False  # it refers to something outside itself: leave the value as it is


def _repair(schema: Any, value: Any, root: Schema) -> Any:
    """The value, changed to fit a part of the schema `root` where there is one clear way."""
    schema = _resolved(schema, root)
    if not isinstance(schema, dict):
        return value
    branches = schema.get("anyOf") or schema.get("oneOf")
    if branches:
        return _first_fit(branches, value, root)
    types = _types(schema)
    if types and not any(_is_type(value, name) for name in types):
        value = next((new for name in types if (new := _convert(value, name)) is not _MISSING), value)
    if isinstance(value, float) and types == ("integer",) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return _object(schema, value, root)
    if isinstance(value, list) and "items" in schema:
        return [_repair(schema["items"], item, root) for item in value]
    return value


def _object(schema: Schema, value: dict[str, Any], root: Schema) -> dict[str, Any]:
    properties, required = schema.get("properties", {}), schema.get("required", ())
    repaired = {}
    for name, item in value.items():
        part = properties.get(name)
        if part is None:
            repaired[name] = item
        elif item is not None or name in required or _fits(part, None, root):
            repaired[name] = _repair(part, item, root)
    return repaired


def _first_fit(branches: Iterable[Any], value: Any, root: Schema) -> Any:
    known = [branch for branch in branches if isinstance(branch, dict)]
    if any(_fits(branch, value, root) for branch in known):
        return value
    repaired = ((branch, _repair(branch, value, root)) for branch in known)
    return next((new for branch, new in repaired if _fits(branch, new, root)), value)


def _resolved(schema: Any, root: Schema) -> Any:
    """The schema a local reference names; anything else is returned as it is."""
    for _ in range(16):
        reference = schema.get("$ref") if isinstance(schema, dict) else None
        if not isinstance(reference, str) or not reference.startswith("#/"):
            return schema
        schema = root
        for step in reference[2:].split("/"):
            name = step.replace("~1", "/").replace("~0", "~")
            schema = schema.get(name) if isinstance(schema, dict) else None
    return schema


def _types(schema: Schema) -> tuple[str, ...]:
    found = schema.get("type", ())
    return (found,) if isinstance(found, str) else tuple(found)


def _is_type(value: Any, name: str) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    kinds: dict[str, Any] = {
        "string": str, "integer": int, "number": (int, float), "object": dict, "array": list,
        "null": type(None), "boolean": bool,
    }  # fmt: skip
    whole = name == "integer" and isinstance(value, float) and value.is_integer()
    return whole or isinstance(value, kinds.get(name, ()))


def _convert(value: Any, name: str) -> Any:
    """The value as the JSON type `name`, _MISSING when that is not clear."""
    if isinstance(value, str):
        word = value.strip()
        parsed = _parsed(word.lower() if name == "boolean" else word)
        if name != "null" and _is_type(parsed, name):
            return parsed
    return [value] if name == "array" and value is not None else _MISSING


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=lambda _: _MISSING, parse_float=_finite)
    except (ValueError, RecursionError):
        return _MISSING


def _finite(text: str) -> Any:
    number = float(text)
    return number if math.isfinite(number) else _MISSING


class Signature(Struct, frozen=True):
    """A function as a tool sees it: the schema of its arguments, and how to make them from JSON."""

    description: str
    parameters: dict[str, Any]
    bind: Callable[[dict[str, Any]], dict[str, Any]]
    context: str | None = None
    """The name of the parameter that takes the ToolContext."""


def schema_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The JSON Schema of a function's arguments, from its type hints, defaults and docstring."""
    return signature_of(function).parameters


def signature_of(function: Callable[..., Any], hidden: Collection[str] = ()) -> Signature:
    """What a function takes, but for `hidden` parameters, which somebody else fills.

    A function that knows more than its hints say has it as `tool_signature`. DefinitionInvalid when it has
    `*args`, `**kwargs` or unusable hints.
    """
    own = getattr(function, "tool_signature", None)
    if isinstance(own, Signature):
        return own
    name = getattr(function, "__name__", type(function).__name__)
    try:
        hints = get_type_hints(function, include_extras=True)
    except (NameError, TypeError) as error:
        raise DefinitionInvalid(f"the type hints of {name} cannot be read: {error}") from error
    description, notes = split_docstring(inspect.getdoc(function) or "")
    parameters = inspect.signature(function).parameters
    context = next((key for key in parameters if hints.get(key) is ToolContext), None)
    fields = {key: _field(name, one, hints, notes) for key, one in parameters.items() if key not in (context, *hidden)}
    model, schema = _model(name, fields)
    return Signature(description, schema, _binder(model, tuple(fields)), context)


def _field(
    function: str, parameter: inspect.Parameter, hints: Mapping[str, Any], notes: Mapping[str, str]
) -> tuple[Any, FieldInfo]:
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
        raise DefinitionInvalid(f"{function}: a tool cannot take {parameter}; give each argument a name")
    given: Any = ... if parameter.default is parameter.empty else parameter.default
    said: dict[str, Any] = {"description": notes[parameter.name]} if parameter.name in notes else {}
    field: FieldInfo = Field(given, alias=parameter.name, **said)
    return hints.get(parameter.name, Any), field


def _model(name: str, fields: Mapping[str, tuple[Any, FieldInfo]]) -> tuple[type[BaseModel], dict[str, Any]]:
    # The prefix keeps an argument called `json` or `_x` from meaning something to Pydantic.
    prefixed: dict[str, Any] = {f"arg_{key}": field for key, field in fields.items()}
    try:
        model = create_model(name, __config__=ConfigDict(extra="forbid"), **prefixed)
        schema = _plain(model.model_json_schema())
    except (TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise DefinitionInvalid(f"{name}: an argument has a type that JSON cannot carry: {reason}") from error
    schema["properties"] = {key: _optional(part) for key, part in schema.get("properties", {}).items()}
    return model, schema


def _optional(part: dict[str, Any]) -> dict[str, Any]:
    """An argument that may be null because it may be left out: shown as one that may be left out."""
    branches = [branch for branch in part.get("anyOf", ()) if branch != {"type": "null"}]
    if len(branches) != 1 or part.get("default", ...) is not None:
        return part
    return {**branches[0], **{key: item for key, item in part.items() if key not in ("anyOf", "default")}}


def _binder(model: type[BaseModel], names: tuple[str, ...]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def bind(args: dict[str, Any]) -> dict[str, Any]:
        try:
            made = model.model_validate(args)
        except ValidationError as error:
            found = ("`{}`: {}".format(".".join(map(str, e["loc"])), e["msg"]) for e in error.errors())
            raise ValueError("; ".join(found)) from error
        return {name: getattr(made, f"arg_{name}") for name in names}

    return bind


def _plain(schema: Any) -> Any:
    """The schema without the titles Pydantic adds, which tell a model nothing."""
    if isinstance(schema, list):
        return [_plain(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: {name: _plain(part) for name, part in item.items()} if key in ("properties", "$defs") else _plain(item)
        for key, item in schema.items()
        if key != "title"
    }


_SECTION = re.compile(r"^(args|arguments|parameters|params)\s*:\s*$", re.I)
_OTHER = re.compile(r"^(returns?|yields?|raises|examples?|notes?)\s*:\s*$|^:(returns?|rtype|raises?)\b", re.I)
_ENTRY = re.compile(r"^(\s*)\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)$")
_SPHINX = re.compile(r"^:param\s+(?:[^:]*\s)?(\w+)\s*:\s*(.*)$")


def split_docstring(doc: str) -> tuple[str, dict[str, str]]:
    """A docstring's description, and what its `Args:` section or `:param:` lines say of each argument."""
    description: list[str] = []
    notes: dict[str, list[str]] = {}
    current: list[str] | None = description
    indent: int | None = None
    for line in doc.splitlines():
        depth = len(line) - len(line.lstrip())
        sphinx, entry = _SPHINX.match(line.strip()), _ENTRY.match(line)
        if _SECTION.match(line):
            current, indent = [], -1
        elif _OTHER.match(line):
            current, indent = None, None
        elif sphinx:
            current = notes.setdefault(sphinx[1], [sphinx[2]])
        elif indent is not None and entry and depth and indent in (-1, depth):
            indent, current = depth, notes.setdefault(entry[2], [entry[3]])
        elif indent is not None and line and not depth:
            current, indent = description, None
            description.append(line)
        elif current is not None:
            current.append(line.strip() if current is not description else line)
    return "\n".join(description).strip(), {name: " ".join(text).strip() for name, text in notes.items()}
