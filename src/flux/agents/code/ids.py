"""Names of instances, sessions and harnesses, which applications choose."""

from __future__ import annotations

from flux.errors import InvalidInput

MAX_CHARS = 256


def check_id(what: str, id: object) -> str:
    """A name as it was given; any printable characters are as good as others.

    :raises InvalidInput: it is empty, too long, or cannot be printed
    """
    if not isinstance(id, str):
        raise InvalidInput(f"{what} must be text, not {type(id).__name__}")
    if not 0 < len(id) <= MAX_CHARS:
        raise InvalidInput(f"{what} must have 1 to {MAX_CHARS} characters, not {len(id):,}")
    if not id.isprintable():
        raise InvalidInput(f"{what} {id!r} holds characters that cannot be printed")
    return id
