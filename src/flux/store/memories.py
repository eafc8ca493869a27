"""Long-term memories: JSON by key, in an area of a tenant; found by their words.

An area is what users call the scope of a memory, such as "user:123". Flux's own database holds memories, and
so may databases of their own: the programs here run on each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from flux.store.database import Row, Scope, Steps
from flux.store.memory_schema import Kind

#: How many memories a search returns, and how many of those that hold one word it looks at, newest first.
FOUND = 20
LOOKED_AT = 1000
#: Seconds that a write is remembered, so that one that is done again after a crash changes nothing.
REMEMBERED = 7 * 86_400

_COLUMNS = "scope, key, value, created, updated"
#: By nothing but the ids: an index of other columns would read a whole area.
_BY_ID = f"select id, tenant, {_COLUMNS} from memories where id in ({', '.join(f':id{at}' for at in range(FOUND))})"
_HOLDING: dict[Kind, str] = {
    "sqlite": "select rowid from memory_words where memory_words match :words order by rowid desc limit :limit",
    "postgresql": "select id from memories where tenant = :tenant and scope = :area"
    " and lexemes @@ cast(:words as tsquery) order by id desc limit :limit",
}


class Memory(Struct, frozen=True):
    """A memory: its area, its key, its value as JSON text, and its times in seconds since the epoch."""

    area: str
    key: str
    value: str
    created: float
    updated: float


class Word(Struct, frozen=True):
    """A word to look for; with `begins`, any word that begins so."""

    text: str
    begins: bool = False


def put(scope: Scope, area: str, key: str, value: str, words: Sequence[str], call: str | None = None) -> Steps[bool]:
    """Set a memory; False when the same `call` has done so before: then nothing changes."""
    if not (yield from _first(scope, call)):
        return False
    yield (
        "insert into memories (tenant, scope, key, value, words, created, updated)"
        " values (:tenant, :area, :key, :value, :words, :now, :now)"
        " on conflict (tenant, scope, key) do update"
        " set value = excluded.value, words = excluded.words, updated = excluded.updated",
        _place(scope, area) | {"key": key, "value": value, "words": " ".join([_mark(scope, area), *words])},
    )
    return True


def remove(scope: Scope, area: str, key: str, call: str | None = None) -> Steps[bool]:
    """Forget a memory; False when there is none, or the same `call` has done so before."""
    if not (yield from _first(scope, call)):
        return False
    rows = yield (
        "delete from memories where tenant = :tenant and scope = :area and key = :key returning key",
        _place(scope, area) | {"key": key},
    )
    return bool(rows)


def get(scope: Scope, area: str, key: str) -> Steps[Memory | None]:
    """A memory by its key."""
    rows = yield (
        f"select {_COLUMNS} from memories where tenant = :tenant and scope = :area and key = :key",
        _place(scope, area) | {"key": key},
    )
    return Memory(*rows[0]) if rows else None


def find(scope: Scope, key: str, limit: int = 5) -> Steps[list[Memory]]:
    """Memories with this key in any area, by area."""
    rows = yield (
        f"select {_COLUMNS} from memories where tenant = :tenant and key = :key order by scope limit :limit",
        {"tenant": scope.tenant, "key": key, "limit": limit},
    )
    return [Memory(*row) for row in rows]


def newest(scope: Scope, area: str, limit: int = FOUND) -> Steps[list[Memory]]:
    """The memories written last, newest first."""
    rows = yield (
        f"select {_COLUMNS} from memories where tenant = :tenant and scope = :area"
        " order by updated desc, id desc limit :limit",
        _place(scope, area) | {"limit": limit},
    )
    return [Memory(*row) for row in rows]


def keys(scope: Scope, area: str, after: str = "", limit: int = 50) -> Steps[list[str]]:
    """Keys in order, behind `after`."""
    rows = yield (
        "select key from memories where tenant = :tenant and scope = :area and key > :after order by key limit :limit",
        _place(scope, area) | {"after": after, "limit": limit},
    )
    return [row[0] for row in rows]


def page(
    scope: Scope, area: str | None = None, after: tuple[str, str] = ("", ""), limit: int = 50
) -> Steps[list[Memory]]:
    """Memories of an area, or of all, by area and key, behind those of `after`."""
    one_area = "" if area is None else " and scope = :area"
    rows = yield (
        f"select {_COLUMNS} from memories where tenant = :tenant{one_area}"
        " and (scope, key) > (:after_area, :after_key) order by scope, key limit :limit",
        {
            "tenant": scope.tenant,
            "after_area": after[0],
            "after_key": after[1],
            "limit": limit,
            **({} if area is None else {"area": area}),
        },
    )
    return [Memory(*row) for row in rows]


def how(postgres: bool) -> Steps[Kind]:
    """How this database finds words; a file made without FTS5 is read through."""
    if postgres:
        return "postgresql"
    rows = yield "select 1 from sqlite_master where name = 'memory_words'", {}
    return "sqlite" if rows else "plain"


def holding(scope: Scope, area: str, kind: Kind, words: Sequence[Word]) -> Steps[list[int]]:
    """The ids of memories that hold every one of these words, newest first, at most `LOOKED_AT`."""
    if kind == "plain":
        return (yield from _holding_plain(scope, area, words))
    mark = Word(_mark(scope, area))
    asked = _fts5([mark, *words]) if kind == "sqlite" else _tsquery([mark, *words])
    rows = yield _HOLDING[kind], _place(scope, area) | {"words": asked, "limit": LOOKED_AT}
    return [row[0] for row in rows]


def by_id(scope: Scope, area: str, ids: Sequence[int]) -> Steps[list[Memory]]:
    """At most `FOUND` memories by their ids, in this order."""
    wanted = {f"id{at}": ids[at] if at < len(ids) else -1 for at in range(FOUND)}
    rows: list[Row] = yield _BY_ID, wanted
    found = {row[0]: Memory(*row[2:]) for row in rows if row[1:3] == (scope.tenant, area)}
    return [found[id] for id in ids[:FOUND] if id in found]


def _holding_plain(scope: Scope, area: str, words: Sequence[Word]) -> Steps[list[int]]:
    """The same without an index. Words hold no wildcards."""
    holds = "".join(f" and ' ' || words || ' ' like :word{place}" for place in range(len(words)))
    patterns = {f"word{place}": f"% {word.text}{'' if word.begins else ' '}%" for place, word in enumerate(words)}
    rows = yield (
        f"select id from memories where tenant = :tenant and scope = :area{holds} order by id desc limit :limit",
        _place(scope, area) | patterns | {"limit": LOOKED_AT},
    )
    return [row[0] for row in rows]


def _fts5(words: Sequence[Word]) -> str:
    return " AND ".join(f'"{word.text}"{"*" if word.begins else ""}' for word in words)


def _tsquery(words: Sequence[Word]) -> str:
    return " & ".join(f"'{word.text}'{':*' if word.begins else ''}" for word in words)


def _first(scope: Scope, call: str | None) -> Steps[bool]:
    """Whether a call writes for the first time; one without a name always does."""
    if call is None:
        return True
    rows = yield (
        "insert into memory_writes (tenant, call, at) values (:tenant, :call, :now)"
        " on conflict (tenant, call) do nothing returning call",
        {"tenant": scope.tenant, "call": call},
    )
    yield "delete from memory_writes where at < :now - :remembered", {"remembered": REMEMBERED}
    return bool(rows)


def _mark(scope: Scope, area: str) -> str:
    """A word that all memories of an area hold and no others: it keeps a search inside the area."""
    return "area" + hashlib.sha256(f"{scope.tenant}\0{area}".encode()).hexdigest()[:24]


def _place(scope: Scope, area: str) -> dict[str, Any]:
    return {"tenant": scope.tenant, "area": area}
