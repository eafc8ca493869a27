"""Finding memories by words among many of one scope, through the store and by a bare query of the same index."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from flux.agents.memory.recall import indexed
from flux.agents.memory.store import DatabaseMemories
from flux.store import memories
from flux.store.database import LOCAL, Steps
from flux.store.opening import open_database
from flux.store.schema import MEMORIES
from tests.benchmarks.frame import Row, Size, median, ms, p95, spent

AREA = "user:1"
VALUE_WORDS = 12
BATCH = 5_000
BARE = "bm25 in a bare query"
#: As one would write it by hand: any of the words, ranked by SQLite.
QUERY = """
select memories.key, memories.value from memory_words join memories on memories.id = memory_words.rowid
where memory_words match :words order by rank limit 20
"""


async def measure(size: Size, home: Path) -> list[Row]:
    """Questions of three words: a common one, one that is less so, and any."""
    chance = random.Random(1)
    words = vocabulary(chance)
    asked = [" ".join((words[n % 10], words[100 + n], chance.choice(words))) for n in range(size.questions)]
    found = await _store(size, home / "memory.db", chance, words, asked)
    bare = _bare(home / "memory.db", asked)
    return [
        Row(name="recall, median", figure=ms(median(found)), unit="ms", target=20, limit=ms(median(bare)),
            limit_is=BARE),
        Row(name="recall, p95", figure=ms(p95(found)), unit="ms", target=20, limit=ms(p95(bare)), limit_is=BARE),
    ]  # fmt: skip


def vocabulary(chance: random.Random) -> list[str]:
    """20,000 words, the most common first."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    return ["".join(chance.choices(letters, k=chance.randint(3, 9))) for _ in range(20_000)]


async def _store(
    size: Size, path: Path, chance: random.Random, words: Sequence[str], asked: Sequence[str]
) -> list[float]:
    """Seconds that each question takes."""
    weights = [1 / n for n in range(1, len(words) + 1)]  # as in natural languages
    texts = (" ".join(chance.choices(words, weights, k=VALUE_WORDS)) for _ in range(size.memories))
    numbered = enumerate(texts)
    database = await open_database(f"sqlite:///{path}", synchronous="normal", schema=MEMORIES)
    for _ in range(0, size.memories, BATCH):
        await database.write(_puts(numbered))
    store = DatabaseMemories(database)
    await store.search(LOCAL, AREA, asked[0])
    found = [(await spent(store.search(LOCAL, AREA, question)))[1].wall for question in asked]
    await database.close()
    return found


def _puts(texts: Iterator[tuple[int, str]]) -> Steps[None]:
    for n, text in texts:
        key = f"note-{n}"
        yield from memories.put(LOCAL, AREA, key, f'"{text}"', indexed(key, f'"{text}"'))
        if n % BATCH == BATCH - 1:
            return


def _bare(path: Path, asked: Sequence[str]) -> list[float]:
    connection = sqlite3.connect(path)
    found = []
    for question in asked:
        words = " OR ".join(f'"{word}"' for word in question.split())
        began = time.perf_counter()
        connection.execute(QUERY, {"words": words}).fetchall()
        found.append(time.perf_counter() - began)
    connection.close()
    return found
