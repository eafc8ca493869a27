"""The YAML door: what people write, what attackers write, and what a cat on the keyboard writes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux.agents.define.definition import MAX_BYTES, define
from flux.agents.define.yaml import define_from, load_fields, parse_fields, to_yaml
from flux.errors import DefinitionInvalid

BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"


def refused(text: str, environment: dict[str, str] | None = None) -> str:
    with pytest.raises(DefinitionInvalid) as raised:
        parse_fields(text, environment or {}, "agent.yaml")
    message = str(raised.value)
    assert "\n" not in message
    return message


def tried(work: Callable[[], Any]) -> Any:
    """What comes back, or the refusal."""
    try:
        return work()
    except DefinitionInvalid as error:
        return error


@pytest.mark.behaviour("loop:yaml:refuses")
@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB, "line 2, column 8: aliases are not allowed"),
        ("a: &a {<<: *a}", "aliases are not allowed"),
        ("name: x\nmodel: y\nname: z\n", "line 3, column 1: duplicate key 'name'"),
        ("budget: {run: 1, run: 2}", "duplicate key 'run'"),
        ("- a\n- b\n", "a mapping of fields"),
        ("just text", "a mapping of fields"),
        ("", "a mapping of fields"),
        ("a: [", "agent.yaml: line"),
        ("a: b: c", "line 1, column 5: a ': ' where none can be; put the value in quotes, or indent like the others"),
        ("a:\n\t- b", "line 2, column 1: a tab; indent with spaces"),
        ("a: @b", "line 1, column 4: a character that no value begins with; put the value in quotes"),
        ('a: "b', "line 1, column 6: a quote or a bracket that is not closed"),
        ("a: b\n---\na: c", "line 2, column 1: a second document; one file holds one"),
        ("a: b\nc", "line 2, column 2: neither `key: value` nor a part of one"),
        ("a:\n  - b: c\n   d: e", "line 3, column 4: indented differently from the others"),
        ("a: !!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("a: !!python/name:os.system", "could not determine a constructor"),
        ("a: b\n---\na: c\n", "agent.yaml: line"),
        ("[" * 5000, "agent.yaml: lists or mappings are nested too deeply"),
        ("a: \x00", "agent.yaml: "),
        ("a: 2024-13-45", "agent.yaml: "),
        ("? [a, b]\n: c", "agent.yaml: "),
        ("? {a: b}\n: c", "agent.yaml: "),
    ],
)
def test_what_is_no_plain_mapping_is_refused_in_one_line(text: str, said: str) -> None:
    assert said in refused(text)


@pytest.mark.behaviour("loop:yaml:never-crashes")
@given(st.text(max_size=60) | st.text(alphabet="ab:{}[]&*-?!|>\n '\"#%@`,<", max_size=40))
def test_any_text_gives_fields_or_one_clear_error(text: str) -> None:
    found = tried(lambda: parse_fields(text, {}, "agent.yaml"))
    if isinstance(found, DefinitionInvalid):
        assert str(found).startswith("agent.yaml: ")
        assert "\n" not in str(found)
    else:
        assert all(isinstance(key, str) for key in found)


@pytest.mark.behaviour("loop:yaml:never-crashes")
@given(st.binary(max_size=60))
def test_any_bytes_in_a_file_give_a_definition_or_one_clear_error(tmp_path_factory: Any, data: bytes) -> None:
    path = tmp_path_factory.mktemp("yaml") / "agent.yaml"
    path.write_bytes(data)
    found = tried(lambda: define_from(path, {}))
    if isinstance(found, DefinitionInvalid):
        assert str(path) in str(found)
        assert "\n" not in str(found)


@pytest.mark.behaviour("loop:yaml:variables")
@given(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True), st.text(min_size=1, max_size=20))
def test_a_variable_is_replaced_by_exactly_its_text(name: str, value: str) -> None:
    text = f'a: "x${{{name}}}y"\nb: ["${{{name}}}", {{c: "${{{name}}}"}}]\nd: 5\n'
    fields = parse_fields(text, {name: value}, "agent.yaml")
    assert fields == {"a": f"x{value}y", "b": [value, {"c": value}], "d": 5}


@pytest.mark.behaviour("loop:yaml:variables")
def test_a_variable_that_is_not_set_is_named() -> None:
    assert refused("a: ${NO_SUCH}") == "agent.yaml: the variable NO_SUCH is not set"
    assert parse_fields("a: ${NO_SUCH:-here}", {}, "agent.yaml") == {"a": "here"}
    assert parse_fields("a: ${NO_SUCH:-}", {}, "agent.yaml") == {"a": ""}


@pytest.mark.behaviour("loop:yaml:variables")
def test_an_empty_variable_is_set_but_gives_way_to_a_default() -> None:
    assert parse_fields("a: x${EMPTY}", {"EMPTY": ""}, "agent.yaml") == {"a": "x"}
    assert parse_fields("a: ${EMPTY:-here}", {"EMPTY": ""}, "agent.yaml") == {"a": "here"}


@pytest.mark.behaviour("loop:yaml:variables")
def test_the_value_of_a_variable_is_text_and_is_not_read_as_yaml_or_again() -> None:
    values = {"A": "${B}", "B": "secret", "LIST": "[1, 2]"}
    assert parse_fields("a: ${A}\nb: ${LIST}", values, "agent.yaml") == {"a": "${B}", "b": "[1, 2]"}


@pytest.mark.behaviour("loop:yaml:round-trip")
@given(
    st.fixed_dictionaries(
        {"name": st.just("coder"), "model": st.just("test/one")},
        optional={
            "system_prompt": st.text(),
            "description": st.text(max_size=20),
            "max_tokens": st.integers(1, 10_000),
            "tools": st.just(["read_file", {"shell": {"timeout": 5}}]),
            "tool_approvals": st.just({"read_file": True}),
            "compaction": st.just(False),
        },
    )
)
def test_a_definition_survives_being_written_as_yaml(fields: dict[str, Any]) -> None:
    made = define(fields)
    written = to_yaml(made)
    assert define(parse_fields(written, {}, "agent.yaml")) == made


@pytest.mark.behaviour("loop:yaml:files")
def test_a_directory_is_an_agent_with_its_instructions(tmp_path: Path) -> None:
    folder = tmp_path / "coder"
    folder.mkdir()
    (folder / "agent.yaml").write_text("model: test/one\n")
    (folder / "instructions.md").write_text("Help ${NOBODY}.")
    made = define_from(folder, {})
    assert (made.name, made.system_prompt) == ("coder", "Help ${NOBODY}.")


@pytest.mark.behaviour("loop:yaml:files")
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DefinitionInvalid, match="No such file"):
        load_fields(tmp_path / "missing.yaml", {})
    with pytest.raises(DefinitionInvalid, match=r"holds an agent\.yaml"):
        load_fields(tmp_path, {})
    big = tmp_path / "big.yaml"
    big.write_text("#" * (MAX_BYTES + 1))
    with pytest.raises(DefinitionInvalid, match="larger than"):
        load_fields(big, {})
    promptless = tmp_path / "agent.yaml"
    promptless.write_text("name: a\nmodel: test/one\n")
    with pytest.raises(DefinitionInvalid, match=r"missing field 'system_prompt'$"):
        define_from(promptless, {})
    promptless.write_text("name: a\nmodel: test/one\nsystem_prompt_file: x\n")
    with pytest.raises(DefinitionInvalid, match="missing field 'system_prompt'; unknown field 'system_prompt_file'"):
        define_from(promptless, {})


def test_an_escaped_variable_is_plain_text_and_survives_export() -> None:
    fields = parse_fields(
        "name: a\nmodel: scripted/demo\nsystem_prompt: pay $${AMOUNT} at ${PLACE}\n", {"PLACE": "x"}, "f"
    )
    definition = define(fields)
    assert definition.system_prompt == "pay ${AMOUNT} at x"
    assert define(parse_fields(to_yaml(definition), {}, "f")) == definition
