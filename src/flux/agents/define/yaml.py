"""The YAML door: a file or directory becomes the fields of an agent definition."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from flux.agents.definition import MAX_BYTES, AgentDefinition, define
from flux.agents.workflow_file import inline
from flux.errors import DefinitionInvalid

#: `${NAME}`, or `${NAME:-what counts when it is not set}`; `$${` stands for a plain `${`.
VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}|\$\$\{")

#: Line breaks to YAML; only double quotes keep them.
UNUSUAL_BREAKS = re.compile("[\r\x85\u2028\u2029]")


class _Loader(yaml.SafeLoader):
    """Refuses aliases (they can grow without bound) and duplicate keys (one of them would be lost)."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.constructor.ConstructorError(None, None, "aliases are not allowed", _mark(self))
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be plain text", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key.value!r}", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _mark(loader: Any) -> yaml.Mark:
    """Where the next event begins."""
    mark: yaml.Mark = loader.peek_event().start_mark
    return mark


def load_fields(path: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    """The fields in a YAML file, or in the agent.yaml of a directory with its instructions.md.

    :raises DefinitionInvalid: the file cannot be read, is not YAML, or names an unset variable
    """
    if path.is_dir():
        if not (path / "agent.yaml").is_file():
            raise DefinitionInvalid(f"{path}: an agent's directory holds an agent.yaml; there is none")
        fields = load_fields(path / "agent.yaml", environment)
        instructions = path / "instructions.md"
        if instructions.is_file():
            fields.setdefault("system_prompt", _read(instructions))
        return {"name": path.resolve().name} | fields
    return inline(parse_fields(_read(path), environment, str(path)), path.parent)


def parse_fields(text: str, environment: Mapping[str, str], where: str) -> dict[str, Any]:
    """The fields of a YAML text; `${VAR}` in values is replaced from the environment."""
    try:
        fields = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader with more refusals
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise DefinitionInvalid(f"{where}: {_one_line(error)}") from error
    if not isinstance(fields, dict):
        raise DefinitionInvalid(f"{where}: an agent definition is a mapping of fields")
    return {str(key): _expand(value, environment, where) for key, value in fields.items()}


def define_from(path: Path, environment: Mapping[str, str]) -> AgentDefinition:
    """The definition in a file or directory."""
    fields = load_fields(path, environment)
    if "system_prompt" not in fields:
        raise DefinitionInvalid(f"{path}: missing field 'system_prompt'")
    try:
        return define(fields)
    except DefinitionInvalid as error:
        raise DefinitionInvalid(f"{path}: {error}") from error


def to_yaml(definition: AgentDefinition) -> str:
    """The YAML form of a definition."""
    fields = definition.model_dump(mode="json", exclude_unset=True)
    return yaml.dump(fields, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


class _Dumper(yaml.SafeDumper):
    """Writes longer texts as blocks."""


def _block(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    text = text.replace("${", "$${")
    style = '"' if UNUSUAL_BREAKS.search(text) else "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _block)


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DefinitionInvalid(f"{path}: larger than {MAX_BYTES:,} bytes")
        return path.read_text()
    except UnicodeDecodeError as error:
        raise DefinitionInvalid(f"{path}: not UTF-8 text") from error
    except OSError as error:
        raise DefinitionInvalid(f"{path}: {error.strerror or error}") from error


def _expand(value: Any, environment: Mapping[str, str], where: str) -> Any:
    if isinstance(value, str):
        return VARIABLE.sub(lambda match: _variable(match, environment, where), value)
    if isinstance(value, list):
        return [_expand(item, environment, where) for item in value]
    if isinstance(value, dict):
        return {key: _expand(item, environment, where) for key, item in value.items()}
    return value


def _variable(match: re.Match[str], environment: Mapping[str, str], where: str) -> str:
    name, default = match.groups()
    if name is None:
        return "${"
    value = environment.get(name)
    if default is not None and not value:
        return str(default)
    if value is None:
        raise DefinitionInvalid(f"{where}: the variable {name} is not set")
    return value


def _one_line(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    return " ".join(str(error).split()) or type(error).__name__
