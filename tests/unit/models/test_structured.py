"""What asks for an answer in a format, and how its object is found in the answer."""

from typing import Any

import pytest
from pydantic_ai.messages import ModelResponse, ModelResponsePart, TextPart, ThinkingPart, ToolCallPart
from pydantic_ai.profiles import ModelProfile
from pydantic_ai.profiles.openai import OpenAIJsonSchemaTransformer

from flux.models.base import ToolSchema
from flux.models.convert import TAGGED
from flux.models.structured import as_text, closed, rooted, tool_name

LEAF = {"type": "object", "properties": {"n": {"type": "integer"}}}


def parts(*given: ModelResponsePart) -> list[ModelResponsePart]:
    return list(as_text(ModelResponse(list(given), finish_reason="tool_call"), "final_result").parts)


@pytest.mark.behaviour("models:output:schemas")
@pytest.mark.parametrize(
    "schema",
    [
        LEAF,
        {"type": "object", "properties": {}, "additionalProperties": False},
        {"type": "object", "properties": {"a": {"anyOf": [LEAF, {"type": "null"}]}}},
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/L"}}, "$defs": {"L": LEAF}},
        {"type": "object", "properties": {"a": {"type": "array", "items": {"enum": ["x"]}}}},
    ],
)
def test_a_schema_without_anything_free_is_closed(schema: dict[str, Any]) -> None:
    assert closed(schema)


@pytest.mark.behaviour("models:output:schemas")
@pytest.mark.parametrize(
    "inner",
    [
        {},
        True,
        {"type": "object"},
        {"type": "object", "properties": {}, "additionalProperties": {"type": "integer"}},
        {"type": "array"},
        {"type": "array", "prefixItems": [{"type": "integer"}], "items": False},
        {"anyOf": [{"type": "null"}, {"title": "Anything"}]},
        {"allOf": [LEAF]},
    ],
)
def test_a_schema_with_something_free_is_not(inner: Any) -> None:
    assert not closed({"type": "object", "properties": {"a": inner}})
    assert not closed({"type": "object", "properties": {"a": {"$ref": "#/$defs/I"}}, "$defs": {"I": inner}})


@pytest.mark.behaviour("models:output:tool")
def test_the_output_tool_has_a_name_no_other_has() -> None:
    assert tool_name(()) == "final_result"
    taken = [ToolSchema(name, "", {}) for name in ("final_result", "final_result_")]
    assert tool_name(taken) == "final_result__"


@pytest.mark.behaviour("models:output:tool")
def test_the_first_object_counts_and_stands_alone_but_for_reasoning() -> None:
    thinking = ThinkingPart("hm", signature="signed", provider_name="p")
    calls = [ToolCallPart("final_result", args) for args in ('{"n": 1}', {"n": 2})]
    assert parts(ThinkingPart("", signature="s"), thinking, TextPart("Here:"), *calls) == [
        ThinkingPart("hm", id=TAGGED),
        TextPart('{"n": 1}'),
    ]
    assert parts(calls[1]) == [TextPart('{"n": 2}')]


@pytest.mark.behaviour("models:output:tools-first")
def test_calls_of_other_tools_keep_what_was_said_beside_them() -> None:
    other = ToolCallPart("other", "{}")
    given = ToolCallPart("final_result", "{}")
    assert parts(TextPart("Wait."), given, other) == [TextPart("Wait."), other]
    assert parts(TextPart("{}"), other) == [TextPart("{}"), other]


@pytest.mark.behaviour("models:output:native")
@pytest.mark.parametrize(
    ("said", "left"),
    [
        (["Let me see.", '{"n": 1}'], ['{"n": 1}']),
        (['{"n": ', "1}"], ['{"n": ', "1}"]),
        (["Let me see.", "No."], ["Let me see.", "No."]),
        (['{"n": 1}'], ['{"n": 1}']),
        ([], []),
    ],
)
def test_an_object_that_is_a_text_of_its_own_is_the_answer(said: list[str], left: list[str]) -> None:
    assert parts(*map(TextPart, said)) == [TextPart(text) for text in left]


@pytest.mark.behaviour("models:output:schemas")
def test_the_root_of_a_recursive_schema_stays_an_object_where_definitions_are_put_in_place() -> None:
    class Inlining(OpenAIJsonSchemaTransformer):
        def __init__(self, schema: dict[str, Any], *, strict: bool | None = None) -> None:
            super().__init__(schema, strict=strict)
            self.prefer_inlined_defs = True

    node = {"type": "object", "title": "Node", "properties": {"next": {"$ref": "#/$defs/Node"}}}
    schema = {**node, "$defs": {"Node": node}}
    assert set(Inlining(schema).walk()) == {"$ref", "$defs"}
    kind = rooted(ModelProfile(json_schema_transformer=Inlining))["json_schema_transformer"]
    assert kind is not None
    walked = kind(schema).walk()
    assert walked["type"] == "object"
    assert list(walked["$defs"]) == ["Node"]
    assert kind(LEAF).walk() == Inlining(LEAF).walk()
    assert rooted(ModelProfile()) == {}
