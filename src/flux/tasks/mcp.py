"""MCP servers in workflows: import paths that users know."""

from flux.agents.mcp.tasks import bearer, mcp, oauth

__all__ = ["bearer", "mcp", "oauth"]
