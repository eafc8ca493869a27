"""One attempt to tell a webhook: to a public address, signed, without following where it leads."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Iterable

import httpx
from msgspec import Struct

from flux.errors import InvalidInput
from flux.tools.addresses import NotAllowed, address_of
from flux.webhooks import sign

MAX_URL = 2_048
MOST_ERROR = 300


class Answer(Struct, frozen=True):
    """What became of an attempt: the status, if there was one, and why it does not count; None: it does."""

    status: int | None
    error: str | None = None


class Sender:
    """Sends. `hosts` are names, with or without a port, that may be told although not public, or without TLS."""

    def __init__(self, hosts: Iterable[str], timeout: float, *, trust: ssl.SSLContext | None = None) -> None:
        self._hosts = frozenset(host.lower() for host in hosts)
        self._timeout = timeout
        self._trust = trust

    async def check(self, url: str) -> None:
        """See that a URL may be told.

        :raises InvalidInput: it may not
        """
        try:
            parsed = self._parsed(url)
            await self._address(parsed)
        except (NotAllowed, httpx.InvalidURL, UnicodeError) as error:
            raise InvalidInput(f"url: {_reason(error)}") from error
        except OSError:
            return  # its name may be made known later

    async def send(self, url: str, id: str, body: bytes, secret: str) -> Answer:
        """Tell a receiver once."""
        try:
            async with asyncio.timeout(self._timeout):
                status = await self._post(self._parsed(url), id, body, secret)
        except TimeoutError:
            return Answer(None, f"no answer after {self._timeout:g} seconds")
        except (NotAllowed, OSError, httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            return Answer(None, _reason(error))
        return Answer(status, None if 200 <= status < 300 else f"the receiver answered {status}")

    def _parsed(self, url: str) -> httpx.URL:
        parsed = httpx.URL(url)
        if len(url) > MAX_URL or not parsed.host or parsed.userinfo or parsed.fragment:
            raise NotAllowed("must be https://HOST/PATH, without a user name or a fragment")
        if parsed.scheme != "https" and not (parsed.scheme == "http" and self._is_named(parsed)):
            raise NotAllowed("must begin with https://; whoever runs Flux can name a host without TLS in webhook_hosts")
        return parsed

    def _is_named(self, url: httpx.URL) -> bool:
        host = url.raw_host.decode("ascii").lower()
        return host in self._hosts or f"{host}:{_port(url)}" in self._hosts

    async def _address(self, url: httpx.URL) -> str:
        host = url.raw_host.decode("ascii")
        try:
            return await address_of(host, _port(url), self._hosts)
        except NotAllowed as error:
            raise NotAllowed(f"{host} has no public address; whoever runs Flux can name it in webhook_hosts") from error

    async def _post(self, url: httpx.URL, id: str, body: bytes, secret: str) -> int:
        """One request to the very address that was looked at; of the answer the status alone is read."""
        address = await self._address(url)
        if self._trust is None:
            self._trust = await asyncio.to_thread(httpx.create_ssl_context)
        timestamp = int(time.time())
        headers = {
            "Host": url.netloc.decode("ascii"),
            "Content-Type": "application/json",
            "User-Agent": "flux-harness (webhook)",
            "webhook-id": id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign(secret, id, timestamp, body),
        }
        async with httpx.AsyncClient(verify=self._trust, trust_env=False, timeout=self._timeout) as client:
            target = url.copy_with(host=address)
            named = {"sni_hostname": url.raw_host.decode("ascii")}
            async with client.stream("POST", target, content=body, headers=headers, extensions=named) as response:
                return response.status_code


def _port(url: httpx.URL) -> int:
    return url.port or (443 if url.scheme == "https" else 80)


def _reason(error: Exception) -> str:
    text = " ".join(str(getattr(error, "strerror", None) or error).split())
    return (text or type(error).__name__)[:MOST_ERROR]
