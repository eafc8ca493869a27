"""What every session store must do, as checks that can be run against any, and a store in memory.

@pytest.mark.parametrize("name", CHECKS)
def test_contract(name: str) -> None:
    asyncio.run(check(name, MyStore))
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable

from flux.agents.code.stores import SessionKey, SessionStore

__all__ = ["CHECKS", "Broken", "MemorySessionStore", "SessionKey", "SessionStore", "check"]

Open = Callable[[], SessionStore | Awaitable[SessionStore]]
Check = Callable[[SessionStore], Awaitable[None]]

CHECKS: dict[str, Check] = {}
"""The checks by name. Each gets a store of its own, which keeps nothing yet."""

KEY = SessionKey("desk", "t-1", "default")
#: Keys that must not be taken for one another.
KEYS = (
    KEY,
    SessionKey("desk", "t-1/default", "x"),
    SessionKey("desk", "t-1", "default/x"),
    SessionKey("desk/t-1", "default", "x"),
    SessionKey("desk", "..", "default"),
    SessionKey("desk", "../desk", "default"),
    SessionKey("DESK", "t-1", "default"),
    SessionKey("desk", "T-1", "default"),
    SessionKey("desk", "t-1 ", "default"),
    SessionKey("desk", "ünï☃", "default"),
    SessionKey("desk", "%2e%2e", "default"),
    SessionKey("desk", "x" * 256, "y" * 256),
)


class Broken(AssertionError):
    """A store does not keep the contract; says where."""


class MemorySessionStore(SessionStore):
    """Keeps conversations in this process. `saved` has what it keeps, by key."""

    def __init__(self) -> None:
        self.saved: dict[SessionKey, bytes] = {}

    async def load(self, key: SessionKey) -> bytes | None:
        """What was saved last under a key."""
        return self.saved.get(key)

    async def save(self, key: SessionKey, data: bytes) -> None:
        """Keep this under a key."""
        self.saved[key] = data

    async def delete(self, key: SessionKey) -> None:
        """Keep nothing under a key."""
        self.saved.pop(key, None)


async def check(name: str, open_store: Open) -> None:
    """Run one check against a new store.

    :raises Broken: it does not keep the contract
    """
    made = open_store()
    await CHECKS[name](await made if inspect.isawaitable(made) else made)


def _check(function: Check) -> Check:
    CHECKS[function.__name__] = function
    return function


def _same(what: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise Broken(f"{what}: {str(found)[:200]}, not {str(wanted)[:200]}")


@_check
async def nothing_is_there_before_it_is_saved(store: SessionStore) -> None:
    """A store knows no keys by itself."""
    _same("a key that was never saved", await store.load(KEY), None)
    await store.delete(KEY)


@_check
async def what_is_saved_last_is_loaded(store: SessionStore) -> None:
    """A value replaces the one before, byte for byte."""
    for data in (b"first", b"", bytes(range(256)) * 4_000, "last ☃\n".encode()):
        await store.save(KEY, data)
        _same("what was saved", await store.load(KEY), data)


@_check
async def what_is_deleted_is_gone(store: SessionStore) -> None:
    """And may come again."""
    await store.save(KEY, b"data")
    await store.delete(KEY)
    _same("what was deleted", await store.load(KEY), None)
    await store.save(KEY, b"again")
    _same("what was saved again", await store.load(KEY), b"again")


@_check
async def keys_are_apart_whatever_characters_they_hold(store: SessionStore) -> None:
    """No key reads, replaces or deletes what is another's."""
    for n, key in enumerate(KEYS):
        await store.save(key, str(n).encode())
    for n, key in enumerate(KEYS):
        _same(str(key), await store.load(key), str(n).encode())
    await store.delete(KEYS[1])
    for key in KEYS:
        _same(f"{key} is gone", await store.load(key) is None, key == KEYS[1])
