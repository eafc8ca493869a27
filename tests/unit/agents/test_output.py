"""Pydantic models as formats of answers, and answers as their instances."""

from __future__ import annotations

import json
from datetime import date
from typing import Any, Generic, TypeVar

import pytest
from pydantic import BaseModel, ConfigDict, Field, RootModel, field_validator

from flux.agents.define.output import MAX_MESSAGE, output_schema, parse_output
from flux.errors import InvalidInput, OutputInvalid

T = TypeVar("T")


class Line(BaseModel):
    text: str
    price: float = Field(ge=0)


class Bill(BaseModel):
    """What was bought."""

    title: str
    lines: list[Line] = []
    day: date | None = None


class Node(BaseModel):
    value: int
    children: list[Node] = []


class Box(BaseModel, Generic[T]):
    content: T


class Odd(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    thing: object = Field(default_factory=object)
    call: Any = None

    @field_validator("call")
    @classmethod
    def _long(cls, value: Any) -> Any:
        raise ValueError("no " * 2_000)


class Callback(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    event: pytest.MonkeyPatch


def wrong(type_: type[BaseModel], text: str) -> str:
    with pytest.raises(OutputInvalid) as caught:
        parse_output(type_, text)
    assert len(str(caught.value)) <= MAX_MESSAGE
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.behaviour("agents:output:schema")
def test_a_schema_has_the_name_the_description_and_the_definitions_of_its_model() -> None:
    found = output_schema(Bill)
    assert (found.name, found.description) == ("Bill", "What was bought.")
    assert found.schema["required"] == ["title"]
    assert found.schema["$defs"]["Line"]["properties"]["price"]["minimum"] == 0


@pytest.mark.behaviour("agents:output:schema")
def test_the_root_of_a_type_that_holds_itself_is_an_object() -> None:
    schema = output_schema(Node).schema
    assert schema["type"] == "object"
    assert schema["properties"]["children"]["items"] == {"$ref": "#/$defs/Node"}
    assert schema["$defs"]["Node"]["properties"]["value"]["type"] == "integer"
    assert "$ref" not in schema


@pytest.mark.behaviour("agents:output:schema")
@pytest.mark.parametrize(
    ("type_", "reason"),
    [
        (RootModel[list[int]], "it must be a model with fields"),
        (RootModel[Bill | Node], "it must be a model with fields"),
        (Callback, "Cannot generate a JsonSchema"),
    ],
)
def test_what_is_no_object_is_refused(type_: type[BaseModel], reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        output_schema(type_)


@pytest.mark.behaviour("agents:output:parse")
@pytest.mark.parametrize(
    "text",
    [
        '{"title": "Lunch", "lines": [{"text": "soup", "price": 4.5}], "day": "2026-11-25"}',
        '```json\n{"title": "Lunch", "lines": [{"text": "soup", "price": 4.5}], "day": "2026-11-25"}\n```',
        'Here it is:\n```\n{"title": "Lunch", "lines": [{"text": "soup", "price": 4.5}], "day": "2026-11-25"}```\nBye.',
        "{'title': 'Lunch', 'lines': [{'text': 'soup', 'price': 4.5}], 'day': '2026-11-25',}",
    ],
    ids=["bare", "fenced", "with words around", "as Python writes it"],
)
def test_an_answer_becomes_an_instance(text: str) -> None:
    day = date(2026, 11, 25)
    assert parse_output(Bill, text) == Bill(title="Lunch", lines=[Line(text="soup", price=4.5)], day=day)


@pytest.mark.behaviour("agents:output:parse")
def test_a_fence_inside_a_string_is_part_of_it() -> None:
    assert parse_output(Box[str], '{"content": "```sh\\nls\\n```"}').content == "```sh\nls\n```"
    assert parse_output(Box[str], '```json\n{"content": "```sh\\nls\\n```"}\n```').content == "```sh\nls\n```"


@pytest.mark.behaviour("agents:output:parse")
def test_what_does_not_fit_is_told_by_place() -> None:
    said = wrong(Bill, '{"lines": [{"text": "soup", "price": "much"}, {"text": 3, "price": -1}]}')
    assert said == (
        "The answer does not fit Bill: title: Field required; "
        'lines.0.price: Input should be a valid number, unable to parse string as a number, got "much"; '
        "lines.1.text: Input should be a valid string, got 3; "
        "lines.1.price: Input should be greater than or equal to 0, got -1"
    )


@pytest.mark.behaviour("agents:output:parse")
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "The answer is empty"),
        ("```\n```", "The answer is empty"),
        ("I cannot do that.", "Invalid JSON"),
        ('{"title": "Lu', "Invalid JSON"),
        ("[1]", "Input should be an object"),
        ("[" * 100_000, "Invalid JSON"),
    ],
    ids=["empty", "an empty fence", "words", "cut off", "a list", "deep"],
)
def test_what_is_no_object_is_told(text: str, said: str) -> None:
    assert said in wrong(Bill, text)


@pytest.mark.behaviour("agents:output:parse")
def test_half_a_character_is_replaced() -> None:
    assert parse_output(Bill, '{"title": "\ud800"}').title == "?"


@pytest.mark.behaviour("agents:output:parse")
def test_the_message_stays_short() -> None:
    lines = [{"text": "x" * 500, "price": "y" * 500}] * 500
    assert wrong(Bill, json.dumps({"title": 1, "lines": lines})).endswith("more")
    assert len(wrong(Odd, '{"call": 1}')) < MAX_MESSAGE
