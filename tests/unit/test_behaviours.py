"""tests/behaviours.toml and the tests name each other; read from the source, whichever tests are selected."""

import ast
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


def named(text: str) -> Iterator[str]:
    """Yield the ids in each `pytest.mark.behaviour(...)` of a module."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("mark.behaviour"):
            yield from (ast.literal_eval(argument) for argument in node.args)


def mistakes(listed: list[str], proved: Iterable[str]) -> list[str]:
    proved = set(proved)
    twice = [f"listed twice: {id_}" for id_, count in Counter(listed).items() if count > 1]
    untested = [f"no test: {id_}" for id_ in sorted(set(listed) - proved)]
    unknown = [f"not in behaviours.toml: {id_}" for id_ in sorted(proved - set(listed))]
    return twice + untested + unknown


@pytest.mark.behaviour("house:behaviours:tied-to-tests")
def test_the_list_and_the_tests_agree() -> None:
    rows = tomllib.loads((TESTS / "behaviours.toml").read_text())["behaviour"]
    proved = {id_ for file in TESTS.rglob("test_*.py") for id_ in named(file.read_text())}
    assert mistakes([row["id"] for row in rows], proved) == []
    assert all(set(row) == {"id", "says", "source"} for row in rows)


@pytest.mark.behaviour("house:behaviours:tied-to-tests")
def test_each_kind_of_disagreement_is_found() -> None:
    module = "@pytest.mark.behaviour('a:b:c', 'x:y:z')\ndef test_it(): ..."
    assert mistakes(["a:b:c", "a:b:c", "d:e:f"], named(module)) == [
        "listed twice: a:b:c",
        "no test: d:e:f",
        "not in behaviours.toml: x:y:z",
    ]
