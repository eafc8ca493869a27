"""All bundled tools that act on a system, and what `shell` refuses: import path that users know."""

from flux.tools.entries import DEFAULT_BLOCKLIST, system_tools

__all__ = ["DEFAULT_BLOCKLIST", "system_tools"]
