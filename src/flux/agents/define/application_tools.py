"""Functions of the application that definitions name, as tools."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from flux.agents.define.called import code_tool
from flux.agents.define.named import load
from flux.agents.define.tool import ToolDefinition, define_tool
from flux.engine.workflows.task import task
from flux.errors import DefinitionInvalid
from flux.tools.base import Tool

#: The key of an entry of `tools` that names a function, as `module:attribute`.
FUNCTION = "function"


def is_function(entry: Any) -> bool:
    """Whether an entry of `tools` names a function."""
    return isinstance(entry, Mapping) and list(entry) == [FUNCTION] and isinstance(entry[FUNCTION], str)


@lru_cache(maxsize=1024)
def function_tool(reference: str) -> Tool:
    """The tool of a function, or of what `define_tool` made, by its `module:attribute`. Imports the module.

    :raises DefinitionInvalid: there is no such thing, or it cannot be a tool
    """
    found = load(reference)
    if isinstance(found, ToolDefinition):
        return code_tool(found)
    if isinstance(found, task | type) or not callable(found):
        raise DefinitionInvalid(f"tools: {reference} is no function, and no tool of define_tool or @tool")
    return code_tool(define_tool(str(getattr(found, "__name__", "")), found))
