"""Answers in a format: a Pydantic model as the schema a model gets, and its answer as an instance."""

from __future__ import annotations

import json
import re
from typing import Any, TypeVar

from pydantic import BaseModel, PydanticUserError, ValidationError

from flux.errors import InvalidInput, OutputInvalid
from flux.models.base import OutputSchema
from flux.models.repair import arguments

T = TypeVar("T", bound=BaseModel)

MAX_MESSAGE = 2_000
"""Characters a model is told at most about a wrong answer."""

_MAX_PROBLEM = 300
_MAX_SHOWN = 60
_ROOM = 40
_FENCED = re.compile(r"```\w*\s*(.*)```", re.DOTALL)
_DEFS = "#/$defs/"


def output_schema(type_: type[BaseModel]) -> OutputSchema:
    """The format a Pydantic model describes.

    :raises InvalidInput: it is not an object, or has a field without a JSON Schema
    """
    given: Any = type_
    if not (isinstance(given, type) and issubclass(given, BaseModel)):
        raise InvalidInput(f"response_format: must be a class of Pydantic models, not {repr(given)[:60]}")
    try:
        schema = type_.model_json_schema()
    except PydanticUserError as error:
        raise InvalidInput(f"{type_.__name__} cannot be the format of an answer: {_line(error.message)}") from error
    if (root := schema.pop("$ref", "")).startswith(_DEFS):  # a type that holds itself
        schema = {**schema["$defs"][root.removeprefix(_DEFS)], **schema}
    if schema.get("type") != "object":
        raise InvalidInput(f"{type_.__name__} cannot be the format of an answer: it must be a model with fields")
    return OutputSchema(type_.__name__, schema, schema.get("description", ""))


def parse_output(type_: type[T], text: str) -> T:
    """The instance in the text of an answer; a code fence and small slips of JSON are let through.

    :raises OutputInvalid: it does not fit; the message tells the model what to mend
    """
    text = _bare(text)
    if not text:
        raise OutputInvalid(f"The answer is empty: it must be a JSON object that fits {type_.__name__}.")
    try:
        return type_.model_validate_json(text.encode(errors="replace"))
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False)
    try:
        if problems[0]["type"] == "json_invalid" and (repaired := arguments(text))[1] is None:
            return type_.model_validate_json(json.dumps(repaired[0]))
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False)
    raise OutputInvalid(_message(type_.__name__, [_problem(found) for found in problems]))


def _bare(text: str) -> str:
    """The text without a code fence and what stands around it."""
    text = text.strip()
    fenced = None if text.startswith("{") else _FENCED.search(text)
    return fenced[1].strip() if fenced else text


def _message(name: str, problems: list[str]) -> str:
    """The problems in one line, as many as there is room for."""
    said = f"The answer does not fit {name[:_MAX_SHOWN]}: {problems[0]}"
    for number, problem in enumerate(problems[1:], 1):
        if len(said) + len(problem) > MAX_MESSAGE - _ROOM:
            return f"{said}; and {len(problems) - number} more"
        said = f"{said}; {problem}"
    return said


def _problem(found: Any) -> str:
    """One error as `items.0.price: Input should be a valid number, got "abc"`."""
    place = ".".join(str(step) for step in found["loc"])
    return _line(f"{place}: {found['msg']}{_got(found)}" if place else found["msg"])


def _got(found: Any) -> str:
    """The value that is wrong, where it is small and has been given."""
    value: Any = found["input"]
    if not isinstance(value, str | int | float | None):
        return ""
    if isinstance(value, str) and len(value) > _MAX_SHOWN:
        value = value[:_MAX_SHOWN] + "…"
    return f", got {json.dumps(value, ensure_ascii=False)}"


def _line(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _MAX_PROBLEM else text[: _MAX_PROBLEM - 1] + "…"
