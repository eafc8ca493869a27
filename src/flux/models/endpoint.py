"""Where a provider is reached."""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

from msgspec import Struct

Wire = Literal["openai-chat", "openai-responses", "anthropic", "google", "ollama", "openrouter"]


class Endpoint(Struct, frozen=True):
    """Where a provider is called and with which key; `variable` is where the key came from.

    `headers` are sent with every request, in place of others of their names. `secret` names the secret that holds
    the key, instead of `key`.
    """

    provider: str
    wire: Wire
    base_url: str
    key: str | None = None
    variable: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    secret: str | None = None

    def __repr__(self) -> str:
        return f"Endpoint({self.provider!r}, {self.wire!r}, {self.base_url!r})"


def problem_of(url: str) -> str | None:
    """What keeps a URL from being a provider's address, to be read behind its name; None when nothing does."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError as error:  # such as a port that is no number, or half an IPv6 address
        return f"is not an address: {error}"
    # urlsplit takes out some of these characters and lets others pass.
    valid = valid and url.isprintable() and " " not in url
    return None if valid else "must be an address such as http://127.0.0.1:8000/v1: http or https, and a host"
