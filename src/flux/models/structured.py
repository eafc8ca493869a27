"""Answers in a format: what asks a model for one, and what comes back as the text it stands for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, Literal

from pydantic_ai.messages import InstructionPart, ModelResponse, TextPart, ThinkingPart, ToolCallPart
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.output import OutputObjectDefinition
from pydantic_ai.profiles import JsonSchemaTransformer, ModelProfile, merge_profile
from pydantic_ai.tools import ToolDefinition

from flux.models.base import OutputSchema, ToolSchema
from flux.models.convert import TAGGED
from flux.models.repair import arguments, complete

OutputMode = Literal["native", "tool", "auto"]
"""The provider's own means, a tool that has to be called, or what pydantic-ai takes for the better one."""

_TOOL = "final_result"
_LONGEST_DESCRIPTION = 900
_NO_NAME = re.compile(r"[^A-Za-z0-9_-]")
_LONGEST_NAME = 64
_TYPED = ("type", "$ref", "anyOf", "oneOf", "enum", "const")
_NEVER_STRICT = ("prefixItems", "patternProperties", "allOf", "not", "if")


def tool_name(tools: Sequence[ToolSchema]) -> str:
    """The name of the output tool: none of these has it."""
    taken = {tool.name for tool in tools}
    name = _TOOL
    while name in taken:
        name += "_"
    return name


def with_output(
    parameters: ModelRequestParameters, output: OutputSchema, mode: OutputMode, tools: Sequence[ToolSchema]
) -> ModelRequestParameters:
    """The parameters of a call that is to answer in this format; `tools` are those offered beside it."""
    name = tool_name(tools)
    instructions = parameters.instruction_parts
    if mode == "tool":  # not every server can force a call, and not every one takes a second system message
        said = [*(part.content for part in instructions or []), f"Give your final answer by calling {name}."]
        instructions = [InstructionPart(content="\n\n".join(said))]
    object_ = OutputObjectDefinition(
        json_schema=output.schema,
        name=_NO_NAME.sub("_", output.name)[:_LONGEST_NAME],
        description=output.description or None,
        strict=closed(output.schema) or None,
    )
    description = f"Gives the final answer, once. {output.description[:_LONGEST_DESCRIPTION]}".rstrip()
    tool = ToolDefinition(name=name, description=description, parameters_json_schema=output.schema, kind="output")
    return replace(
        parameters,
        instruction_parts=instructions,
        output_mode=mode,
        output_object=object_,
        output_tools=[tool],
        allow_text_output=mode != "tool",
    )


def closed(schema: Any) -> bool:
    """Whether every value of this schema can be written under strict rules: no free keys, no value of any type."""
    if not isinstance(schema, dict) or any(word in schema for word in _NEVER_STRICT):
        return False
    if not any(word in schema for word in _TYPED):
        return False
    if schema.get("type") == "object" and ("properties" not in schema or schema.get("additionalProperties")):
        return False
    if schema.get("type") == "array" and "items" not in schema:
        return False
    return all(closed(inner) for inner in _inner(schema))


def _inner(schema: dict[str, Any]) -> Iterator[Any]:
    """The schemas inside a schema."""
    for word in ("properties", "$defs"):
        yield from schema.get(word, {}).values()
    for word in ("anyOf", "oneOf"):
        yield from schema.get(word, ())
    if "items" in schema:
        yield schema["items"]


def rooted(profile: ModelProfile) -> ModelProfile:
    """The profile with schemas whose root is an object.

    Where pydantic-ai puts definitions in place, it makes a reference of the root of a recursive schema; as the
    parameters of a tool most servers refuse or misread that.
    """
    kind = profile.get("json_schema_transformer")
    return merge_profile(profile, ModelProfile(json_schema_transformer=_rooted(kind))) if kind else profile


@cache
def _rooted(kind: type[JsonSchemaTransformer]) -> type[JsonSchemaTransformer]:
    def walk(self: JsonSchemaTransformer) -> dict[str, Any]:
        schema = kind.walk(self)
        definitions = dict(schema.get("$defs", {}))
        if schema.keys() != {"$defs", "$ref"} or "$ref" in self.schema:
            return schema
        return {**definitions.pop(schema["$ref"].removeprefix("#/$defs/")), "$defs": definitions}

    return type(kind.__name__, (kind,), {"walk": walk})


def as_text(response: ModelResponse, name: str) -> ModelResponse:
    """The answer with the object as its only text, where `name` is the output tool.

    Calls of other tools come first: the object that stands beside them was written without their results.
    """
    calls = [part for part in response.parts if isinstance(part, ToolCallPart)]
    given = [call for call in calls if call.tool_name == name]
    if given and len(given) < len(calls):
        return replace(response, parts=[part for part in response.parts if part not in given])
    if given:
        cut = response.finish_reason == "length"
        return replace(response, parts=[*_unsigned(response), TextPart(_object(given[0], cut=cut))])
    return response if calls else _last_object(response)


def _object(call: ToolCallPart, *, cut: bool) -> str:
    """The arguments as JSON; as they were written where no object can be made out."""
    if cut and not call.args:
        return ""
    args, invalid = arguments(call.args)
    return json.dumps(args, ensure_ascii=False) if invalid is None else invalid


def _unsigned(response: ModelResponse) -> Iterator[ThinkingPart]:
    """The reasoning, to be read but not sent back: providers check that it stands before its call."""
    for part in response.parts:
        if isinstance(part, ThinkingPart) and part.content:
            yield ThinkingPart(part.content, id=TAGGED)


def _last_object(response: ModelResponse) -> ModelResponse:
    """The answer without what was said before the object, where that is a text of its own."""
    texts = [part for part in response.parts if isinstance(part, TextPart) and part.content]
    if len(texts) < 2 or complete("".join(text.content for text in texts)) or not complete(texts[-1].content):
        return response
    return replace(response, parts=[part for part in response.parts if part not in texts[:-1]])
