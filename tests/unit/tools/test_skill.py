"""Whatever stands in a SKILL.md or a stored skill, it is a skill or one clear refusal."""

import contextlib
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flux.agents.define.definition import define
from flux.errors import DefinitionInvalid
from flux.tools.skill_files import Malformed, parse

PIECES = st.sampled_from(
    ["---\n", "name: x\n", "description: d\n", "- a\n", "&a ", "*a\n", "!!python/none ", "{", "[", "'", '"', "|\n",
     "? ", ": ", "\t", "\0", "\ufeff", "<<: ", "metadata:\n  a: 1\n", "\x85", "\u2028", "%YAML 9\n", "...\n", "x" * 300]
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ["name", "description", "instructions", "files", "metadata", "allowed_tools", "license", "other"]


@pytest.mark.behaviour("skills:files:any-text")
@given(st.lists(PIECES | st.text(max_size=10), max_size=12), st.booleans())
@example(["---\n", "[" * 1_000, "\n---\n"], True)
@example(["---\n", "a: " * 1_000, "\n---\n"], False)
@example(["---\n", "a: b\n" * 10_000, "\n---\n"], False)
@settings(deadline=None)  # what is nested deeply takes its time
def test_any_text_is_read_or_refused_in_one_line(pieces: list[str], strict: bool) -> None:
    assert "\n" not in outcome("".join(pieces), strict)


def outcome(text: str, strict: bool) -> str:
    try:
        return type(parse(text, strict=strict)[0]).__name__
    except Malformed as error:
        return str(error)


@pytest.mark.behaviour("skills:files:any-text")
@given(st.dictionaries(st.sampled_from(FIELDS), JSON | st.text(max_size=5)), JSON, JSON)
@settings(deadline=None)
def test_any_definition_is_taken_or_refused_in_one_line(skill: dict[str, Any], tools_file: Any, entry: Any) -> None:
    fields = {"name": "a", "model": "b/c", "skills": [skill], "tools_file": tools_file, "skills_dir": entry}
    with contextlib.suppress(DefinitionInvalid):
        made = define(fields)
        assert all(one.digest for one in made.skills)
        assert define(made.model_dump(mode="json", exclude_unset=True)) == made
