"""The YAML door: a file or directory becomes the fields of an agent definition."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from flux import strict_yaml
from flux.agents.define.definition import MAX_BYTES, AgentDefinition, define
from flux.agents.define.files import Warn, beside, inline
from flux.agents.define.shipped import is_file, tool_entries
from flux.errors import DefinitionInvalid
from flux.tools.skill import Skill
from flux.tools.tool_file import ToolFile

logger = logging.getLogger(__name__)

#: `${NAME}`, or `${NAME:-what counts when it is not set}`; `$${` stands for a plain `${`.
VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}|\$\$\{")

#: Line breaks to YAML; only double quotes keep them.
UNUSUAL_BREAKS = re.compile("[\r\x85\u2028\u2029]")


def load_fields(
    path: Path, environment: Mapping[str, str], *, strict: bool = False, warn: Warn = logger.warning
) -> dict[str, Any]:
    """The fields in a YAML file, or in a directory: its agent.yaml, instructions.md, tools/ and skills/.

    Files that they name are read, see `inline`; `warn` is told of skills that are left out.

    :raises DefinitionInvalid: a file cannot be read, is not YAML, or names an unset variable
    """
    if not path.is_dir():
        return inline(parse_fields(_read(path), environment, str(path)), path.parent, strict=strict, warn=warn)
    main = path / "agent.yaml"
    if not main.is_file():
        raise DefinitionInvalid(f"{path}: an agent's directory holds an agent.yaml; there is none")
    fields = {"name": path.resolve().name} | parse_fields(_read(main), environment, str(main))
    instructions = path / "instructions.md"
    if instructions.is_file():
        fields.setdefault("system_prompt", _read(instructions))
    found = beside(path)
    if "tools" in found and isinstance(fields.get("tools", []), list):
        fields["tools"] = [*fields.get("tools", []), *found.pop("tools")]
    return inline(found | fields, path, strict=strict, warn=warn)


def parse_fields(text: str, environment: Mapping[str, str], where: str) -> dict[str, Any]:
    """The fields of a YAML text; `${VAR}` in values is replaced from the environment."""
    try:
        fields = strict_yaml.load(text)
    except ValueError as error:
        raise DefinitionInvalid(f"{where}: {error}") from error
    if not isinstance(fields, dict):
        raise DefinitionInvalid(f"{where}: an agent definition is a mapping of fields")
    return {str(key): _expand(value, environment, where) for key, value in fields.items()}


def define_from(
    path: Path, environment: Mapping[str, str], *, strict: bool = False, warn: Warn = logger.warning
) -> AgentDefinition:
    """The definition in a file or directory; see `load_fields`."""
    fields = load_fields(path, environment, strict=strict, warn=warn)
    missing = [] if "system_prompt" in fields else ["missing field 'system_prompt'"]
    try:
        made = define({"system_prompt": ""} | fields)
    except DefinitionInvalid as error:
        raise DefinitionInvalid(f"{path}: {'; '.join([*missing, str(error)])}") from None
    if missing:
        raise DefinitionInvalid(f"{path}: {missing[0]}")
    return made


def to_yaml(definition: AgentDefinition) -> str:
    """The YAML form of a definition."""
    fields = definition.model_dump(mode="json", exclude_unset=True)
    return yaml.dump(fields, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def yaml_schema() -> dict[str, Any]:
    """The JSON Schema of the YAML form, in which files may be named by their paths."""
    schema = AgentDefinition.model_json_schema()
    fields = schema["$defs"]["AgentDefinition"]["properties"]
    fields["tools_file"]["anyOf"].insert(0, {"type": "string"})
    return schema


def overview(definition: AgentDefinition) -> str:
    """The YAML of a definition for people: of what it brings along the names and digests, not the content."""
    return yaml.dump(_overview(definition), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def _overview(definition: AgentDefinition) -> dict[str, Any]:
    fields = definition.model_dump(mode="json", exclude_unset=True)
    if definition.skills:
        fields["skills"] = [_skill(skill) for skill in definition.skills]
    if definition.tools_file:
        fields["tools_file"] = _file(definition.tools_file)
    if definition.subagents:
        fields["subagents"] = [_overview(one) for one in definition.subagents]
    files = iter(tool_entries(definition))
    entries = [{"file": _file(next(files))} if is_file(entry) else entry for entry in fields.get("tools", ())]
    return {**fields, "tools": entries} if entries else fields


def _skill(skill: Skill) -> dict[str, Any]:
    shown = {"name": skill.name, "description": skill.description, "digest": skill.digest}
    return {**shown, "files": sorted(skill.files)} if skill.files else shown


def _file(file: ToolFile) -> dict[str, str]:
    return {"name": file.name, "digest": file.digest}


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
