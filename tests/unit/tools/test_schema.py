from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from flux.errors import DefinitionInvalid
from flux.tools.base import ToolContext
from flux.tools.schema import Checked, schema_of, signature_of, validate

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "count": {"type": "integer"},
        "ratio": {"type": "number"},
        "deep": {"type": "boolean"},
        "tags": {"type": "array", "items": {"type": "integer"}},
        "more": {"$ref": "#/$defs/More"},
        "either": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
    },
    "required": ["name"],
    "$defs": {"More": {"type": "object", "properties": {"n": {"type": "integer"}}}},
}


@pytest.mark.parametrize(
    ("given_args", "repaired"),
    [
        ({"count": "5"}, {"count": 5}),
        ({"count": 5.0}, {"count": 5}),
        ({"ratio": "1.5"}, {"ratio": 1.5}),
        ({"deep": "True"}, {"deep": True}),
        ({"tags": "[1, 2]"}, {"tags": [1, 2]}),
        ({"tags": 7}, {"tags": [7]}),
        ({"tags": ["1", 2]}, {"tags": [1, 2]}),
        ({"more": '{"n": "3"}'}, {"more": {"n": 3}}),
        ({"either": "4"}, {"either": 4}),
        ({"either": None}, {"either": None}),
        ({"count": None}, {}),
    ],
)
@pytest.mark.behaviour("tools:arguments:repaired")
def test_what_has_one_meaning_is_repaired(given_args: dict[str, Any], repaired: dict[str, Any]) -> None:
    assert validate(SCHEMA, {"name": "x", **given_args}) == Checked({"name": "x", **repaired})


@pytest.mark.parametrize(
    ("args", "error"),
    [
        ({"name": 5}, '`name`: 5 is not of type "string"'),
        ({"name": None}, '`name`: null is not of type "string"'),
        ({}, '"name" is a required property'),
        ({"name": "x", "count": "5 apples"}, '`count`: "5 apples" is not of type "integer"'),
        ({"name": "x", "count": True}, '`count`: true is not of type "integer"'),
        ({"name": "x", "count": "1e999"}, '`count`: "1e999" is not of type "integer"'),
        ({"name": "x", "ratio": "NaN"}, '`ratio`: "NaN" is not of type "number"'),
        ({"name": "x", "more": {"n": "a"}}, '`more.n`: "a" is not of type "integer"'),
    ],
)
@pytest.mark.behaviour("tools:arguments:checked")
def test_what_cannot_be_repaired_is_named(args: dict[str, Any], error: str) -> None:
    assert validate(SCHEMA, args).errors == (error,)


@pytest.mark.behaviour("tools:arguments:unknown")
def test_an_unknown_argument_is_named_with_the_valid_ones() -> None:
    error = "unknown argument 'cuont'; did you mean 'count'? (valid: name, count)"
    properties = {"name": {"type": "string"}, "count": {"type": "integer"}}
    args = {"name": "x", "cuont": 1}
    assert validate({"type": "object", "properties": properties}, args).errors == (error,)
    closed = {"type": "object", "properties": properties, "additionalProperties": False}
    assert validate(closed, args).errors == (error,)
    assert validate({"type": "object", "properties": properties, "additionalProperties": True}, args).errors == ()
    assert validate({"type": "object"}, args).errors == ()


def test_the_given_arguments_are_not_changed() -> None:
    args = {"name": "x", "more": {"n": "1"}, "tags": ["1"]}
    validate(SCHEMA, args)
    assert args == {"name": "x", "more": {"n": "1"}, "tags": ["1"]}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "bogus"},
        {"properties": 5},
        {"$ref": "#/nowhere"},
        {"properties": {"a": {"$ref": "http://127.0.0.1:9/schema"}}},
    ],
)
@pytest.mark.behaviour("tools:arguments:bad-schema")
def test_a_schema_that_cannot_be_used_is_an_error_and_nothing_is_fetched(schema: dict[str, Any]) -> None:
    (error,) = validate(schema, {"a": 1}).errors
    assert error.startswith("the tool's own schema cannot be used: ")


@pytest.mark.parametrize(
    "schema", [{"anyOf": [{"$ref": "#"}]}, {"properties": {"a": {"$ref": "#/properties/a"}}}, {"$ref": "#"}]
)
def test_a_schema_that_turns_in_a_circle_ends(schema: dict[str, Any]) -> None:
    assert validate(schema, {"a": "1"}).args == {"a": "1"}


WORDS = st.text('an1.e-[]{}": ', max_size=6)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["name", "count", "tags", "more", "either", "other"]), JSON))
def test_repaired_arguments_stay_as_they_are(args: dict[str, Any]) -> None:
    once = validate(SCHEMA, args)
    assert validate(SCHEMA, once.args) == once


class Point(BaseModel):
    x: int


async def example(
    context: ToolContext,
    json: str,
    point: Point,
    _hidden: Annotated[int, Field(ge=1)] = 3,
    kind: Literal["a", "b"] = "a",
    many: list[str] | None = None,
) -> None:
    """Does it.

    At length.

    Args:
        json: What to do,
            in JSON.
        point (Point): Where.

    Returns:
        Nothing.
    """


@pytest.mark.behaviour("tools:functions:schema")
def test_a_function_becomes_a_schema() -> None:
    signature = signature_of(example)
    assert signature.description == "Does it.\n\nAt length."
    assert signature.context == "context"
    assert signature.parameters == {
        "type": "object",
        "properties": {
            "json": {"type": "string", "description": "What to do, in JSON."},
            "point": {"$ref": "#/$defs/Point", "description": "Where."},
            "_hidden": {"type": "integer", "minimum": 1, "default": 3},
            "kind": {"type": "string", "enum": ["a", "b"], "default": "a"},
            "many": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["json", "point"],
        "additionalProperties": False,
        "$defs": {"Point": {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}},
    }
    bound = {"json": "{}", "point": Point(x=1), "_hidden": 3, "kind": "a", "many": None}
    assert signature.bind({"json": "{}", "point": {"x": 1}}) == bound


def test_sphinx_docstrings_are_read_too() -> None:
    def search(query: str, size: int = 1) -> None:
        """Search.

        :param query: what to find
        :param int size: how much
        :returns: nothing
        """

    properties = schema_of(search)["properties"]
    assert [properties[name]["description"] for name in properties] == ["what to find", "how much"]


def test_functions_that_cannot_be_tools_are_refused() -> None:
    def many(*words: str) -> None: ...
    def missing(thing: "Missing") -> None: ...  # type: ignore[name-defined]  # noqa: F821

    for function, reason in ((many, r"cannot take \*words"), (missing, "cannot be read")):
        with pytest.raises(DefinitionInvalid, match=reason):
            schema_of(function)
