"""MCP servers as data: what is refused when an agent is created, and what servers and tools are called."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux.agents.define.definition import AgentDefinition, define
from flux.errors import DefinitionInvalid
from flux.tools.mcp.config import McpServer, server_names, tool_name

URL = "https://example.com/mcp"


def agent(*servers: Any) -> AgentDefinition:
    """An agent with these servers."""
    return define({"name": "a", "model": "test/x", "mcp_servers": list(servers)})


@pytest.mark.parametrize(
    ("server", "said"),
    [
        ({}, "give url or command, and not both"),
        ({"url": URL, "command": "x"}, "give url or command, and not both"),
        ({"url": "ftp://example.com"}, "must be an http:// or https:// address"),
        ({"url": "example.com"}, "must be an http:// or https:// address"),
        ({"url": "http://"}, "must be an http:// or https:// address"),
        ({"url": "http://a:b@example.com"}, "must not hold a user or password"),
        ({"url": "http://exa mple.com"}, "must not hold spaces"),
        ({"url": "http://example.com:99999"}, "Port out of range"),
        ({"command": ""}, "is empty"),
        ({"command": []}, "is empty"),
        ({"command": "a 'b"}, "No closing quotation"),
        ({"command": ["a\0b"]}, "cannot hold a NUL"),
        ({"url": URL, "auth": "basic"}, "mcp_servers.0.auth"),
        ({"url": URL, "auth": "bearer"}, "auth: bearer needs secret"),
        ({"url": URL, "secret": "X"}, "secret needs auth"),
        ({"url": URL, "client_id": "X"}, "client_id needs auth: oauth"),
        ({"command": "x", "auth": "bearer", "secret": "X"}, "auth and headers are for a url"),
        ({"command": "x", "headers": {"A": "b"}}, "auth and headers are for a url"),
        ({"url": URL, "env": {"A": "b"}}, "env is for a command"),
        ({"command": "x", "env": {"A=B": "c"}}, "cannot be a variable"),
        ({"url": URL, "headers": {"A b": "c"}}, "no header of plain text"),
        ({"url": URL, "headers": {"A": "c\r\nB: d"}}, "no header of plain text"),
        ({"url": URL, "auth": "bearer", "secret": "X", "headers": {"authorization": "x"}}, "Authorization comes from"),
        ({"url": URL, "name": "a b"}, "must be a letter followed by"),
        ({"url": URL, "timeout": 0}, "greater than 0"),
        ({"url": URL, "timeout": 4000}, "less than or equal to 3600"),
        ({"url": URL, "timeout": "soon"}, "mcp_servers.0.timeout"),
        ({"url": URL, "required": "perhaps"}, "mcp_servers.0.required"),
        ({"url": URL, "tools": "all"}, "mcp_servers.0.tools"),
        ({"url": URL, "wat": 1}, "unknown field 'mcp_servers.0.wat'"),
        ("https://example.com", "mcp_servers.0"),
    ],
)
@pytest.mark.behaviour("mcp:config:checked")
def test_what_is_wrong_with_a_server_is_said_when_the_agent_is_created(server: Any, said: str) -> None:
    with pytest.raises(DefinitionInvalid) as raised:
        agent(server)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.behaviour("mcp:config:checked")
def test_a_definition_with_servers_comes_back_from_its_json() -> None:
    made = agent({"url": URL, "auth": "bearer", "secret": "KEY"}, {"command": "uvx server --all", "required": True})
    assert AgentDefinition.from_json(made.to_json()) == made
    assert made.mcp_servers[1].words == ("uvx", "server", "--all")


@pytest.mark.behaviour("mcp:names:servers")
def test_a_server_without_a_name_is_called_by_its_place() -> None:
    urls = [
        "https://api.example.com/mcp",
        "http://127.0.0.1:8080/mcp",
        "http://127.0.0.1:8080/other",
        "http://[::1]:1/",
    ]
    servers = [McpServer(url=url) for url in urls] + [McpServer(command="/usr/bin/git-server -v")]
    assert server_names(servers) == (
        "api_example_com", "127_0_0_1_8080", "127_0_0_1_8080_2", "__1_1", "git-server",
    )  # fmt: skip


@given(st.text(min_size=1), st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,63}", fullmatch=True))
@pytest.mark.behaviour("mcp:names:tools")
def test_every_tool_gets_a_name_that_every_provider_takes(tool: str, server: str) -> None:
    name = tool_name(server, tool)
    assert len(name) <= 64
    assert name.replace("_", "").replace("-", "").isascii()
    assert name.replace("_", "a").replace("-", "a").isalnum()
    assert name.startswith(f"mcp__{server}"[:50])


@pytest.mark.behaviour("mcp:names:tools")
def test_long_names_that_begin_alike_stay_apart() -> None:
    assert tool_name("s", "x" * 100 + "a") != tool_name("s", "x" * 100 + "b")
    assert tool_name("git", "create/issue") == "mcp__git__create_issue"


@pytest.mark.behaviour("mcp:config:shared")
def test_agents_that_differ_in_what_they_use_share_a_connection() -> None:
    plain = McpServer(url=URL)
    assert plain.key == McpServer(url=URL, name="x", tools=("a",), required=True, timeout=5).key
    assert plain.key != McpServer(url=URL, headers={"A": "b"}).key
