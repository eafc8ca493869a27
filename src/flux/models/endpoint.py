"""Where a provider is reached."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Wire = Literal["openai-chat", "openai-responses", "anthropic", "google", "ollama", "openrouter"]


class Endpoint(Struct, frozen=True):
    """Where a provider is called and with which key; `variable` is where the key came from."""

    provider: str
    wire: Wire
    base_url: str
    key: str | None = None
    variable: str | None = None

    def __repr__(self) -> str:
        return f"Endpoint({self.provider!r}, {self.wire!r}, {self.base_url!r})"
