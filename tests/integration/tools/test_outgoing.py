"""Attacks on what goes out: addresses that a model, an MCP server or its login names."""

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from flux.tools import addresses
from flux.tools.addresses import NotAllowed, address_of
from flux.tools.mcp.http import TRUSTED, Careful
from flux.tools.mcp.outgoing import check_shown, transport


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What names mean, answer by answer; the last one stays."""
    known: dict[str, list[str]] = {}
    real = asyncio.BaseEventLoop.getaddrinfo

    async def found(self: Any, host: str, port: int, **more: Any) -> Any:
        if host not in known:
            return await real(self, host, port, **more)
        answers = known[host]
        address = answers.pop(0) if len(answers) > 1 else answers[0]
        return [(socket.AF_INET6 if ":" in address else socket.AF_INET, 1, 6, "", (address, port))]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", found)
    return known


@pytest.fixture
async def inside() -> AsyncIterator[tuple[int, list[bytes]]]:
    """A service on this machine that nobody outside should reach: its port, and what it was asked."""
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nkeys")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], asked


METADATA = [
    "169.254.169.254",
    "fe80::1",
    "::ffff:169.254.169.254",
    "64:ff9b::169.254.169.254",
    "::169.254.169.254",
    "fd00:ec2::254",
    "100.100.100.200",
    "2002:a9fe:a9fe::",
]


@pytest.mark.behaviour("outgoing:metadata:never")
@pytest.mark.parametrize("address", METADATA)
async def test_the_addresses_of_a_clouds_keys_are_never_reached(address: str, names: dict[str, list[str]]) -> None:
    names["inner.example"] = [address]
    for host in ("inner.example", address):
        names[host] = [address]
        with pytest.raises(NotAllowed, match="never reached"):
            await address_of(host, 80, {host})


@pytest.mark.behaviour("outgoing:login:private")
async def test_a_login_cannot_lead_into_the_network_of_the_server(
    names: dict[str, list[str]], inside: tuple[int, list[bytes]]
) -> None:
    """Metadata of an MCP server in the web names a token endpoint on this machine, by address, name and rebinding."""
    port, asked = inside
    names["evil.example"] = ["127.0.0.1"]
    async with httpx2.AsyncClient(transport=transport("https://mcp.example/mcp", TRUSTED)) as client:
        for host in ("127.0.0.1", "localhost", "evil.example", "[::ffff:127.0.0.1]", "0x7f.1", "2130706433"):
            with pytest.raises(httpx2.ConnectError):
                await client.post(f"http://{host}:{port}/token")
    assert asked == []


@pytest.mark.behaviour("outgoing:login:private")
async def test_the_address_that_was_checked_is_the_one_connected_to(
    names: dict[str, list[str]], inside: tuple[int, list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, asked = inside
    monkeypatch.setattr(addresses, "is_public", lambda address: address == "198.51.100.7")
    names["rebinds.example"] = ["198.51.100.7", "127.0.0.1"]
    backend = transport("https://mcp.example/mcp", TRUSTED)
    connected: list[str] = []

    async def connect(host: str, *_: Any) -> Any:
        connected.append(host)
        raise ConnectionRefusedError

    monkeypatch.setattr(backend._pool._network_backend._inner, "connect_tcp", connect)  # type: ignore[attr-defined]
    async with httpx2.AsyncClient(transport=backend) as client:
        with pytest.raises(ConnectionRefusedError):
            await client.get(f"http://rebinds.example:{port}/")
    assert (connected, asked) == (["198.51.100.7"], [])


@pytest.mark.behaviour("outgoing:login:private")
async def test_whoever_runs_flux_may_name_private_hosts(inside: tuple[int, list[bytes]]) -> None:
    port, _ = inside
    for own, named in (("http://localhost:9/mcp", ()), ("https://mcp.example", ("127.0.0.1",))):
        async with httpx2.AsyncClient(transport=transport(own, TRUSTED, named)) as client:
            assert (await client.get(f"http://127.0.0.1:{port}/")).text == "keys"


@pytest.mark.behaviour("outgoing:metadata:never")
async def test_not_even_a_server_that_somebody_named_is_at_such_an_address(names: dict[str, list[str]]) -> None:
    names["mcp.internal"] = ["169.254.169.254"]

    async def none() -> dict[str, str]:
        return {}

    careful = Careful("http://mcp.internal/mcp", none)
    async with httpx2.AsyncClient(transport=careful) as client:
        answer = await client.post("http://mcp.internal/mcp")
    assert "never reached" in answer.json()["error"]["message"]


PUBLIC, HERE = "https://mcp.example/mcp", "http://127.0.0.1:3000/mcp"


@pytest.mark.behaviour("outgoing:shown:refused")
@pytest.mark.parametrize(
    ("url", "own", "why"),
    [
        ("https://bank.example@evil.example/", PUBLIC, "user or password"),
        ("https://192.168.1.1/reboot", PUBLIC, "not public"),
        ("http://localhost:8000/oauth/callback?code=x", PUBLIC, "not public"),
        ("https://router.local/", PUBLIC, "not public"),
        ("http://169.254.169.254/latest", HERE, "own network"),
        ("http://login.example/", PUBLIC, "https"),
        ("http://login.example/", None, "https"),
    ],
)
def test_nobody_is_sent_to_such_an_address(url: str, own: str | None, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        check_shown(url, own)


@pytest.mark.behaviour("outgoing:shown:refused")
def test_what_is_on_this_machine_may_send_to_this_machine() -> None:
    for url, own in (
        ("https://login.example/a?b=c", PUBLIC),
        ("http://localhost:9/x", HERE),
        ("http://[::1]:9/", None),
    ):
        check_shown(url, own)
