"""No function of the store shows or touches what belongs to another tenant."""

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from flux.errors import AgentNotFound, Fenced, ScheduleNotFound, SessionNotFound, WorkflowNotFound
from flux.events import CancelRequested, SessionStarted, UsageCounted
from flux.messages import Usage
from flux.store import (
    admissions,
    agents,
    artifacts,
    configs,
    conversations,
    deltas,
    driven,
    executions,
    interrupts,
    log,
    memories,
    schedules,
    secrets,
    waits,
    workflows,
)
from flux.store.agents import AgentVersion
from flux.store.database import Database, Row, Scope, Steps, one
from flux.store.driven import Awaited, Driver
from flux.store.memories import Word
from flux.store.opening import open_database
from tests.integration.states import ANN, EVE, HELLO, Sessions

NOUNS: list[ModuleType] = [
    admissions,
    agents,
    artifacts,
    configs,
    conversations,
    deltas,
    driven,
    executions,
    interrupts,
    log,
    memories,
    schedules,
    secrets,
    waits,
    workflows,
]
Call = Callable[[Scope, str, str], Steps[Any]]


def _create(scope: Scope, id: str, question: str) -> Steps[Any]:
    names = {"agent": "helper", "instance": "i", "name": "n"}
    return executions.create_session(scope, id=f"own-{id}", agent_version=None, definition_digest="d", **names)


def _ask(scope: Scope, id: str, question: str) -> Steps[Any]:
    return interrupts.open_interrupt(scope, id="new", execution_id=id, call=None, kind="input", payload={})


TIMES = schedules.Given(target="agent", agent="helper", message="hi", spec='{"type":"interval","seconds":60}')


def _own_schedule(scope: Scope, id: str, question: str) -> Steps[Any]:
    yield from schedules.create(scope, f"own-{id}", "nightly", TIMES, 1.0)


def _schedule(scope: Scope, id: str, question: str) -> Steps[Any]:
    return schedules.replace(scope, "nightly", TIMES, "paused", None)


def _register(scope: Scope, id: str, question: str) -> Steps[Any]:
    """A stranger's workflow of the same name is another one."""
    yield from workflows.put(scope, "default", "hello", digest="d2", source="other", options="{}")


def _keep(scope: Scope, id: str, question: str) -> Steps[Any]:
    return artifacts.put(scope, id, 1, "kept", name="other.txt", media_type="text/plain", data=b"stolen")


#: An agent whose workflow is that of another tenant.
TALKER = AgentVersion("hello", 1, "d1", '{"workflow_file":{"digest":"d1"}}', "eve", 1.0)

#: Every function that takes a scope, called by a stranger with somebody else's ids; and what comes back.
CALLS: dict[str, tuple[Call, Any]] = {
    "admissions.claim": (lambda s, id, q: admissions.claim(s, "key", "other digest"), None),
    "admissions.find": (lambda s, id, q: admissions.find(s, "key", "other digest"), None),
    "admissions.record": (lambda s, id, q: admissions.record(s, "key", "stolen", 9), None),
    "agents.delete": (lambda s, id, q: agents.delete(s, "helper"), AgentNotFound),
    "agents.get": (lambda s, id, q: agents.get(s, "helper"), None),
    "agents.get_version": (lambda s, id, q: agents.get_version(s, "helper", 1), None),
    "agents.list_current": (lambda s, id, q: agents.list_current(s), []),
    "agents.put": (lambda s, id, q: agents.put(s, "helper", "d2", "{}", create=False, update=True), AgentNotFound),
    "agents.versions": (lambda s, id, q: agents.versions(s, "helper"), []),
    "artifacts.get": (lambda s, id, q: artifacts.get(s, id, "kept"), None),
    "artifacts.page": (lambda s, id, q: artifacts.page(s, id), []),
    "artifacts.put": (_keep, Fenced),
    "artifacts.read_in_tree": (lambda s, id, q: artifacts.read_in_tree(s, id, "kept"), None),
    "configs.get": (lambda s, id, q: configs.get(s, "city"), None),
    "configs.names": (lambda s, id, q: configs.names(s), []),
    "configs.put": (lambda s, id, q: configs.put(s, "city", "Paris"), None),
    "configs.remove": (lambda s, id, q: configs.remove(s, "other"), False),
    "conversations.begin": (lambda s, id, q: conversations.begin(s, id, "helper", 1), SessionNotFound),
    "conversations.workflow_of": (lambda s, id, q: conversations.workflow_of(s, TALKER), None),
    "driven.awaited": (lambda s, id, q: driven.awaited(s, id, id), Awaited(frozenset(), ())),
    "driven.chain": (lambda s, id, q: driven.chain(s, id), []),
    "driven.children": (lambda s, id, q: driven.children(s, id, id), []),
    "driven.drive": (lambda s, id, q: driven.drive(s, Driver(id, 1, "w", id), "child", None, None, "r"), Fenced),
    "driven.tell": (lambda s, id, q: driven.tell(s, [id], CancelRequested(run="r")), {}),
    "executions.create_session": (_create, None),
    "executions.create_workflow": (
        lambda s, id, q: executions.create_workflow(s, id=id, workflow="a/b", source_version=None, pool="default"),
        False,
    ),
    "executions.delete": (lambda s, id, q: executions.delete(s, id), False),
    "executions.get": (lambda s, id, q: executions.get(s, id), None),
    "executions.list_executions": (lambda s, id, q: executions.list_executions(s, agent="helper"), []),
    "executions.open_children": (lambda s, id, q: executions.open_children(s, "parent"), []),
    "executions.list_sessions": (lambda s, id, q: executions.list_sessions(s, agent="helper", q="hello"), []),
    "executions.set_title": (lambda s, id, q: executions.set_title(s, id, "mine"), False),
    "interrupts.answer": (lambda s, id, q: interrupts.answer(s, id, q, answer="yes", by="eve"), False),
    "interrupts.expire": (interrupts.expire, False),
    "interrupts.find": (lambda s, id, q: interrupts.find(s, q), None),
    "interrupts.get": (interrupts.get, None),
    "interrupts.grant": (lambda s, id, q: interrupts.grant(s, id, "fetch", "eve"), None),
    "interrupts.grants": (lambda s, id, q: interrupts.grants(s, id), frozenset()),
    "interrupts.list_approvals": (
        lambda s, id, q: interrupts.list_approvals(s, execution=id, state=None, after=None, limit=5),
        [],
    ),
    "interrupts.list_all_open": (lambda s, id, q: interrupts.list_all_open(s), []),
    "interrupts.list_open": (lambda s, id, q: interrupts.list_open(s, id), []),
    "interrupts.open_interrupt": (_ask, None),
    "log.append": (lambda s, id, q: log.append(s, id, 1, None, [UsageCounted(tokens=Usage())]), Fenced),
    "log.read_in_tree": (lambda s, id, q: log.read_in_tree(s, id, UsageCounted), []),
    "log.read_types": (lambda s, id, q: log.read_types(s, id, [UsageCounted]), []),
    "log.last": (lambda s, id, q: log.last(s, id), None),
    "log.newest": (lambda s, id, q: log.newest(s, id, SessionStarted), None),
    "log.load": (lambda s, id, q: log.load(s, id), []),
    "log.read": (lambda s, id, q: log.read(s, id), []),
    "memories.by_id": (lambda s, id, q: memories.by_id(s, "helper", range(20)), []),
    "memories.find": (lambda s, id, q: memories.find(s, "city"), []),
    "memories.get": (lambda s, id, q: memories.get(s, "helper", "city"), None),
    "memories.holding": (lambda s, id, q: memories.holding(s, "helper", "plain", [Word("rome")]), []),
    "memories.keys": (lambda s, id, q: memories.keys(s, "helper"), []),
    "memories.newest": (lambda s, id, q: memories.newest(s, "helper"), []),
    "memories.page": (lambda s, id, q: memories.page(s), []),
    "memories.put": (lambda s, id, q: memories.put(s, "helper", "city", '"Paris"', ["paris"], "call"), True),
    "memories.remove": (lambda s, id, q: memories.remove(s, "helper", "city", "call"), False),
    "secrets.get": (lambda s, id, q: secrets.get(s, "city"), None),
    "secrets.names": (lambda s, id, q: secrets.names(s), []),
    "secrets.put": (lambda s, id, q: secrets.put(s, "city", "Paris"), None),
    "secrets.remove": (lambda s, id, q: secrets.remove(s, "other"), False),
    "waits.open_target": (lambda s, id, q: waits.open_target(s, id), False),
    "schedules.create": (_own_schedule, None),
    "schedules.delete": (lambda s, id, q: schedules.delete(s, "nightly"), False),
    "schedules.get": (lambda s, id, q: schedules.get(s, "nightly"), None),
    "schedules.history": (lambda s, id, q: schedules.history(s, "nightly"), []),
    "schedules.lock": (lambda s, id, q: schedules.lock(s, "nightly"), None),
    "schedules.open_session": (lambda s, id, q: schedules.open_session(s, "helper", "i"), None),
    "schedules.page": (lambda s, id, q: schedules.page(s), []),
    "schedules.replace": (_schedule, ScheduleNotFound),
    "schedules.set_state": (lambda s, id, q: schedules.set_state(s, "nightly", "paused", None), ScheduleNotFound),
    "waits.wait_for": (lambda s, id, q: waits.wait_for(s, id, "other"), None),
    "workflows.delete": (lambda s, id, q: workflows.delete(s, "default", "hello"), WorkflowNotFound),
    "workflows.drop": (lambda s, id, q: workflows.drop(s, "default", "hello"), False),
    "workflows.of_digest": (lambda s, id, q: workflows.of_digest(s, "default", "hello", "d1"), None),
    "workflows.get": (lambda s, id, q: workflows.get(s, "default", "hello"), None),
    "workflows.get_version": (lambda s, id, q: workflows.get_version(s, "default", "hello", 1), None),
    "workflows.list_current": (lambda s, id, q: workflows.list_current(s), []),
    "workflows.put": (_register, None),
    "workflows.versions": (lambda s, id, q: workflows.versions(s, "default", "hello"), []),
}

OWNED = (
    "executions",
    "agents",
    "agent_versions",
    "artifacts",
    "configs",
    "admissions",
    "memories",
    "memory_writes",
    "schedules",
    "secrets",
    "workflows",
    "workflow_versions",
)
OF_SESSIONS = ("events", "interrupts", "grants", "waits", "schedule_runs")


async def belongings(database: Database) -> dict[str, list[Row]]:
    """All that ANN's tenant has."""
    found = {
        table: await database.read(one(f"select * from {table} where tenant = :tenant", tenant=ANN.tenant))
        for table in OWNED
    }
    return found | {table: await database.read(one(f"select * from {table}")) for table in OF_SESSIONS}


@pytest.fixture
async def theirs(database: Database) -> tuple[str, str]:
    """A session with a question, and one of everything else."""
    sessions = Sessions(database)
    id = await sessions.running()
    question = await sessions.ask(await sessions.row(id))
    await sessions.admission.admit(ANN, id, HELLO, key="key")
    await database.write(interrupts.grant(ANN, id, "shell", "ann"))
    await database.write(waits.wait_for(ANN, id, "another"))
    await database.write(artifacts.put(ANN, id, 1, "kept", name="long.txt", media_type="text/plain", data=b"all"))
    await database.write(agents.put(ANN, "helper", "d1", "{}", create=True, update=True))
    await database.write(schedules.create(ANN, "s1", "nightly", TIMES, 1.0))
    await database.write(schedules.record("s1", 0.0, "started", missed=0, execution_id=id))
    await database.write(workflows.put(ANN, "default", "hello", digest="d1", source="x", options="{}"))
    await database.write(memories.put(ANN, "helper", "city", '"Rome"', ["rome"], "call"))
    for name in ("city", "other"):
        await database.write(configs.put(ANN, name, "Rome"))
        await database.write(secrets.put(ANN, name, "Rome"))
    return id, question


@pytest.mark.behaviour("store:tenants:apart")
@pytest.mark.parametrize("name", CALLS)
async def test_a_stranger_sees_and_changes_nothing(database: Database, theirs: tuple[str, str], name: str) -> None:
    before = await belongings(database)
    assert all(before.values())
    call, expected = CALLS[name]
    if isinstance(expected, type):
        with pytest.raises(expected):
            await database.write(call(EVE, *theirs))
    else:
        assert await database.write(call(EVE, *theirs)) == expected
    assert await belongings(database) == before


@pytest.mark.behaviour("store:tenants:apart")
async def test_an_ended_session_is_not_deleted_by_a_stranger(database: Database, theirs: tuple[str, str]) -> None:
    await Sessions(database).admission.end(ANN, theirs[0])
    before = await belongings(database)
    assert not await database.write(executions.delete(EVE, theirs[0]))
    assert await belongings(database) == before


@pytest.mark.behaviour("store:tenants:apart")
async def test_a_stranger_pulls_nothing(postgres_url: str) -> None:
    database = await open_database(postgres_url)
    id = await Sessions(database).running()
    assert await database.single(deltas.pull(ANN, id, None, 0, 0)) is not None
    assert await database.single(deltas.pull(EVE, id, None, 0, 0)) is None
    await database.close()


@pytest.mark.behaviour("store:tenants:apart")
def test_every_function_that_acts_for_somebody_is_tried() -> None:
    found = {
        f"{noun.__name__.rpartition('.')[2]}.{name}"
        for noun in NOUNS
        for name, function in inspect.getmembers(noun, inspect.isfunction)
        if function.__module__ == noun.__name__
        and not name.startswith("_")
        and "scope" in inspect.signature(function).parameters
    }
    assert found == set(CALLS) | {"deltas.pull"}  # of a table that only Postgres has
