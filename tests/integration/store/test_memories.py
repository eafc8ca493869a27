"""Long-term memories: each store keeps, finds and forgets them alike."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flux.agents.memory.recall import words_of
from flux.agents.memory.store import MAX_KEY, MAX_VALUE, DatabaseMemories, MemoryStore, ProcessMemories
from flux.errors import DatabaseUnavailable, InvalidInput, TooLarge
from flux.store.database import Database, one
from flux.store.memories import REMEMBERED, Memory
from flux.store.opening import open_database
from flux.store.schema import MEMORIES
from tests.integration.conftest import Open
from tests.integration.states import ANN, BOB, EVE
from tests.integration.store.raw import run

HERE = "user:1"


async def without_fts5(path: Path) -> Database:
    """A file as a SQLite without FTS5 would have made it."""
    url = f"sqlite:///{path}"
    await (await open_database(url, schema=MEMORIES)).close()
    for trigger in ("added", "removed", "changed"):
        run(url, f"drop trigger memories_{trigger}")
    run(url, "drop table memory_words")
    return await open_database(url, schema=MEMORIES)


@pytest.fixture(params=["sqlite", "postgres", "memories alone", "without FTS5", "in memory"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[MemoryStore]:
    async with AsyncExitStack() as stack:
        if request.param == "in memory":
            yield ProcessMemories(time.time)
            return
        if request.param == "without FTS5":
            database = await without_fts5(tmp_path / "plain.db")
        elif request.param == "memories alone":
            database = await open_database(f"sqlite:///{tmp_path / 'alone.db'}", schema=MEMORIES)
        else:
            database = await open_database(request.getfixturevalue(f"{request.param}_url"), synchronous="normal")
        stack.push_async_callback(database.close)
        yield DatabaseMemories(database)


def plain(found: list[Memory]) -> dict[str, Any]:
    return {memory.key: msgspec.json.decode(memory.value) for memory in found}


async def keys_found(store: MemoryStore, question: str) -> list[str]:
    return [memory.key for memory in await store.search(ANN, HERE, question)]


@pytest.mark.behaviour("memory:store:keeps")
async def test_what_is_put_is_got_again_until_it_is_forgotten(store: MemoryStore) -> None:
    await store.put(ANN, HERE, "city", "Rome")
    await store.put(ANN, HERE, "pets", {"cats": ["Mia", "Tom"], "dogs": None, "count": 2})
    first = await store.get(ANN, HERE, "city")
    await store.put(ANN, HERE, "city", "Paris")
    second = await store.get(ANN, HERE, "city")
    assert first is not None
    assert second is not None
    assert first.created == second.created <= second.updated
    assert await keys_found(store, "Rome") == []
    assert await keys_found(store, "Paris") == ["city"]
    assert plain(await store.newest(ANN, HERE)) == {
        "city": "Paris",
        "pets": {"cats": ["Mia", "Tom"], "dogs": None, "count": 2},
    }
    assert await store.forget(ANN, HERE, "city")
    assert not await store.forget(ANN, HERE, "city")
    assert await store.get(ANN, HERE, "city") is None
    assert await store.keys(ANN, HERE) == ["pets"]
    assert await keys_found(store, "Paris") == []


@pytest.mark.behaviour("memory:store:areas-apart")
async def test_areas_and_tenants_are_apart(store: MemoryStore) -> None:
    await store.put(ANN, HERE, "city", "Rome")
    await store.put(ANN, "user:2", "city", "Oslo")
    await store.put(EVE, HERE, "city", "Minsk")
    assert plain(await store.search(ANN, HERE, "city Rome Oslo Minsk")) == {"city": "Rome"}
    assert plain(await store.newest(BOB, HERE)) == {"city": "Rome"}
    assert [(m.area, m.value) for m in await store.page(ANN)] == [(HERE, '"Rome"'), ("user:2", '"Oslo"')]
    assert [m.area for m in await store.page(ANN, limit=1)] == [HERE]
    assert [m.area for m in await store.page(ANN, after=(HERE, "city"))] == ["user:2"]
    assert [m.area for m in await store.page(ANN, "user:2")] == ["user:2"]
    assert [m.area for m in await store.find(ANN, "city")] == [HERE, "user:2"]
    assert await store.forget(EVE, HERE, "city")
    assert await store.keys(EVE, HERE) == []
    assert plain(await store.search(ANN, HERE, "rome")) == {"city": "Rome"}


@pytest.mark.behaviour("memory:store:search")
@pytest.mark.parametrize(
    ("question", "found"),
    [
        ("colour", ["favourite_colour"]),
        ("FAVOURITE", ["favourite_colour", "favourite-food"]),
        ("what is the favourite food?", ["favourite-food", "favourite_colour"]),
        ("deploy", ["rule 1"]),
        ("creme brulee", ["favourite-food"]),
        ("crème", ["favourite-food"]),
        ("東京", ["address"]),
        ("example", ["mail"]),
        ("ann@example.com", ["mail"]),
        ("straße", ["address"]),
        ("42", ["address"]),
        ("'; drop table memories; --", []),
        ('"colour* NEAR (', ["favourite_colour"]),
        ("% _", []),
        ("", []),
    ],
)
async def test_questions_find_memories_by_their_words(store: MemoryStore, question: str, found: list[str]) -> None:
    await store.put(ANN, HERE, "favourite-food", "Crème brûlée")
    await store.put(ANN, HERE, "favourite_colour", "a deep blue")
    await store.put(ANN, HERE, "rule 1", "no deployments on Fridays")
    await store.put(ANN, HERE, "mail", "ann@example.com, or bob@work.org")
    await store.put(ANN, HERE, "address", {"street": "Strasse 42", "town": "東京都"})
    assert await keys_found(store, question) == found


@pytest.mark.behaviour("memory:store:search")
async def test_all_words_come_before_some_and_rare_ones_before_common_ones(store: MemoryStore) -> None:
    await store.put(ANN, HERE, "both", "zebra report")
    for n in range(30):
        await store.put(ANN, HERE, f"report {n:02}", "monthly report")
    await store.put(ANN, HERE, "rare", "a zebra")
    assert (await keys_found(store, "zebra report"))[:4] == ["both", "rare", "report 29", "report 28"]
    assert len(await keys_found(store, "report")) == 20
    assert len(await store.newest(ANN, HERE)) == 20
    assert await store.keys(ANN, HERE, after="report 27") == ["report 28", "report 29"]


@pytest.mark.behaviour("memory:store:once")
async def test_a_call_that_is_done_again_does_not_undo_what_others_wrote(store: MemoryStore) -> None:
    await store.put(ANN, HERE, "city", "Rome", call="a")
    await store.put(ANN, HERE, "city", "Paris", call="b")
    await store.put(ANN, HERE, "city", "Rome", call="a")
    assert plain(await store.newest(ANN, HERE)) == {"city": "Paris"}
    assert await store.forget(ANN, HERE, "city", call="c")
    await store.put(ANN, HERE, "city", "Oslo", call="d")
    assert not await store.forget(ANN, HERE, "city", call="c")
    assert plain(await store.newest(ANN, HERE)) == {"city": "Oslo"}


@pytest.mark.behaviour("memory:store:once")
async def test_calls_are_forgotten_after_some_days(database: Database) -> None:
    store = DatabaseMemories(database)
    await store.put(ANN, HERE, "city", "Rome", call="a")
    await database.write(one("update memory_writes set at = at - :age", age=REMEMBERED + 60))
    await store.put(ANN, HERE, "city", "Paris", call="b")
    assert await database.read(one("select call from memory_writes")) == [("b",)]


@pytest.mark.behaviour("memory:store:writers")
async def test_writers_side_by_side_lose_nothing(open_another: Open) -> None:
    stores = [DatabaseMemories(await open_another()) for _ in range(3)]
    await asyncio.gather(
        *(store.put(ANN, HERE, f"{at}-{n}", f"note {n}") for at, store in enumerate(stores) for n in range(20)),
        *(store.put(ANN, HERE, "shared", f"by {at}") for at, store in enumerate(stores)),
    )
    assert len(await stores[0].keys(ANN, HERE)) == 61
    assert len(await stores[1].search(ANN, HERE, "shared")) == 1
    assert len(await stores[2].search(ANN, HERE, "17")) == 3


@pytest.mark.behaviour("memory:store:limits")
@pytest.mark.parametrize("key", ["", "k" * (MAX_KEY + 1), "two\nlines", "nul\0", " spaced", "..", "half \ud800"])
async def test_a_key_that_cannot_be_kept_is_refused(store: MemoryStore, key: str) -> None:
    with pytest.raises(InvalidInput, match="memory key"):
        await store.put(ANN, HERE, key, "x")


@pytest.mark.behaviour("memory:store:limits")
async def test_a_value_that_cannot_be_kept_is_refused(store: MemoryStore) -> None:
    await store.put(ANN, HERE, "k" * MAX_KEY, "v" * (MAX_VALUE - 2))
    await store.put(ANN, HERE, "odd", "nul\0 and more")
    assert plain(await store.search(ANN, HERE, "more")) == {"odd": "nul\0 and more"}
    with pytest.raises(TooLarge, match="100,001 bytes"):
        await store.put(ANN, HERE, "big", "v" * (MAX_VALUE - 1))
    for value in ("half \ud800", object()):
        with pytest.raises(InvalidInput, match="memory value"):
            await store.put(ANN, HERE, "odd", value)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)


@pytest.mark.behaviour("memory:store:search")
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=TEXT, question=TEXT)
async def test_any_text_is_found_by_each_of_its_words_and_no_question_fails(
    store: MemoryStore, text: str, question: str
) -> None:
    await store.put(ANN, HERE, "note", text)
    await store.search(ANN, HERE, question)
    for word in words_of(text):
        assert await keys_found(store, word) == ["note"]


@pytest.mark.behaviour("memory:store:search")
async def test_many_different_words_can_be_kept_and_found(store: MemoryStore) -> None:
    await store.put(ANN, HERE, "words", " ".join(f"w{n}" for n in range(15_000)))
    assert await keys_found(store, "w14999") == ["words"]


@pytest.mark.behaviour("memory:store:own-database")
async def test_a_database_of_its_own_holds_memories_alone(database_url: str) -> None:
    database = await open_database(database_url, schema=MEMORIES)
    await DatabaseMemories(database).put(ANN, HERE, "city", "Rome")
    await database.close()
    again = await open_database(database_url, schema=MEMORIES)
    assert plain(await DatabaseMemories(again).newest(ANN, HERE)) == {"city": "Rome"}
    await again.close()
    with pytest.raises(Exception, match=r"events"):
        run(database_url, "select * from events")


@pytest.mark.behaviour("memory:store:own-database")
async def test_a_table_of_somebody_else_is_left_alone(database_url: str, tmp_path: Path) -> None:
    run(database_url, "create table memories (mine text)")
    with pytest.raises(DatabaseUnavailable, match="holds something else"):
        await open_database(database_url, schema=MEMORIES)
    assert run(database_url, "select * from memories") == []
    other = tmp_path / "letter.txt"
    other.write_text("Dear Ann, " * 500)
    with pytest.raises(DatabaseUnavailable, match="not a database"):
        await open_database(f"sqlite:///{other}", schema=MEMORIES)
    assert other.read_text() == "Dear Ann, " * 500
