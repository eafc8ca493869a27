"""What a definition brings along, checked where it is created: the tools of its files, and its skills."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from flux.agents.define.definition import AgentDefinition
from flux.errors import DefinitionInvalid, SourceInvalid
from flux.tools.declared import DeclaredTool, declared_tools
from flux.tools.skill import Skill
from flux.tools.skills import USE_SKILL
from flux.tools.tool_file import ToolFile


def tool_files(definition: AgentDefinition) -> tuple[ToolFile, ...]:
    """The files of tools of an agent, each once, in the order in which it names them.

    :raises DefinitionInvalid: an entry is no file
    """
    found = tool_entries(definition)
    if definition.tools_file is not None:
        found.append(definition.tools_file)
    return tuple({file.digest: file for file in found}.values())


def digests(definition: AgentDefinition) -> dict[str, dict[str, str]]:
    """The digests of what a definition brings along, by name."""
    return {
        "skills": {skill.name: skill.digest for skill in definition.skills},
        "tool_files": {file.name: file.digest for file in tool_files(definition)},
    }


def shipped_bytes(definition: AgentDefinition) -> int:
    """Bytes of what a definition brings along."""
    files = sum(len(file.source) for file in tool_files(definition))
    return files + sum(skill.size for skill in definition.skills) + sum(map(shipped_bytes, definition.subagents))


def tool_entries(definition: AgentDefinition) -> list[ToolFile]:
    """The files among the entries of `tools`.

    :raises DefinitionInvalid: an entry is no file
    """
    return [_file(entry) for entry in definition.tools if is_file(entry)]


def is_file(entry: Any) -> bool:
    """Whether an entry of `tools` is a file."""
    return isinstance(entry, Mapping) and list(entry) == ["file"]


def check_files(definition: AgentDefinition, taken: Container[str]) -> dict[str, DeclaredTool]:
    """What the files of an agent declare, by name; `taken` are names of its other tools.

    :raises DefinitionInvalid: a file cannot be read, or two tools have one name
    """
    found: dict[str, DeclaredTool] = {}
    for file in tool_files(definition):
        try:
            declared = declared_tools(file)
        except SourceInvalid as error:
            raise DefinitionInvalid(f"tools: {error}") from error
        for tool in declared:
            if tool.name in taken or tool.name in found or tool.name.startswith("mcp__"):
                place = f"{file.name}: line {tool.line}"
                raise DefinitionInvalid(f"tools: {place}: the agent has another tool {tool.name}; rename this one")
            found[tool.name] = tool
    return found


def check_names(skills: Iterable[Skill], tools: Container[str]) -> None:
    """Refuse a skill that a model could take for a tool.

    :raises DefinitionInvalid: one has the name of a tool
    """
    for skill in skills:
        if skill.name in tools or skill.name == USE_SKILL:
            raise DefinitionInvalid(f"skills: {skill.name} is the name of a tool of this agent; rename the skill")


def _file(entry: Any) -> ToolFile:
    try:
        return ToolFile.model_validate(entry["file"])
    except ValidationError as error:
        faults = "; ".join(str(fault["msg"]).removeprefix("Value error, ") for fault in error.errors())
        raise DefinitionInvalid(f"tools: file: {faults}") from error
