"""Identity providers: what they say about themselves, read with care."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec

from flux.errors import Unavailable

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
TIMEOUT_SECONDS = 5.0
MOST_BYTES = 1_000_000


def discovery_url(issuer: str) -> str:
    """Where a provider tells about itself."""
    return issuer.rstrip("/") + "/.well-known/openid-configuration"


async def metadata(http: httpx.AsyncClient, issuer: str) -> dict[str, Any]:
    """What a provider says about itself: every address in it is one that nobody else can answer at.

    :raises Unavailable: it says something else, or that it is another one
    :raises httpx.HTTPError: it does not answer
    """
    about = await fetch_json(http, discovery_url(issuer))
    if about.get("issuer") != issuer:
        raise Unavailable(f"the provider at {issuer} says it is {str(about.get('issuer'))[:200]!r}; set that as issuer")
    for name, value in about.items():
        if name == "jwks_uri" or name.endswith("_endpoint"):
            check_address(str(value))
    return about


def check_address(url: str) -> None:
    """:raises Unavailable: it is neither https nor on this machine."""
    try:
        parts = urlsplit(url)
        secure = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)
    except ValueError:
        secure = False
    if not secure:
        raise Unavailable(f"{url[:200]!r} must be https; http is for this machine alone")


async def fetch_json(http: httpx.AsyncClient, url: str) -> dict[str, Any]:
    """A JSON object of a provider.

    :raises Unavailable: there is none
    :raises httpx.HTTPError: the provider does not answer
    """
    check_address(url)
    content = b""
    async with http.stream("GET", url) as response:
        if response.status_code != 200:
            raise Unavailable(f"{url} answered {response.status_code}")
        async for piece in response.aiter_bytes():
            content += piece
            if len(content) > MOST_BYTES:
                raise Unavailable(f"{url} says too much")
    try:
        return msgspec.json.decode(content, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise Unavailable(f"{url} is no JSON object") from error
