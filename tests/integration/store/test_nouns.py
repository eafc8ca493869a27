"""What each noun of the store keeps: sessions, agents, configs, questions."""

import itertools
import uuid
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flux.engine.intake.inputs import NewMessage
from flux.errors import AgentExists, AgentNotFound, SessionExists
from flux.events import AssistantSaid, RunStarted
from flux.messages import TextPart
from flux.store import agents, configs, executions, interrupts, log
from flux.store.agents import AgentVersion
from flux.store.database import Database, Scope, one
from flux.store.executions import Execution
from tests.integration.states import ANN, BOB, Sessions, a_session

SLOW = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture
def sessions(database: Database) -> Sessions:
    return Sessions(database)


# --- sessions


@pytest.mark.behaviour("store:sessions:row")
async def test_a_new_session_is_idle_and_says_what_it_was_made_of(sessions: Sessions) -> None:
    session = a_session(agent_version=3, instance="ticket-1", name="chat")
    row = await sessions.row((await sessions.admission.start(ANN, session)).id)
    assert (row.kind, row.tenant, row.owner, row.scope) == ("session", "acme", "ann", ANN)
    assert (row.agent, row.agent_version, row.definition_digest) == ("helper", 3, "d1")
    assert (row.instance, row.name, row.state, row.root) == ("ticket-1", "chat", "idle", row.id)
    assert (row.head, row.epoch, row.turns, row.failures, row.worker) == (1, 0, 0, 0, None)
    assert row.spent == executions.Spent()
    assert abs(row.created - row.updated) < 5


@pytest.mark.behaviour("store:sessions:one-open-per-name")
async def test_an_instance_has_one_open_session_of_a_name(sessions: Sessions, other_database: Database) -> None:
    there = Sessions(other_database)
    session = a_session(instance="ticket-1")
    made: list[str] = []
    refused: list[Sessions] = []

    async def start(side: Sessions) -> None:
        try:
            made.append((await side.admission.start(ANN, session)).id)
        except SessionExists:
            refused.append(side)

    async with anyio.create_task_group() as group:
        for n in range(6):
            group.start_soon(start, (sessions, there)[n % 2])
    assert (len(made), len(refused)) == (1, 5)
    for other in (a_session(instance="ticket-2"), a_session(instance="ticket-1", name="b"), a_session(agent="x")):
        await sessions.admission.start(ANN, other)
    await sessions.admission.start(Scope("other", "ann"), session)


@pytest.mark.behaviour("store:sessions:listed")
@SLOW
@given(times=st.lists(st.integers(1, 4), max_size=12), limit=st.integers(1, 5))
async def test_every_session_is_on_exactly_one_page_newest_first(
    sessions: Sessions, times: list[int], limit: int
) -> None:
    scope = Scope(f"t-{uuid.uuid4()}", "ann")
    ids: list[str] = []
    for created in times:
        ids.append((await sessions.admission.start(scope, a_session())).id)
        await sessions.database.write(
            one("update executions set created = :c where id = :id", c=created + 0.123456, id=ids[-1])
        )
    after: tuple[float, str] | None = None
    pages: list[Execution] = []
    while page := await sessions.database.scan(executions.list_sessions(scope, after=after, limit=limit)):
        assert len(page) <= limit
        pages += page
        after = (page[-1].created, page[-1].id)
    assert sorted(row.id for row in pages) == sorted(ids)
    assert [(row.created, row.id) for row in pages] == sorted(((r.created, r.id) for r in pages), reverse=True)


@pytest.mark.behaviour("store:sessions:listed")
async def test_sessions_are_listed_by_agent_state_instance_and_owner(sessions: Sessions) -> None:
    first = (await sessions.admission.start(ANN, a_session(agent="a", instance="one"))).id
    second = (await sessions.admission.start(ANN, a_session(agent="b", instance="two"), NewMessage("go"))).id
    third = (await sessions.admission.start(BOB, a_session(agent="a"))).id

    async def listed(scope: Scope, **filters: Any) -> set[str]:
        return {row.id for row in await sessions.database.scan(executions.list_sessions(scope, **filters))}

    assert await listed(ANN) == {first, second}
    assert await listed(BOB) == {third}
    assert await listed(ANN, agent="a") == await listed(ANN, instance="one") == {first}
    assert await listed(ANN, state="scheduled") == await listed(ANN, agent="b", state="scheduled") == {second}
    assert await listed(ANN, agent="a", state="scheduled") == await listed(ANN, agent="nobody") == set()


TEXTS = ["100% sure", "100 sure", "snake_case", "snakeXcase", "back\\slash", 'say "hi"', "École d'été", "two\nlines 🙂"]


@pytest.mark.behaviour("store:sessions:search")
async def test_search_finds_the_text_that_was_typed_and_nothing_like_it(sessions: Sessions) -> None:
    ids = {text: (await sessions.admission.start(ANN, a_session(), NewMessage(text))).id for text in TEXTS}

    async def found(q: str) -> set[str]:
        rows = await sessions.database.scan(executions.list_sessions(ANN, q=q))
        return {text for text, id in ids.items() if id in {row.id for row in rows}}

    for text in TEXTS:
        assert await found(text) == {text}
    assert await found("100% SURE") == await found("0% s") == {"100% sure"}
    assert await found("Snake_Case") == {"snake_case"}
    assert await found("SURE") == {"100% sure", "100 sure"}
    assert await found("\\s") == {"back\\slash"}
    assert await found("nothing of the kind") == await found("%") - {"100% sure"} == set()


@pytest.mark.behaviour("store:sessions:search")
async def test_search_looks_at_titles_and_at_what_both_sides_said(sessions: Sessions) -> None:
    row = await sessions.row(await sessions.running())
    await sessions.append(row, AssistantSaid(message_id="m", parts=(TextPart("an umbrella"),)))
    await sessions.append(row, RunStarted(run="internal-word", inputs=()))
    await sessions.database.write(executions.set_title(ANN, row.id, "Weather in Rome"))
    for q, count in (
        ("UMBRELLA", 1),
        ("rome", 1),
        ("hello", 1),
        ("internal-word", 0),
        ("user_message", 0),
        ("parts", 0),
    ):
        assert len(await sessions.database.scan(executions.list_sessions(ANN, q=q))) == count, q


@pytest.mark.behaviour("store:sessions:title")
async def test_a_title_can_be_changed_and_is_not_overwritten_by_a_message(sessions: Sessions) -> None:
    id = await sessions.idle()
    assert await sessions.database.write(executions.set_title(ANN, id, "Mine"))
    await sessions.admission.admit(ANN, id, NewMessage("something"))
    assert (await sessions.row(id)).title == "Mine"
    assert not await sessions.database.write(executions.set_title(ANN, "nowhere", "x"))


@pytest.mark.behaviour("store:sessions:delete")
async def test_only_an_ended_session_is_deleted_and_then_nothing_is_left(sessions: Sessions) -> None:
    id, question = await sessions.asking(kind="approval")
    await sessions.database.write(interrupts.grant(ANN, id, "shell", "ann"))
    await sessions.admission.admit(ANN, id, NewMessage("x"), key="k")
    assert not await sessions.database.write(executions.delete(ANN, id))
    assert await sessions.entries(id)
    await sessions.admission.end(ANN, id)
    assert await sessions.database.write(executions.delete(ANN, id))
    for table in ("events", "interrupts", "grants", "admissions", "executions"):
        assert await sessions.database.read(one(f"select count(*) from {table}")) == [(0,)], table
    assert not await sessions.database.write(executions.delete(ANN, id))
    assert await sessions.database.read(log.read(ANN, id)) == []
    assert await sessions.database.read(interrupts.get(ANN, id, question)) is None


@pytest.mark.behaviour("store:sessions:delete")
async def test_an_open_session_is_deleted_only_if_nothing_was_said_in_it(sessions: Sessions) -> None:
    untouched, used = await sessions.idle(), await sessions.idle()
    await sessions.admission.admit(ANN, used, NewMessage("x"))
    assert await sessions.database.write(executions.delete(ANN, untouched))
    assert not await sessions.database.write(executions.delete(ANN, used))
    assert await sessions.database.read(executions.get(ANN, untouched)) is None
    assert await sessions.entries(used)


# --- questions


@pytest.mark.behaviour("store:interrupts:asked-once")
async def test_a_question_asked_again_is_the_same_question(sessions: Sessions) -> None:
    row = await sessions.row(await sessions.running())
    id = interrupts.interrupt_id(row.id, "c1")
    assert id == interrupts.interrupt_id(row.id, "c1") != interrupts.interrupt_id(row.id, "c1", 1)
    for payload in ({"question": "Which?"}, {"question": "changed"}):
        program = interrupts.open_interrupt(
            ANN, id=id, execution_id=row.id, call="c1", kind="input", payload=payload, digest="d", expires_at=99.5
        )
        await sessions.database.write(program)
    (asked,) = await sessions.database.read(interrupts.list_open(ANN, row.id))
    assert asked == await sessions.database.read(interrupts.get(ANN, row.id, id))
    assert (asked.payload, asked.digest, asked.expires_at, asked.root) == ('{"question":"Which?"}', "d", 99.5, row.id)


@pytest.mark.behaviour("store:interrupts:grants")
async def test_a_grant_is_given_once_and_for_one_session(sessions: Sessions) -> None:
    id, other = await sessions.idle(), await sessions.idle()
    for tool in ("shell", "shell", "fetch"):
        await sessions.database.write(interrupts.grant(ANN, id, tool, "ann"))
    assert await sessions.database.read(interrupts.grants(ANN, id)) == {"shell", "fetch"}
    assert await sessions.database.read(interrupts.grants(ANN, other)) == set()


# --- agents


async def put(database: Database, digest: str, *, create: bool = True, update: bool = True) -> AgentVersion:
    return await database.write(agents.put(ANN, "helper", digest, f'"{digest}"', create=create, update=update))


@pytest.mark.behaviour("store:agents:versions")
async def test_each_change_of_an_agent_is_a_version_and_no_change_is_none(database: Database) -> None:
    first = await put(database, "a")
    again = await put(database, "a")
    second = await put(database, "b", create=False)
    third = await put(database, "a")
    assert again == first
    assert [first.version, second.version, third.version] == [1, 2, 3]
    assert (first.author, first.definition) == ("ann", '"a"')
    assert await database.read(agents.get(ANN, "helper")) == third
    assert await database.read(agents.versions(ANN, "helper")) == [third, second, first]
    assert await database.read(agents.get_version(ANN, "helper", 2)) == second
    assert await database.read(agents.get_version(ANN, "helper", 4)) is None


@pytest.mark.behaviour("store:agents:create-or-update")
async def test_creating_what_is_there_and_updating_what_is_not_are_errors(database: Database) -> None:
    with pytest.raises(AgentNotFound, match="helper"):
        await put(database, "a", create=False)
    await put(database, "a", update=False)
    with pytest.raises(AgentExists, match="helper"):
        await put(database, "b", update=False)
    assert [v.digest for v in await database.read(agents.versions(ANN, "helper"))] == ["a"]


@pytest.mark.behaviour("store:agents:delete")
async def test_a_deleted_agent_keeps_its_versions_and_made_again_goes_on_counting(database: Database) -> None:
    first = await put(database, "a")
    await database.write(agents.delete(ANN, "helper"))
    assert await database.read(agents.get(ANN, "helper")) is None
    assert await database.read(agents.list_current(ANN)) == []
    assert await database.read(agents.get_version(ANN, "helper", 1)) == first
    with pytest.raises(AgentNotFound):
        await database.write(agents.delete(ANN, "helper"))
    with pytest.raises(AgentNotFound):
        await put(database, "b", create=False)
    assert (await put(database, "a", update=False)).version == 2


@pytest.mark.behaviour("store:agents:concurrent")
@pytest.mark.parametrize("there_before", [False, True])
async def test_changes_of_an_agent_at_the_same_time_are_one_version_each(
    database: Database, other_database: Database, there_before: bool
) -> None:
    if there_before:
        await put(database, "first")
    made: list[AgentVersion] = []

    async def change(n: int) -> None:
        # Twelve writers, six definitions.
        made.append(await put((database, other_database)[n % 2], f"d{n // 2}"))

    async with anyio.create_task_group() as group:
        for n in range(12):
            group.start_soon(change, n)
    stored = await database.read(agents.versions(ANN, "helper"))
    assert [v.version for v in stored] == list(range(len(stored), 0, -1))
    assert {v.digest for v in made} == {f"d{n}" for n in range(6)}
    assert set(made) <= set(stored)
    assert await database.read(agents.get(ANN, "helper")) == stored[0]
    assert all(newer.digest != older.digest for newer, older in itertools.pairwise(stored))


@pytest.mark.behaviour("store:agents:concurrent")
async def test_of_many_who_create_an_agent_one_does(database: Database, other_database: Database) -> None:
    refused: list[int] = []

    async def create(n: int) -> None:
        try:
            await put((database, other_database)[n % 2], f"d{n}", update=False)
        except AgentExists:
            refused.append(n)

    async with anyio.create_task_group() as group:
        for n in range(8):
            group.start_soon(create, n)
    assert len(refused) == 7
    assert len(await database.read(agents.versions(ANN, "helper"))) == 1


@pytest.mark.behaviour("store:agents:listed", "store:configs:values")
@SLOW
@given(names=st.sets(st.text("abcxyz-_09", min_size=1, max_size=4), max_size=9), limit=st.integers(1, 4))
async def test_names_are_listed_in_order_page_by_page(database: Database, names: set[str], limit: int) -> None:
    scope = Scope(f"t-{uuid.uuid4()}", "ann")
    for name in names:
        await database.write(agents.put(scope, name, "d", "{}", create=True, update=True))
        await database.write(configs.put(scope, name, name.upper()))
    seen: list[str] = []
    while page := await database.read(agents.list_current(scope, seen[-1] if seen else "", limit)):
        seen += [agent.name for agent in page]
    keys: list[str] = []
    while some := await database.read(configs.names(scope, keys[-1] if keys else "", limit)):
        keys += some
    assert len(seen) == len(names)
    assert set(seen) == names
    assert keys == seen


# --- configs


@pytest.mark.behaviour("store:configs:values")
async def test_a_config_is_set_changed_and_removed(database: Database) -> None:
    assert await database.read(configs.get(ANN, "a")) is None
    for value in ("1", "", 'two "quoted" ü'):
        await database.write(configs.put(ANN, "a", value))
        assert await database.read(configs.get(ANN, "a")) == value
    assert await database.write(configs.remove(ANN, "a"))
    assert not await database.write(configs.remove(ANN, "a"))
    assert await database.read(configs.get(ANN, "a")) is None
