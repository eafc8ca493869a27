"""Who this worker is: its name, its machine, what it offers."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping

import msgspec

import flux
from flux.engine.dispatching.pools import Resources
from flux.errors import InvalidInput
from flux.store.workers import Presence

#: As those of agents and workflows.
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
MAX_HOST_CHARS = 40


def presence(id: str, name: str | None, labels: Mapping[str, str], resources: Resources, concurrency: int) -> Presence:
    """This process as a worker. Without a name it is called by its host and process.

    :raises InvalidInput: it is no name
    """
    if name is not None:
        check_name(name)
    host = socket.gethostname()
    return Presence(
        id,
        name or default_name(host, os.getpid()),
        host,
        os.getpid(),
        flux.__version__,
        _json(labels),
        _json(resources),
        concurrency,
    )


def check_name(name: str) -> None:
    """:raises InvalidInput: it is no name of a worker."""
    if not NAME.fullmatch(name):
        raise InvalidInput(f"name {name[:80]!r} must be a letter followed by at most 63 letters, digits, '-' or '_'")


def default_name(host: str, pid: int) -> str:
    """A name by the rule for names."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", host)[:MAX_HOST_CHARS]
    return f"{plain if plain[:1].isalpha() else f'w-{plain}'}-{pid}"


def _json(value: object) -> str:
    return msgspec.json.encode(value, order="sorted").decode()
