"""Providers as the code of an application configures them: an address, headers, a gateway, or models of its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import get_args

from msgspec import Struct

from flux.errors import SettingsInvalid
from flux.models.base import Model
from flux.models.endpoint import Wire, problem_of

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class Configured(Struct, frozen=True):
    """A provider of this process. What it does not say is as it would be without it."""

    base_url: str | None = None
    api_key: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    wire: Wire | None = None
    model: Callable[[str], Model] | None = None

    def __repr__(self) -> str:
        return f"Configured({self.base_url!r})"  # the rest may be secret


_providers: dict[str, Configured] = {}


def configure_provider(
    name: str,
    *,
    base_url: str | None = None,
    api_key: str | None = None,
    headers: Mapping[str, str] | None = None,
    wire: Wire | None = None,
    model: Callable[[str], Model] | None = None,
) -> None:
    """Say how the provider `name` is reached by this process: a known one, through a gateway, or one of its own.

    `headers` are sent with every request. `wire` is the format that a new one speaks, "openai-chat" by default.
    `model` makes a model of what follows the `/` of its name, without any address. Said again, it counts anew.

    :raises SettingsInvalid: the field that it names cannot be used
    """
    if not _NAME.fullmatch(name):
        raise SettingsInvalid(f"configure_provider: {name[:80]!r} cannot be the name of a provider")
    if model is not None and (base_url or api_key or headers or wire):
        raise SettingsInvalid(f"configure_provider {name}: model= makes models without an address; give it alone")
    if base_url is not None and (problem := problem_of(base_url)) is not None:
        raise SettingsInvalid(f"configure_provider {name}: base_url {problem}")
    if wire is not None and wire not in get_args(Wire):
        raise SettingsInvalid(f"configure_provider {name}: wire must be one of {', '.join(get_args(Wire))}")
    for key, value in (headers or {}).items():
        if not _HEADER.fullmatch(key) or not value.isprintable() or not value.isascii():
            raise SettingsInvalid(f"configure_provider {name}: headers: {key[:80]!r} is no header of text on one line")
    _providers[name] = Configured(base_url, api_key, tuple((headers or {}).items()), wire, model)


def forget_provider(name: str) -> None:
    """Take back what `configure_provider` has said; nothing when it has said nothing."""
    _providers.pop(name, None)


def configured(name: str) -> Configured | None:
    """What code has said of a provider."""
    return _providers.get(name)


def names() -> frozenset[str]:
    """The providers of which code has said something."""
    return frozenset(_providers)
