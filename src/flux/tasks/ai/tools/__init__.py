"""The bundled tools for `agent(..., tools=...)`."""

from flux.tasks.ai.tools.system_tools import directory, files, search, shell, system_tools

__all__ = ["directory", "files", "search", "shell", "system_tools"]
