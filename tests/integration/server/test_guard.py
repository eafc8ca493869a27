"""Which hosts may be named and which pages may call."""

import asyncio
from urllib.parse import urlsplit

import httpx
import pytest

from flux.client.transport import InProcessTransport
from flux.server.app import create_app
from tests.integration.server.serving import Served
from tests.integration.server.test_errors import error_of


@pytest.mark.behaviour("server:guard:host")
@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST", "localhost:8000", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:8000"]
)
async def test_loopback_names_are_answered_with_any_port(served: Served, host: str) -> None:
    assert (await served.http.get("/health", headers={"Host": host})).status_code == 200


@pytest.mark.behaviour("server:guard:host")
@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "127.0.0.2",
        "localhost@evil.example", "evil.example#localhost", "0.0.0.0", "[::]", "[::1", "::1", "192.168.0.1", "host",
    ],
)  # fmt: skip
async def test_other_hosts_are_refused(served: Served, host: str) -> None:
    error = error_of(await served.http.get("/health", headers={"Host": host}), 403)
    assert error["type"] == "forbidden"
    assert error["message"].startswith("this server does not answer to the host name")


@pytest.mark.behaviour("server:guard:host")
async def test_a_request_without_a_host_is_refused(on_socket: Served) -> None:
    address = urlsplit(on_socket.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(b"GET /health HTTP/1.0\r\n\r\n")
    answer = await reader.read()
    writer.close()
    assert answer.split(b"\r\n")[0].endswith(b"403 Forbidden")
    assert b'{"error":' in answer.replace(b" ", b"")


@pytest.mark.behaviour("server:guard:host")
async def test_an_empty_host_is_refused(served: Served) -> None:
    error_of(await served.http.get("/health", headers={"Host": ""}), 403)


@pytest.mark.behaviour("server:guard:origin")
async def test_pages_of_this_server_may_call(served: Served) -> None:
    host = urlsplit(served.url).netloc
    assert (await served.http.get("/health", headers={"Origin": f"http://{host}"})).status_code == 200


@pytest.mark.behaviour("server:guard:origin")
@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "", "http://localhost:1", "http://[", "file://", "http://localhost@evil.example"],
)
async def test_pages_of_other_sites_may_not_call(served: Served, origin: str) -> None:
    error = error_of(await served.http.post("/sessions", json={"agent": "x"}, headers={"Origin": origin}), 403)
    assert error["message"].endswith("may not call this server")


@pytest.mark.behaviour("server:guard:names")
@pytest.mark.parametrize(("hosts", "status"), [(frozenset({"Flux.example"}), 200), (None, 200), (frozenset(), 403)])
async def test_an_operator_names_further_hosts(in_memory: Served, hosts: frozenset[str] | None, status: int) -> None:
    app = create_app(in_memory.process, hosts=hosts)
    async with httpx.AsyncClient(base_url="http://flux.example:80", transport=InProcessTransport(app)) as http:
        assert (await http.get("/health")).status_code == status
        assert (await http.get("/health", headers={"Origin": "http://evil.example"})).status_code == 403
