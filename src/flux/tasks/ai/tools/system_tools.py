"""The bundled tools by group, each with settings: `tools=[*system_tools(workspace="./data"), my_task]`."""

from flux.agents.define.bundled_tools import directory, files, search, shell, system_tools
from flux.tools.groups import DEFAULT_BLOCKLIST

__all__ = ["DEFAULT_BLOCKLIST", "directory", "files", "search", "shell", "system_tools"]
