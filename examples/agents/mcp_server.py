"""A small MCP server, for examples/agents/mcp.yaml: it speaks over standard input and output."""

from mcp.server.mcpserver import MCPServer
from mcp.types import ToolAnnotations

server = MCPServer("weather")


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def forecast(city: str) -> str:
    """The weather of tomorrow in a city."""
    return f"Tomorrow it will be sunny in {city}, 24 degrees."


if __name__ == "__main__":
    server.run("stdio")
