"""Arguments that can be read are read; those that cannot are declared invalid, never guessed."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux.models.repair import arguments, complete

pytestmark = pytest.mark.behaviour("models:tools:repair")


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (None, {}),
        ("", {}),
        ("  \n", {}),
        ({"a": 1}, {"a": 1}),
        ('{"a": 1}', {"a": 1}),
        ('{"a": [1, 2,], "b": {"c": 1,},}', {"a": [1, 2], "b": {"c": 1}}),
        ("{'a': 'it\\'s', 'b': \"x\"}", {"a": "it's", "b": "x"}),
        ("{'a': True, 'b': None, \"c\": false}", {"a": True, "b": None, "c": False}),
        ('```json\n{"a": 1}\n```', {"a": 1}),
        ('```\n{"a": 1}```', {"a": 1}),
        ('{"code": "line one\nline two\t."}', {"code": "line one\nline two\t."}),
        ("{'code': 'line one\nline two'}", {"code": "line one\nline two"}),
        ('"{\\"a\\": 1}"', {"a": 1}),
        ('{"text": "True, None, \'x\',}"}', {"text": "True, None, 'x',}"}),
        ({"INVALID_JSON": "{'a': 1}"}, {"a": 1}),
    ],
)
def test_what_can_be_repaired_is(raw: Any, expected: dict[str, Any]) -> None:
    assert arguments(raw) == (expected, None)


@pytest.mark.parametrize(
    "raw",
    [
        '{"a": "cut o',
        '{"a": 1',
        "[1, 2]",
        "42",
        "plain words",
        '{"a": NaN}',
        "{'a': [1,",
        '{"a": 1} {"b": 2}',
    ],
)
def test_what_cannot_be_repaired_is_invalid(raw: str) -> None:
    assert arguments(raw) == ({}, raw)
    assert arguments({"INVALID_JSON": raw}) == ({}, raw)


@pytest.mark.parametrize(
    ("raw", "whole"),
    [('{"a": 1}', True), ({}, True), ("{}", True), ("", False), (None, False), ('{"a"', False)],
)
def test_only_a_whole_object_is_complete(raw: Any, whole: bool) -> None:
    assert complete(raw) is whole


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(st.text(), values, max_size=4).filter(lambda found: set(found) != {"INVALID_JSON"})


@given(objects)
def test_json_and_python_literals_come_through_unchanged(value: dict[str, Any]) -> None:
    assert arguments(json.dumps(value)) == (value, None)
    assert arguments(json.dumps(value, ensure_ascii=False)) == (value, None)
    assert arguments(repr(value)) == (value, None)
