"""connect_mcp_server: the tools of a server as tools of the application."""

import sys
from pathlib import Path
from typing import Any

import pytest

from flux import connect_mcp_server, init_agent
from flux.errors import DefinitionInvalid, Unavailable
from flux.testing import Call, Reply
from tests.integration.harness.conftest import MakeAgent
from tests.integration.harness.test_sessions import texts

SERVER = Path(__file__).parents[3] / "examples" / "agents" / "mcp_server.py"


@pytest.mark.behaviour("harness:mcp:connect")
async def test_the_tools_of_a_server_are_used_until_it_is_closed(desk: MakeAgent) -> None:
    async with await connect_mcp_server("weather", command=[sys.executable, str(SERVER)]) as server:
        assert server.name == "weather"
        names = [one.name for one in server.tools]
        assert all(name.startswith("mcp__weather__") for name in names)
        forecast = next(one for one in server.tools if "forecast" in one.name)
        args = {key: "Bern" for key in forecast.parameters.get("required", ())}
        script = [Reply("", calls=(Call(forecast.name, args),)), Reply("Sunny.")]
        session = await (await init_agent(desk(script, tools=server.tools), id="t-1")).session()
        assert (await session.prompt("Weather?")).text == "Sunny."
        assert "Bern" in texts(await session.history())[2]


@pytest.mark.behaviour("harness:mcp:refused")
@pytest.mark.parametrize(
    ("how", "error", "said"),
    [
        ({"url": "http://127.0.0.1:1/mcp"}, Unavailable, "the MCP server x cannot be used"),
        ({"command": ["/nowhere/at/all"]}, Unavailable, "the MCP server x cannot be used"),
        ({}, DefinitionInvalid, "give url or command"),
        ({"url": "http://a", "transport": "stdio"}, DefinitionInvalid, "stdio is the transport of a command"),
        ({"url": "http://a", "transport": "carrier"}, DefinitionInvalid, "transport must be streamable-http, sse or"),
        ({"url": "ftp://a"}, DefinitionInvalid, "must be an http"),
    ],
)
async def test_a_server_that_cannot_be_used_is_told(how: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        await connect_mcp_server("x", **how)
