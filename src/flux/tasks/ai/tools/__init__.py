"""Groups of bundled tools for `agent(tools=...)`: import path that users know."""

from flux.tasks.ai.tools import system_tools as _module
from flux.tools.entries import directory, files, search, shell, system_tools

__all__ = ["directory", "files", "search", "shell", "system_tools"]

# A module and a function have this name: what is imported from here is the function.
del _module
