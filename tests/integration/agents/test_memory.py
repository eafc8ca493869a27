"""Agents with a long-term memory: what one session stores another recalls, and nothing shows the connection."""

import json
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from flux.agents.define.definition import define
from flux.agents.define.memory import HIDDEN, LongTermMemory
from flux.errors import DefinitionInvalid, Unavailable
from flux.events import ApprovalRequired, AssistantSaid, ChatResponse, ContextFrozen, ToolDone
from flux.models.scripted import Script
from flux.server.wire import agent_row
from flux.store.database import LOCAL
from flux.testing import Call, Reply, ScriptedModel
from flux.tools.function import tool_of
from tests.integration.agents.world import World, of, opened, outcomes

STORE = Call("store_memory", {"key": "city", "value": "Rome"})
RECALL = Call("recall_memory", {"key": "city"})
TOOLS = ("recall_memory", "store_memory", "forget_memory", "list_memory_keys")


def then_done(*calls: Call) -> Script:
    """Make these calls, and be done."""
    return [Reply(calls=calls), Reply("Done.")]


async def told(world: World, *calls: Call, agent: str = "agent", **fields: Any) -> list[Any]:
    """What each call gave, in a new session of an agent whose model makes these calls."""
    model = f"m{len(world.models)}"
    world.models[model] = ScriptedModel(then_done(*calls))
    made = define({"name": agent, "model": f"test/{model}", **fields})
    await world.process.agents.put(LOCAL, made, create=True, update=True)
    world.id = (await world.process.sessions.start(LOCAL, agent)).id
    log = await world.ask("Go.")
    assert of(log, ChatResponse)
    assert await world.faults() == []
    gave = {done.call: done.content for done in of(log, ToolDone)}
    texts = [gave[call.id] for said in of(log, AssistantSaid) for call in said.calls]
    return [json.loads(text) if text[0] == "{" else text for text in texts]


@pytest.fixture
def postgres_secret(postgres_url: str) -> tuple[dict[str, Any], str]:
    """A memory on Postgres whose URL is in a secret, and the URL."""
    return {"provider": "postgresql", "connection": "secret:MEMORY_URL"}, postgres_url


@pytest.fixture(params=["flux's own", "a file", "postgres", "flux's own on postgres"])
async def reopened(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Callable[[], Any], dict[str, Any]]:
    """Opens a process on one home again and again; and the field of the definition."""
    chosen: dict[str, Any] = {}
    url = ""
    settings: dict[str, Any] = {}
    if request.param == "a file":
        chosen = {"provider": "sqlite", "connection": "notes/memory.db"}
    elif request.param == "postgres":
        chosen, url = request.getfixturevalue("postgres_secret")
    elif request.param == "flux's own on postgres":
        settings = {"database_url": request.getfixturevalue("postgres_url")}

    @asynccontextmanager
    async def again() -> AsyncIterator[World]:
        async with opened(tmp_path, **settings) as world:
            if url:
                await world.process.secrets.set(LOCAL, "MEMORY_URL", url)
            yield world

    return again, chosen


@pytest.mark.behaviour("memory:agents:sessions")
async def test_what_one_session_stores_a_later_one_recalls_after_a_restart(
    reopened: tuple[Callable[[], Any], dict[str, Any]],
) -> None:
    again, chosen = reopened
    async with again() as world:
        assert await told(world, STORE, long_term_memory=chosen) == ["Stored 'city'."]
    async with again() as world:
        (found,) = await told(world, RECALL, long_term_memory=chosen)
        assert (found["key"], found["value"]) == ("city", "Rome")
        searched, keys, newest = await told(
            world,
            Call("recall_memory", {"query": "which city, Rome?"}),
            Call("list_memory_keys"),
            Call("recall_memory"),
            long_term_memory=chosen,
        )
        assert keys == {"keys": ["city"]}
        assert searched == newest
        assert [memory["value"] for memory in newest["memories"]] == ["Rome"]


@pytest.mark.behaviour("memory:agents:scopes")
async def test_agents_of_one_scope_share_and_others_do_not(world: World) -> None:
    shared = {"scope": "user:123"}
    await told(world, STORE, agent="ann", long_term_memory=shared)
    (found,) = await told(world, RECALL, agent="ben", long_term_memory=shared)
    assert found["value"] == "Rome"
    await told(world, Call("store_memory", {"key": "city", "value": {"name": "Oslo"}}), agent="ben",
               long_term_memory={})  # fmt: skip
    (found,) = await told(world, RECALL, agent="ben", long_term_memory={})
    assert found["value"] == {"name": "Oslo"}
    (found,) = await told(world, RECALL, agent="ann", long_term_memory={})
    assert found == {"found": False, "key": "city", "similar": []}


@pytest.mark.behaviour("memory:agents:scopes")
async def test_memory_in_memory_lasts_as_long_as_the_process(tmp_path: Path) -> None:
    chosen = {"provider": "in_memory"}
    async with opened(tmp_path) as world:
        await told(world, STORE, long_term_memory=chosen)
        (found,) = await told(world, RECALL, long_term_memory=chosen)
        assert found["value"] == "Rome"
    async with opened(tmp_path) as world:
        (found,) = await told(world, RECALL, long_term_memory=chosen)
        assert found["found"] is False


@pytest.mark.behaviour("memory:agents:tools")
async def test_a_memory_is_replaced_and_forgotten_and_a_wrong_key_names_similar_ones(world: World) -> None:
    gave = await told(
        world,
        STORE,
        Call("store_memory", {"key": " city ", "value": ["Oslo", 2]}),
        Call("recall_memory", {"key": "the city"}),
        Call("forget_memory", {"key": " city"}),
        Call("forget_memory", {"key": "city"}),
        Call("recall_memory", {"key": "city"}),
        long_term_memory={},
    )
    assert gave[:2] == ["Stored 'city'."] * 2
    assert gave[2]["found"] is False
    assert [memory["value"] for memory in gave[2]["similar"]] == [["Oslo", 2]]
    assert gave[3:5] == ["Forgot 'city'.", "There is no memory 'city' now."]
    assert gave[5] == {"found": False, "key": "city", "similar": []}


@pytest.mark.behaviour("memory:agents:tools")
async def test_long_values_are_cut_in_lists_and_whole_by_key(world: World) -> None:
    text = "long " * 2_000
    _, listed, whole = await told(
        world,
        Call("store_memory", {"key": "essay", "value": text}),
        Call("recall_memory", {"query": "long"}),
        Call("recall_memory", {"key": "essay"}),
        long_term_memory={},
    )
    (memory,) = listed["memories"]
    assert "value" not in memory
    assert len(memory["begins"]) == 2_000
    assert whole["value"] == text


@pytest.mark.behaviour("memory:agents:tools")
@pytest.mark.parametrize(
    ("args", "says"),
    [
        ({"key": "k" * 257, "value": "x"}, "memory key: use 1 to 256 characters"),
        ({"key": "", "value": "x"}, "memory key: use 1 to 256 characters"),
        ({"key": "a\nb", "value": "x"}, "cannot be one"),
        ({"key": "big", "value": "x" * 100_001}, "are more than 100,000"),
        ({"key": "none"}, "value"),
    ],
)
async def test_what_cannot_be_stored_is_told_in_one_line(world: World, args: dict[str, Any], says: str) -> None:
    (gave,) = await told(world, Call("store_memory", args), long_term_memory={})
    assert says in gave
    assert "\n" not in gave
    assert outcomes(await world.log()) == [("store_memory", "error")]


@pytest.mark.behaviour("memory:agents:prompt")
async def test_the_model_is_told_of_its_memory_and_that_it_is_data(world: World) -> None:
    await told(world, long_term_memory={}, system_prompt="Be kind.")
    (context,) = of(await world.log(), ContextFrozen)
    assert "Be kind.\n\n# Long-term memory" in context.system
    assert "never an instruction" in context.system
    assert [tool["name"] for tool in context.tools] == list(TOOLS)


@pytest.mark.behaviour("memory:agents:prompt")
async def test_without_a_memory_or_tools_there_is_nothing_of_it(world: World) -> None:
    several: list[dict[str, Any]] = [{}, {"long_term_memory": {}, "approval_mode": "never"}]
    for fields in several:
        await told(world, **fields)
        (context,) = of(await world.log(), ContextFrozen)
        assert context.tools == ()
        assert "memory" not in context.system


@pytest.mark.behaviour("memory:agents:tools")
async def test_a_person_may_have_to_approve_what_is_stored(world: World) -> None:
    await world.agent(then_done(STORE), long_term_memory={}, tool_approvals={"store_memory": True})
    await world.start("Go.")
    assert await world.rest() == "waiting"
    (question,) = await world.questions()
    assert of(await world.log(), ApprovalRequired)[0].args == STORE.args
    await world.answer(question, "reject")
    await world.rest("idle")
    assert await world.process.memory_stores.own.newest(LOCAL, "agent") == []


Put = Callable[..., Awaitable[Any]]


@pytest.fixture
def put(world: World) -> Put:
    """Stores an agent with such a memory."""

    async def stored(chosen: Any, **fields: Any) -> Any:
        world.models["main"] = ScriptedModel(then_done(STORE))
        made = define({"name": "agent", "model": "test/main", "long_term_memory": chosen, **fields})
        return await world.process.agents.put(LOCAL, made, create=True, update=True)

    return stored


@pytest.mark.behaviour("memory:agents:checked")
@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        ({"provider": "redis"}, "long_term_memory.provider"),
        ({"provider": "sqlite", "conection": "m.db"}, "unknown field 'long_term_memory.conection'"),
        ({"connection": "m.db"}, "only the providers sqlite and postgresql take one"),
        ({"provider": "in_memory", "connection": "m.db"}, "only the providers"),
        ({"provider": "sqlite", "connection": ""}, "long_term_memory.connection"),
        ({"provider": "sqlite", "connection": "../flux.db"}, "must not be in the name"),
        ({"provider": "sqlite", "connection": "a/../../../etc/x"}, "must not be in the name"),
        ({"provider": "sqlite", "connection": "nul\0"}, "plain text"),
        ({"provider": "sqlite", "connection": "link/x.db"}, "is not in"),
        ({"provider": "sqlite", "connection": "folder"}, "is a directory"),
        ({"provider": "sqlite", "connection": "/dev/null"}, "device"),
        ({"provider": "sqlite", "connection": "postgresql://h/db"}, "takes the name of a file"),
        ({"provider": "postgresql", "connection": "memory.db"}, "takes a postgresql:// URL"),
        ({"provider": "postgresql", "connection": "secret:"}, "needs the name of a secret"),
        ({"provider": "postgresql", "connection": "secret:../x"}, "needs the name of a secret"),
        ({"provider": "postgresql"}, "needs a connection here"),
        ({"provider": "sqlite", "connection": HIDDEN}, "none is stored"),
        ({"scope": ""}, "long_term_memory.scope"),
        ({"scope": "s" * 257}, "long_term_memory.scope"),
        ({"scope": "two\nlines"}, "plain text"),
        ("memory.db", "long_term_memory"),
    ],
)
async def test_a_memory_that_cannot_be_is_refused_at_create(
    world: World, put: Put, tmp_path: Path, chosen: Any, says: str
) -> None:
    (tmp_path / "memories" / "folder").mkdir(parents=True)
    (tmp_path / "memories" / "link").symlink_to("/tmp")
    with pytest.raises(DefinitionInvalid) as refused:
        await put(chosen)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.behaviour("memory:agents:checked")
async def test_postgres_that_is_not_installed_is_said_at_create(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flux.store._postgres", None)
    with pytest.raises(DefinitionInvalid, match=r"pip install 'flux-harness\[postgres\]'"):
        await put({"provider": "postgresql", "connection": "postgresql://h/db"})


@pytest.mark.behaviour("memory:agents:checked")
async def test_a_tool_of_the_same_name_is_refused_at_create(tmp_path: Path) -> None:
    async def recall_memory() -> str:
        """Look."""
        return ""

    async with opened(tmp_path, {"recall_memory": tool_of(recall_memory)}) as world:
        with pytest.raises(DefinitionInvalid, match="recall_memory is also a tool of its long-term memory"):
            await world.agent(then_done(), tools=["recall_memory"], long_term_memory={})


URL = "postgresql://flux:hunter22@db.internal.example:6543/notes?options=-csearch_path%3Dx"


@pytest.mark.behaviour("memory:agents:hidden")
async def test_a_url_is_hidden_and_kept_by_whoever_writes_it_back(world: World, put: Put) -> None:
    row = agent_row(await put({"provider": "postgresql", "connection": URL, "scope": "user:1"}))
    assert "hunter22" not in str(row)
    shown = row["definition"]["long_term_memory"]
    assert shown == {"provider": "postgresql", "connection": HIDDEN, "scope": "user:1"}
    again = agent_row(await put({**shown, "scope": "user:2"}))
    assert again["version"] == 2
    stored = define(json.loads((await world.process.agents.get(LOCAL, "agent")).definition))
    assert stored.long_term_memory == LongTermMemory(provider="postgresql", connection=URL, scope="user:2")
    with pytest.raises(DefinitionInvalid, match="takes the name of a file"):
        await put({"provider": "sqlite", "connection": HIDDEN})


@pytest.mark.behaviour("memory:agents:hidden")
async def test_the_url_of_a_sub_agent_is_hidden_and_kept_too(world: World, put: Put) -> None:
    chosen = {"provider": "postgresql", "connection": URL}
    below = {"name": "below", "model": "test/main", "description": "d", "long_term_memory": chosen}
    row = agent_row(await put({}, subagents=[below]))
    assert "hunter22" not in str(row)
    shown = row["definition"]["subagents"]
    assert shown[0]["long_term_memory"]["connection"] == HIDDEN
    await put({}, subagents=shown, system_prompt="New.")
    stored = define(json.loads((await world.process.agents.get(LOCAL, "agent")).definition))
    assert stored.subagents[0].long_term_memory == LongTermMemory.model_validate(chosen)
    with pytest.raises(DefinitionInvalid, match="none is stored"):
        await put({}, subagents=[{**shown[0], "name": "other"}])
    (world.process.settings.home / "memories").mkdir()
    (world.process.settings.home / "memories" / "link").symlink_to("/tmp")
    with pytest.raises(DefinitionInvalid, match="is not in"):
        await put({}, subagents=[below | {"long_term_memory": {"provider": "sqlite", "connection": "link/x"}}])


@pytest.mark.behaviour("memory:agents:hidden")
async def test_a_reference_and_a_file_are_shown_so_that_an_export_can_be_applied(put: Put) -> None:
    for connection in ("secret:MEMORY", "memory.db"):
        chosen = {"provider": "sqlite", "connection": connection}
        assert agent_row(await put(chosen))["definition"]["long_term_memory"] == chosen


@pytest.mark.behaviour("memory:agents:away")
@pytest.mark.parametrize("by", ["url", "secret", "no secret", "wrong secret", "file"])
async def test_a_memory_that_is_away_is_a_failed_call_that_tells_nothing(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture, by: str
) -> None:
    url = "postgresql://flux:hunter22@127.0.0.1:1/notesdb?connect_timeout=2"
    chosen = {"provider": "postgresql", "connection": url if by == "url" else "secret:URL"}
    if by == "file":
        (tmp_path / "memories").mkdir()
        (tmp_path / "memories" / "letter.db").write_text("Dear Ann, " * 500)
        chosen = {"provider": "sqlite", "connection": "letter.db"}
    elif by != "no secret":
        await world.process.secrets.set(LOCAL, "URL", url if by == "secret" else "mysql://hunter22@h/db")
    (gave,) = await told(world, STORE, long_term_memory=chosen)
    assert outcomes(await world.log()) == [("store_memory", "error")]
    assert "\n" not in gave
    for part in ("hunter22", "notesdb", "127.0.0.1", "letter.db", str(tmp_path)):
        assert part not in gave
        assert part not in caplog.text
    says = {"no secret": "there is no secret 'URL'", "wrong secret": "the secret 'URL' is no connection"}
    assert says.get(by, "long_term_memory: the database") in gave
    assert await world.ask("And now?")
    assert await world.faults() == []


@pytest.mark.behaviour("memory:agents:away")
async def test_a_memory_that_comes_back_is_used_again(tmp_path: Path) -> None:
    chosen = {"provider": "sqlite", "connection": "late.db"}
    (tmp_path / "memories").mkdir()
    late = tmp_path / "memories" / "late.db"
    late.write_text("not yet")
    async with opened(tmp_path) as world:
        (gave,) = await told(world, STORE, long_term_memory=chosen)
        assert "long_term_memory" in gave
        late.unlink()
        assert await told(world, STORE, long_term_memory=chosen) == ["Stored 'city'."]


@pytest.mark.behaviour("memory:agents:closed")
async def test_a_process_closes_its_memories_at_its_end(tmp_path: Path, postgres_url: str) -> None:
    chosen = LongTermMemory(provider="postgresql", connection=postgres_url)
    async with opened(tmp_path) as world:
        store = await world.process.memory_stores.of(LOCAL, chosen)
        assert store is await world.process.memory_stores.of(LOCAL, chosen)
        assert await store.keys(LOCAL, "agent") == []
    with pytest.raises(Unavailable) as closed:
        await store.keys(LOCAL, "agent")
    assert (urlsplit(postgres_url).hostname or quote(postgres_url)) not in str(closed.value)


@pytest.mark.behaviour("memory:agents:away")
async def test_what_a_pool_logs_later_does_not_tell_the_connection_either(
    tmp_path: Path, postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"{postgres_url}&application_name=hunter22" if "?" in postgres_url else postgres_url
    pool = logging.getLogger("psycopg.pool")
    async with opened(tmp_path) as world:
        chosen = LongTermMemory(provider="postgresql", connection=url)
        await world.process.memory_stores.of(LOCAL, chosen)
        pool.warning("error connecting in %r: %s", "pool-1", f"connection to {url} failed")
        assert "connection to *** failed" in caplog.text
    pool.warning("by %s", url)
    assert f"by {url}" in caplog.text
