"""Where requests go that an MCP server, or what it says of its login, brings about.

The server itself is whoever runs Flux's choice and may be on this machine or in a private network. What it names
must be public, be the same host, or be named in `web_fetch_hosts`. A name is looked up once for each connection, and
the address that was checked is the one that is connected to.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

import httpcore2
import httpx2

from flux.tools.addresses import NotAllowed, address_of, is_never, is_public

#: What a client of the library has by default.
MOST_CONNECTIONS, MOST_KEPT, KEPT_SECONDS = 100, 20, 5.0
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class _Hosts:
    """Those that need not be public: the server's own, and those that are named."""

    def __init__(self, own: str, named: Iterable[str]) -> None:
        self._names = frozenset({own, *(LOOPBACK if own in LOOPBACK else ()), *(name.lower() for name in named)})

    def __contains__(self, host: object) -> bool:
        return host in self._names


class _Checked(httpcore2.AsyncNetworkBackend):
    """Connects to checked addresses."""

    def __init__(self, hosts: _Hosts) -> None:
        self._hosts = hosts
        self._inner = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """A connection to the address that a host has now.

        :raises ConnectError: it must not be reached, or has none
        """
        try:
            address = await address_of(host, port, self._hosts)
        except (NotAllowed, OSError) as error:
            raise httpcore2.ConnectError(str(error)) from error
        return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await self._inner.sleep(seconds)


def transport(url: str, trust: ssl.SSLContext, named: Iterable[str] = ()) -> httpx2.AsyncHTTPTransport:
    """Sends requests on behalf of the server at `url`; `named` are hosts that may be reached although not public."""
    made = httpx2.AsyncHTTPTransport(verify=trust)
    hosts = _Hosts((urlsplit(url).hostname or "").lower(), named)
    # Each connection is made by our backend: a check of the address in front of the request would look a name up twice.
    made._pool = httpcore2.AsyncConnectionPool(
        ssl_context=trust,
        max_connections=MOST_CONNECTIONS,
        max_keepalive_connections=MOST_KEPT,
        keepalive_expiry=KEPT_SECONDS,
        network_backend=_Checked(hosts),
    )
    return made


def check_shown(url: str, own: str | None) -> None:
    """Refuse an address that no person should be sent to by the server at `own` (None: a program on this machine).

    :raises ValueError: it names somebody, is on this machine or in a private network although the server is not, or
        is not encrypted
    """
    parts = urlsplit(url)
    if parts.username is not None:
        raise ValueError("must not hold a user or password")
    host = (parts.hostname or "").lower()
    if is_never(host):
        raise ValueError("is of the machine's own network")
    local = not _is_public_name(host)
    if local and own is not None and _is_public_name((urlsplit(own).hostname or "").lower()):
        raise ValueError("is not public, and its server is")
    if parts.scheme != "https" and not local:
        raise ValueError("must be an https:// address")


def _is_public_name(host: str) -> bool:
    """Whether a host looks public; a name is not looked up here, the person's browser does that."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return "." in host and not host.endswith((".localhost", ".local", ".internal"))
    return is_public(host)
