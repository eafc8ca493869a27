"""Long-term memory: what agents note down, for later sessions and for each other."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import msgspec

from flux import redaction
from flux.agents.memory.recall import asked, begins, indexed, ranked, search
from flux.errors import DatabaseLocked, DatabaseUnavailable, InvalidInput, TooLarge, Unavailable
from flux.store import memories
from flux.store.database import Database, Scope, Steps
from flux.store.memories import FOUND, Memory

T = TypeVar("T")

MAX_KEY = 256
MAX_VALUE = 100_000
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class MemoryStore(Protocol):
    """Keeps memories: any JSON by key, in areas of tenants ("scope" is what users call an area).

    A write with the id of a `call` happens once, however often it is done: a call that is run again after a
    crash neither doubles nor undoes what others wrote meanwhile. Every method may raise Unavailable.
    """

    async def put(self, scope: Scope, area: str, key: str, value: Any, call: str | None = None) -> None:
        """Set a memory.

        :raises InvalidInput, TooLarge: the key or the value cannot be kept
        """
        ...

    async def forget(self, scope: Scope, area: str, key: str, call: str | None = None) -> bool:
        """Forget a memory; False when there was none."""
        ...

    async def get(self, scope: Scope, area: str, key: str) -> Memory | None:
        """A memory by its key."""
        ...

    async def search(self, scope: Scope, area: str, question: str) -> list[Memory]:
        """The memories that fit a question best, best first; at most 20."""
        ...

    async def newest(self, scope: Scope, area: str) -> list[Memory]:
        """The memories written last, newest first; at most 20."""
        ...

    async def keys(self, scope: Scope, area: str, after: str = "", limit: int = 200) -> list[str]:
        """Keys in order, behind `after`."""
        ...

    async def find(self, scope: Scope, key: str) -> list[Memory]:
        """Memories with this key in any area; at most 5."""
        ...

    async def page(
        self, scope: Scope, area: str | None = None, after: tuple[str, str] = ("", ""), limit: int = 50
    ) -> list[Memory]:
        """Memories of an area, or of all, by area and key, behind those of `after`."""
        ...


def check_key(key: str) -> None:
    """Refuse a key that cannot be kept.

    :raises InvalidInput: it is such a key
    """
    if not 0 < len(key) <= MAX_KEY:
        raise InvalidInput(f"memory key: use 1 to {MAX_KEY} characters, not {len(key)}")
    if _CONTROL.search(key) or key != key.strip() or key in (".", ".."):
        raise InvalidInput(f"memory key: {key[:80]!r} cannot be one; use plain text on one line without spaces around")
    if redaction.text(key) != key:
        raise InvalidInput("memory key: it holds a secret; name the memory by something else")


def encode_value(value: Any) -> str:
    """The stored form of a value, without the secrets that are known.

    :raises InvalidInput: it is not JSON
    :raises TooLarge: it takes more than `MAX_VALUE` bytes
    """
    try:
        encoded = msgspec.json.encode(redaction.value(msgspec.to_builtins(value)))
    except (TypeError, ValueError, RecursionError) as error:  # ValueError: half of a surrogate pair
        raise InvalidInput("memory value: it is not text or JSON") from error
    if len(encoded) > MAX_VALUE:
        raise TooLarge(f"memory value: {len(encoded):,} bytes are more than {MAX_VALUE:,}; keep the essence")
    return encoded.decode()


class DatabaseMemories:
    """Memories in a database: Flux's own, or one of their own. `hide` takes out of errors what nobody may read."""

    def __init__(self, database: Database, hide: Callable[[str], str] = str) -> None:
        self._database = database
        self._postgres = not database.url.startswith("sqlite:")
        self._hide = hide

    async def put(self, scope: Scope, area: str, key: str, value: Any, call: str | None = None) -> None:
        """Set a memory."""
        check_key(key)
        encoded = encode_value(value)
        await self._write(memories.put(scope, area, key, encoded, indexed(key, encoded), call))

    async def forget(self, scope: Scope, area: str, key: str, call: str | None = None) -> bool:
        """Forget a memory; False when there was none."""
        return await self._write(memories.remove(scope, area, key, call))

    async def get(self, scope: Scope, area: str, key: str) -> Memory | None:
        """A memory by its key."""
        return await self._read(memories.get(scope, area, key))

    async def search(self, scope: Scope, area: str, question: str) -> list[Memory]:
        """The memories that fit a question best, best first."""
        return await self._read(search(scope, area, question, postgres=self._postgres))

    async def newest(self, scope: Scope, area: str) -> list[Memory]:
        """The memories written last, newest first."""
        return await self._read(memories.newest(scope, area))

    async def keys(self, scope: Scope, area: str, after: str = "", limit: int = 200) -> list[str]:
        """Keys in order, behind `after`."""
        return await self._read(memories.keys(scope, area, after, limit))

    async def find(self, scope: Scope, key: str) -> list[Memory]:
        """Memories with this key in any area."""
        return await self._read(memories.find(scope, key))

    async def page(
        self, scope: Scope, area: str | None = None, after: tuple[str, str] = ("", ""), limit: int = 50
    ) -> list[Memory]:
        """Memories of an area, or of all, by area and key, behind those of `after`."""
        return await self._read(memories.page(scope, area, after, limit))

    async def _write(self, steps: Steps[T]) -> T:
        with self._hidden():
            return await self._database.write(steps)

    async def _read(self, steps: Steps[T]) -> T:
        with self._hidden():
            return await self._database.scan(steps)

    @contextmanager
    def _hidden(self) -> Iterator[None]:
        try:
            yield
        except (DatabaseUnavailable, DatabaseLocked) as error:
            raise Unavailable(self._hide(f"long-term memory: {error}")) from None


class ProcessMemories:
    """Memories that last as long as this process."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._count = 0
        self._kept: dict[tuple[str, str, str], tuple[int, Memory, list[str]]] = {}
        self._calls: dict[tuple[str, str], None] = {}

    async def put(self, scope: Scope, area: str, key: str, value: Any, call: str | None = None) -> None:
        """Set a memory."""
        check_key(key)
        encoded = encode_value(value)
        if not self._first(scope, call):
            return
        place = (scope.tenant, area, key)
        id, before, _ = self._kept.get(place, (self._count, None, []))
        self._count += 1
        now = self._clock()
        memory = Memory(area, key, encoded, before.created if before else now, now)
        self._kept.pop(place, None)  # what is written last stands last
        self._kept[place] = (id, memory, indexed(key, encoded))

    async def forget(self, scope: Scope, area: str, key: str, call: str | None = None) -> bool:
        """Forget a memory; False when there was none."""
        return self._first(scope, call) and self._kept.pop((scope.tenant, area, key), None) is not None

    async def get(self, scope: Scope, area: str, key: str) -> Memory | None:
        """A memory by its key."""
        found = self._kept.get((scope.tenant, area, key))
        return found[1] if found else None

    async def search(self, scope: Scope, area: str, question: str) -> list[Memory]:
        """The memories that fit a question best, best first."""
        here = [found for place, found in self._kept.items() if place[:2] == (scope.tenant, area)]
        hits: dict[str, list[int]] = {}
        for word in asked(question):
            exact = [id for id, _, words in here if word in words]
            more = begins(word, len(exact))
            hits[word] = [id for id, _, words in here if any(w.startswith(word) for w in words)] if more else exact
        every = [set(ids) for ids in hits.values()]
        whole = sorted(set.intersection(*every)) if len(every) > 1 else []
        by_id = {id: memory for id, memory, _ in here}
        return [by_id[id] for id in ranked(hits, whole)]

    async def newest(self, scope: Scope, area: str) -> list[Memory]:
        """The memories written last, newest first."""
        return self._of(scope, area)[::-1][:FOUND]

    async def keys(self, scope: Scope, area: str, after: str = "", limit: int = 200) -> list[str]:
        """Keys in order, behind `after`."""
        return sorted(memory.key for memory in self._of(scope, area) if memory.key > after)[:limit]

    async def find(self, scope: Scope, key: str) -> list[Memory]:
        """Memories with this key in any area."""
        return [memory for memory in await self.page(scope, limit=len(self._kept)) if memory.key == key][:5]

    async def page(
        self, scope: Scope, area: str | None = None, after: tuple[str, str] = ("", ""), limit: int = 50
    ) -> list[Memory]:
        """Memories of an area, or of all, by area and key, behind those of `after`."""
        found = sorted(self._of(scope, area), key=lambda memory: (memory.area, memory.key))
        return [memory for memory in found if (memory.area, memory.key) > after][:limit]

    def _of(self, scope: Scope, area: str | None) -> list[Memory]:
        return [
            memory
            for (tenant, place, _), (_, memory, _) in self._kept.items()
            if tenant == scope.tenant and area in (None, place)
        ]

    def _first(self, scope: Scope, call: str | None) -> bool:
        """Whether a call writes for the first time."""
        if call is None:
            return True
        before = len(self._calls)
        self._calls[(scope.tenant, call)] = None
        return len(self._calls) > before
