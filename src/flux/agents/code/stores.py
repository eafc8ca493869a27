"""SessionStore: a place of the application's own where conversations are kept besides the database.

The log stays the truth. A store is asked once, when a session is made, and told after each operation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from flux.agents.history.transcript import Transcript
from flux.agents.service.forking import close
from flux.errors import InvalidInput
from flux.events import Entry, SessionStarted, Stored, decode, encode
from flux.store.log import History


class SessionKey(Struct, frozen=True):
    """Whose conversation it is. Any printable characters may be in each part."""

    agent: str
    instance: str
    session: str


class SessionStore(Protocol):
    """Keeps one value per key. What it raises is raised by the operation that asked it.

    `flux.testing.session_stores` has its contract, as checks.
    """

    async def load(self, key: SessionKey) -> bytes | None:
        """What was saved last under a key; None when nothing was, or it was deleted."""
        ...

    async def save(self, key: SessionKey, data: bytes) -> None:
        """Keep this under a key, in place of what was there."""
        ...

    async def delete(self, key: SessionKey) -> None:
        """Keep nothing under a key; no error when nothing was."""
        ...


def exported(entries: Sequence[Stored]) -> bytes:
    """A conversation for a store: its entries, a line of JSON each."""
    return b"\n".join(encode(stored.entry) for stored in entries)


async def loaded(store: SessionStore, key: SessionKey) -> History:
    """What a new session begins with.

    :raises InvalidInput: what the store keeps is no conversation
    """
    data = await store.load(key)
    return History() if data is None else imported(data)


def imported(data: bytes) -> History:
    """The entries of a conversation behind the one that begins a session. An open run is closed.

    :raises InvalidInput: it is none
    """
    try:
        found = [decode(line) for line in data.split(b"\n") if line]
    except ValueError as error:  # of msgspec, for what is no JSON or no entry
        raise InvalidInput(f"persist: what the session store keeps is no conversation: {error}") from error
    entries = [entry for entry in found if isinstance(entry, Entry) and not isinstance(entry, SessionStarted)]
    stored = [Stored(n, 0, 0.0, entry) for n, entry in enumerate(entries, 2)]
    transcript = Transcript().extend(stored)
    *ending, _ = close(transcript, "", len(stored) + 1)  # without the mark of a fork
    turns = transcript.turns + sum(getattr(entry, "turn", 0) > 0 for entry in ending)
    return History((*entries, *ending), turns)


def check_store(store: object) -> None:
    """Refuse what is no store.

    :raises InvalidInput: it is none
    """
    missing = [name for name in ("load", "save", "delete") if not callable(getattr(store, name, None))]
    if missing:
        raise InvalidInput(f"persist: a session store has {', '.join(missing)}(); {type(store).__name__} does not")
