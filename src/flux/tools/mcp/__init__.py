"""The MCP client: servers, their tools, and what they ask people; `mcp` is known here alone, once it is used."""
