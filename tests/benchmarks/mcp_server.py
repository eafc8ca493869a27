"""The MCP server that the benchmark calls: one tool, over Streamable HTTP; it prints its address."""

from __future__ import annotations

import uvicorn
from mcp.server.mcpserver import MCPServer


def main() -> None:
    """Serve until killed."""
    server = MCPServer("bench")

    @server.tool()
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    config = uvicorn.Config(server.streamable_http_app(), port=0, log_level="error", ws="none")
    socket = config.bind_socket()
    socket.listen()  # who reads the line may connect at once
    print(f"http://127.0.0.1:{socket.getsockname()[1]}/mcp", flush=True)
    uvicorn.Server(config).run(sockets=[socket])


if __name__ == "__main__":
    main()
