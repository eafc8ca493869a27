"""What a definition brings along that not everybody may bring, or see."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from typing import Any

from flux.agents.define.definition import AgentDefinition
from flux.agents.define.memory import BY_NAME, HIDDEN
from flux.agents.define.shipped import is_file, tool_files
from flux.permissions import quoted
from flux.server.rules import REGISTER
from flux.tools.declared import secrets_in
from flux.tools.groups import GROUPS
from flux.tools.mcp.config import SECRET, McpServer

NOT_SHOWN = "# not shown: this needs the permission workflow:*:*:register\n"


def needs_of(definition: AgentDefinition, *, secrets: bool) -> list[str]:
    """What it takes to store a definition, besides creating or changing it. `secrets`: the caller may read them all."""
    needed = [REGISTER] if _runs_code(definition) else []
    if not secrets:
        needed += [f"secret:{quoted(name)}:use" for name in sorted(set(_secrets(definition)))]
    return needed + [one for inner in definition.subagents for one in needs_of(inner, secrets=secrets)]


def without_code(definition: dict[str, Any]) -> dict[str, Any]:
    """A definition as JSON, for people who may not register: without the code it ships."""
    shown = dict(definition)
    if shown.get("tools_file"):
        shown["tools_file"] = shown["tools_file"] | {"source": NOT_SHOWN}
    if shown.get("workflow_file"):
        shown["workflow_file"] = {"name": shown["workflow_file"].get("name", ""), "source": NOT_SHOWN}
    if shown.get("tools"):
        shown["tools"] = [
            {"file": one["file"] | {"source": NOT_SHOWN}} if is_file(one) else one for one in shown["tools"]
        ]
    if shown.get("skills"):
        shown["skills"] = [skill | {"files": {}} if skill.get("files") else skill for skill in shown["skills"]]
    if shown.get("subagents"):
        shown["subagents"] = [without_code(one) for one in shown["subagents"]]
    return shown


def _runs_code(definition: AgentDefinition) -> bool:
    """Whether it can run something, or reach somewhere, that agents by themselves cannot."""
    return bool(
        definition.sandbox == "local"
        or definition.tools_file
        or definition.workflow_file
        or definition.skills
        or definition.skills_dir
        or any(map(_is_more, definition.tools))
        or _imports(definition)
        or any(server.command is not None for server in definition.mcp_servers)
        or (definition.cwd is not None and _leaves(definition.cwd))
        or _connection(definition) not in ("", HIDDEN)
    )


def _imports(definition: AgentDefinition) -> bool:
    """Whether it names something that is imported where it runs: any function of any module there."""
    plan, approvals = definition.plan, definition.approvals
    named = plan is not None and (plan.model is not None or any(isinstance(one, dict) for one in plan.actions.values()))
    return named or bool(approvals and approvals.predicates)


def _is_more(entry: Any) -> bool:
    """Whether an entry of `tools` is more than bundled tools in the workspace: code, a function, a database."""
    if isinstance(entry, str):
        return False
    return any(
        name not in GROUPS or (isinstance(settings, Mapping) and _leaves(str(settings.get("workspace", "."))))
        for name, settings in entry.items()
    )


def _leaves(path: str) -> bool:
    """Whether a directory may lie outside of the workspace."""
    return path.startswith(("/", "~")) or posixpath.normpath(path.replace("\\", "/")).split("/")[0] == ".."


def _connection(definition: AgentDefinition) -> str:
    """Where its memories are, in so many words."""
    memory = definition.long_term_memory
    connection = (memory.connection if memory else None) or ""
    return "" if connection.startswith(BY_NAME) else connection


def _secrets(definition: AgentDefinition) -> Iterator[str]:
    """The names of the secrets it refers to."""
    for server in definition.mcp_servers:
        yield from _secrets_of(server)
    memory = definition.long_term_memory
    if memory and memory.connection and memory.connection.startswith(BY_NAME):
        yield memory.connection.removeprefix(BY_NAME)
    for file in (*tool_files(definition), definition.workflow_file):
        yield from secrets_in(file.source) if file is not None else ()


def _secrets_of(server: McpServer) -> Iterator[str]:
    if server.secret:
        yield server.secret
    for value in (*server.headers.values(), *server.env.values()):
        if value.startswith(SECRET):
            yield value.removeprefix(SECRET)
