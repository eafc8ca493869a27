"""The bundled tools by group, and the `tools` list of a definition."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from flux.errors import DefinitionInvalid
from flux.suggest import unknown
from flux.tools.ask import ask_tool
from flux.tools.base import Tool
from flux.tools.catalog import NAME as CATALOG
from flux.tools.catalog import catalog_tools
from flux.tools.directory import DirectoryTools
from flux.tools.files import FileTools
from flux.tools.search import SearchTools
from flux.tools.shell import ShellTools
from flux.tools.web import WebFetch
from flux.tools.workspace import DEFAULT_BLOCKLIST, GroupConfig

__all__ = ["DEFAULT_BLOCKLIST", "GROUPS", "SINGLE", "GroupConfig", "resolve"]

Builder = Callable[[GroupConfig, str], tuple[Tool, ...]]


def _shell(config: GroupConfig, sandbox: str) -> tuple[Tool, ...]:
    return ShellTools(config, sandbox).tools()


def _files(config: GroupConfig, sandbox: str) -> tuple[Tool, ...]:
    return FileTools(config).tools()


def _search(config: GroupConfig, sandbox: str) -> tuple[Tool, ...]:
    return SearchTools(config).tools()


def _directory(config: GroupConfig, sandbox: str) -> tuple[Tool, ...]:
    return DirectoryTools(config).tools()


def _system_tools(config: GroupConfig, sandbox: str) -> tuple[Tool, ...]:
    builders = (_shell, _files, _search, _directory)
    return tuple(tool for build in builders for tool in build(config, sandbox))


def _workspace(config: GroupConfig, sandbox: str) -> tuple[Tool, ...]:
    builders = (_files, _search, _directory)
    return tuple(tool for build in builders for tool in build(config, sandbox))


GROUPS: Mapping[str, Builder] = {
    "system_tools": _system_tools,
    "shell": _shell,
    "files": _files,
    "search": _search,
    "directory": _directory,
    "workspace": _workspace,
}
"""Group name -> builder of its tools from their configuration and the sandbox's name."""

_SYSTEM = _system_tools(GroupConfig(), "local")
SINGLE: Mapping[str, Tool] = {tool.name: tool for tool in (*_SYSTEM, ask_tool(), WebFetch().tool())}
"""Every bundled tool by its own name, with the default configuration."""

_GROUPED = frozenset(tool.name for tool in _SYSTEM)


def resolve(entries: Iterable[Any], *, sandbox: str = "local") -> tuple[Tool, ...]:
    """The tools of a definition's `tools` list, in the order they are first named.

    An entry is a group's name, `{group: settings}`, or a tool's name. Of two configured groups with the
    same tool the later one wins; a bare name never replaces what is there. `sandbox` is the name that
    `shell` tells the model; in `local` what can change the host asks first. DefinitionInvalid names what
    is wrong; a file of tools is no part of this, see agents/define/shipped.py.
    """
    tools: dict[str, Tool] = {}
    for entry in entries:
        group, settings = _parsed(entry)
        configured = not isinstance(entry, str)
        for tool in _built(group, settings, sandbox):
            if tool.name not in tools or configured:
                tools[tool.name] = tool
    return tuple(tools.values())


def _parsed(entry: Any) -> tuple[str, Any]:
    """The name and the settings of an entry."""
    if isinstance(entry, str):
        return entry, None
    if not isinstance(entry, Mapping) or not entry:
        raise DefinitionInvalid(f"tools: an entry is a name or a mapping of one group, not {entry!r}")
    name = str(next(iter(entry)))
    if len(entry) > 1:
        extra = ", ".join(str(key) for key in list(entry)[1:])
        raise DefinitionInvalid(f"tools: indent {extra} below {name}: an entry names one group")
    if name == "file":
        raise DefinitionInvalid("tools: a file of tools belongs to a stored agent; `flux agent create` reads it")
    if name not in GROUPS and name in SINGLE:
        raise DefinitionInvalid(f"tools: {name} takes no settings; give them to its group")
    return name, entry[name]


def _built(name: str, settings: Any, sandbox: str) -> tuple[Tool, ...]:
    if name == CATALOG:
        return catalog_tools(settings)
    if name in GROUPS:
        config = GroupConfig.of(name, settings)
        tools = GROUPS[name](by_sandbox(config, sandbox), sandbox)
        _check_approval(name, config, tools)
        return tools
    if name not in SINGLE:
        raise DefinitionInvalid(f"tools: {_unknown(name)}")
    if sandbox == "local" or name not in _GROUPED:
        return (SINGLE[name],)
    return tuple(tool for tool in _system_tools(by_sandbox(GroupConfig(), sandbox), sandbox) if tool.name == name)


def by_sandbox(config: GroupConfig, sandbox: str) -> GroupConfig:
    """The configuration with what it leaves to the sandbox: only on the host does a tool ask by default."""
    if config.requires_approval is not None or sandbox == "local":
        return config
    return msgspec.structs.replace(config, requires_approval=False)


def _unknown(name: str) -> str:
    """The nearest name, and all of them."""
    valid = [*GROUPS, CATALOG, *sorted(set(SINGLE) - set(GROUPS))]
    said = unknown("tool or group", name, valid)
    return said if "valid:" in said else f"{said} (valid: {', '.join(valid)})"


def _check_approval(group: str, config: GroupConfig, tools: tuple[Tool, ...]) -> None:
    if not isinstance(config.requires_approval, tuple):
        return
    names = [tool.name for tool in tools]
    for name in config.requires_approval:
        if name not in names:
            raise DefinitionInvalid(f"tools: {group}: requires_approval: {unknown('tool', name, names)}")
