"""The routes of long-term memories."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from flux.client.memories import MemoriesClient
from flux.errors import AgentNotFound, InvalidInput, MemoryNotFound
from flux.store.database import LOCAL, Scope
from tests.integration.server.models import says
from tests.integration.server.serving import Served, serving
from tests.integration.server.test_sessions import call, refused

EVE = Scope("evil", "local")


@pytest.fixture(params=["in-process", "socket"])
async def served(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Served]:
    """A running server of the test's own: its list of memories begins empty."""
    async with serving(tmp_path, in_process=request.param == "in-process") as running:
        yield running


async def remember(served: Served, area: str, **values: Any) -> None:
    for key, value in values.items():
        await served.process.memory_stores.own.put(LOCAL, area, key, value)


@pytest.mark.behaviour("server:memories:life")
async def test_memories_are_listed_page_by_page_shown_and_forgotten(served: Served) -> None:
    memories = MemoriesClient(served.client)
    await remember(served, "user:1", city="Rome", pets={"cats": 2})
    await remember(served, "user:2", city="Oslo", long="x" * 5_000)
    await served.process.memory_stores.own.put(EVE, "user:1", "city", "Minsk")
    first = await call(served, "GET", "/memories?limit=3", 200)
    assert [(row["scope"], row["key"]) for row in first["items"]] == [
        ("user:1", "city"), ("user:1", "pets"), ("user:2", "city")
    ]  # fmt: skip
    second = await call(served, "GET", f"/memories?limit=3&cursor={first['next_cursor']}", 200)
    assert second["next_cursor"] is None
    assert [len(row["preview"]) for row in second["items"]] == [200]
    assert set(second["items"][0]) == {"scope", "key", "created_at", "updated_at", "preview"}
    assert [row["key"] async for row in memories.list(scope="user:1")] == ["city", "pets"]
    assert (await memories.get("pets"))["value"] == {"cats": 2}
    assert (await memories.get("city", scope="user:2"))["value"] == "Oslo"
    with pytest.raises(InvalidInput, match="'user:1', 'user:2'; say which"):
        await memories.get("city")
    assert (await memories.forget("city", scope="user:1"))["scope"] == "user:1"
    assert (await memories.get("city"))["value"] == "Oslo"
    with pytest.raises(MemoryNotFound, match="no memory 'city' in the scope 'user:1'"):
        await memories.forget("city", scope="user:1")
    kept = await served.process.memory_stores.own.get(EVE, "user:1", "city")
    assert kept is not None
    assert kept.value == '"Minsk"'


@pytest.mark.behaviour("server:memories:life")
@pytest.mark.parametrize("key", ["a/b", "/", "a b?c=d&e#f", "東京", "%2F", "50% off", "..a"])
async def test_any_key_has_an_address(served: Served, key: str) -> None:
    memories = MemoriesClient(served.client)
    await remember(served, "odd", **{key: 1})
    assert (await memories.get(key))["value"] == 1
    assert (await memories.forget(key, scope="odd"))["key"] == key
    with pytest.raises(MemoryNotFound):
        await memories.get(key, scope="odd")


@pytest.mark.behaviour("server:memories:agents")
async def test_an_agent_says_whose_memory(served: Served) -> None:
    memories = MemoriesClient(served.client)
    agent = await served.agent(says("hi"), long_term_memory={"provider": "sqlite", "connection": "m.db", "scope": "s"})
    plain = await served.agent(says("hi"))
    stored = await served.process.agents.get(LOCAL, agent)
    assert '"connection":"m.db"' in stored.definition
    await remember(served, "s", city="Rome")
    assert [row async for row in memories.list(agent=agent)] == []
    with pytest.raises(MemoryNotFound):
        await memories.get("city", agent=agent)
    assert (await memories.get("city", scope="s"))["value"] == "Rome"
    with pytest.raises(InvalidInput, match="has no long_term_memory"):
        await memories.get("city", agent=plain)
    with pytest.raises(AgentNotFound):
        await memories.get("city", agent="nobody")


@pytest.mark.behaviour("server:memories:agents")
async def test_the_url_of_a_memory_is_in_no_answer(served: Served) -> None:
    url = "postgresql://flux:hunter22@127.0.0.1:1/notesdb?connect_timeout=2"
    chosen = {"provider": "postgresql", "connection": url}
    body = {"name": "a1", "model": "scripted/demo", "system_prompt": "x", "long_term_memory": chosen}
    answers = [
        await call(served, "POST", "/agents", 201, body),
        await call(served, "GET", "/agents/a1", 200),
        await call(served, "GET", "/agents", 200),
        await call(served, "GET", "/agents/a1/versions", 200),
        await call(served, "PUT", "/agents/a1", 200, (await call(served, "GET", "/agents/a1", 200))["definition"]),
        await call(served, "GET", "/memories?agent=a1", 503),
        await call(served, "POST", "/agents", 400, {**body, "long_term_memory": chosen | {"provider": "sqlite"}}),
    ]
    for answer in answers:
        assert not [part for part in ("hunter22", "127.0.0.1", "notesdb") if part in str(answer)]


@pytest.mark.behaviour("server:memories:life")
@pytest.mark.parametrize(
    ("method", "path", "status", "type_"),
    [
        ("GET", "/memories?limit=0", 400, "invalid_input"),
        ("GET", "/memories?cursor=x", 400, "invalid_input"),
        ("GET", "/memories?scope=%00", 400, "invalid_input"),
        ("GET", f"/memories?agent={'a' * 257}", 400, "invalid_input"),
        ("GET", "/memories/none", 404, "memory_not_found"),
        ("GET", f"/memories/{'k' * 257}", 400, "invalid_input"),
        ("GET", "/memories/", 400, "invalid_input"),
        ("DELETE", f"/memories/{quote(chr(10))}", 400, "invalid_input"),
        ("DELETE", "/memories/none?agent=nobody", 404, "agent_not_found"),
        ("DELETE", "/memories", 405, "invalid_input"),
    ],
)
async def test_a_wrong_request_is_refused(served: Served, method: str, path: str, status: int, type_: str) -> None:
    assert await refused(served, method, path, status) == type_
