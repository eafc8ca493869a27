"""No function of the store shows or touches what belongs to another tenant."""

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from flux.errors import (
    AgentNotFound,
    Fenced,
    PrincipalNotFound,
    ScheduleNotFound,
    SessionExists,
    SessionNotFound,
    WorkflowNotFound,
)
from flux.events import Cancelled, CancelRequested, SessionStarted, UsageCounted
from flux.messages import Usage
from flux.store import (
    admissions,
    agents,
    artifacts,
    audit,
    budgets,
    callers,
    configs,
    conversations,
    deltas,
    driven,
    executions,
    files,
    forks,
    interrupts,
    log,
    memories,
    principals,
    schedules,
    secrets,
    waits,
    webhooks,
    workflows,
)
from flux.store.agents import AgentVersion
from flux.store.database import Database, Row, Scope, Steps, one
from flux.store.driven import Awaited, Driver
from flux.store.log import History
from flux.store.memories import Word
from flux.store.opening import open_database
from flux.store.workers import Presence
from tests.integration.states import ANN, EVE, HELLO, Sessions

NOUNS: list[ModuleType] = [
    admissions,
    agents,
    artifacts,
    callers,
    audit,
    budgets,
    configs,
    conversations,
    deltas,
    driven,
    executions,
    files,
    forks,
    interrupts,
    log,
    memories,
    principals,
    schedules,
    secrets,
    waits,
    webhooks,
    workflows,
]
Call = Callable[[Scope, str, str], Steps[Any]]


def _create(scope: Scope, id: str, question: str) -> Steps[Any]:
    names = {"agent": "helper", "instance": "i", "name": "n"}
    return executions.create_session(scope, id=f"own-{id}", agent_version=None, definition_digest="d", **names)


def _ask(scope: Scope, id: str, question: str) -> Steps[Any]:
    return interrupts.open_interrupt(scope, id="new", execution_id=id, call=None, kind="input", payload={})


BOB = Presence("bob")
HELLO_SAID = CancelRequested(run="r")
STARTED = SessionStarted(agent="helper", instance="i", name="default", definition_digest="")
TIMES = schedules.Given(target="agent", agent="helper", message="hi", spec='{"type":"interval","seconds":60}')


def _own_schedule(scope: Scope, id: str, question: str) -> Steps[Any]:
    yield from schedules.create(scope, f"own-{id}", "nightly", TIMES, 1.0)


def _own_principal(scope: Scope, id: str, question: str) -> Steps[Any]:
    yield from principals.create(scope, "ci", "service_account")


def _schedule(scope: Scope, id: str, question: str) -> Steps[Any]:
    return schedules.replace(scope, "nightly", TIMES, "paused", None)


def _register(scope: Scope, id: str, question: str) -> Steps[Any]:
    """A stranger's workflow of the same name is another one."""
    yield from workflows.put(scope, "default", "hello", digest="d2", source="other", options="{}")


def _keep(scope: Scope, id: str, question: str) -> Steps[Any]:
    return artifacts.put(scope, id, 1, "kept", name="other.txt", media_type="text/plain", data=b"stolen")


#: An agent whose workflow is that of another tenant.
TALKER = AgentVersion("hello", 1, "d1", '{"workflow_file":{"digest":"d1"}}', "eve", 1.0)


def _own_webhook(scope: Scope) -> Steps[None]:
    """A stranger's webhook of the same name is another one."""
    yield from webhooks.create(scope, f"own-{scope.tenant}", "audit", "https://example.org", "run.failed", None)


DELIVERY = "msg_theirs"
COPY = forks.NewFork(id="copy", name="copy", at=1, ending=())

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
    "artifacts.link": (lambda s, id, q: artifacts.link(s, id, 9, "copy"), None),
    "artifacts.page": (lambda s, id, q: artifacts.page(s, id), []),
    "artifacts.put": (_keep, Fenced),
    "artifacts.read_in_tree": (lambda s, id, q: artifacts.read_in_tree(s, id, "kept"), None),
    "callers.enter": (lambda s, id, q: callers.enter(s, id, BOB, [], None, None), SessionNotFound),
    "callers.restore": (lambda s, id, q: callers.restore(s, id, History((HELLO_SAID,), 1)), ()),
    "callers.find": (lambda s, id, q: callers.find(s, "helper", "i", "default"), None),
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
    "driven.hold": (lambda s, id, q: driven.hold(s, Driver(id, 1, "w", id)), Fenced),
    "driven.make": (lambda s, id, q: driven.make(s, Driver(id, 1, "w", id), id, STARTED), SessionExists),
    "driven.remove": (lambda s, id, q: driven.remove(s, Driver(id, 1, "w", id), "child"), Fenced),
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
    "executions.under_way": (lambda s, id, q: executions.under_way(s, 5), 0),
    "executions.set_title": (lambda s, id, q: executions.set_title(s, id, "mine"), False),
    "files.copy": (lambda s, id, q: files.copy(s, id, "own"), None),
    "files.load": (lambda s, id, q: files.load(s, id), []),
    "files.save": (lambda s, id, q: files.save(s, id, 1, id, [], ["/notes"]), Fenced),
    "forks.fork": (lambda s, id, q: forks.fork(s, id, COPY), SessionNotFound),
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
    "log.resume": (lambda s, id, q: log.resume(s, id), []),
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
    "audit.record": (lambda s, id, q: audit.record(s, "agent.create", "helper"), None),
    "audit.noted": (lambda s, id, q: audit.noted(s, secrets.get(s, "city"), "secret.read", "city"), None),
    "audit.noted_if": (lambda s, id, q: audit.noted_if(s, secrets.remove(s, "city"), "secret.remove", "city"), False),
    "audit.page": (lambda s, id, q: audit.page(s), []),
    "principals.create": (_own_principal, None),
    "principals.create_key": (lambda s, id, q: principals.create_key(s, "ci", "k", "d2", None), PrincipalNotFound),
    "principals.delete": (lambda s, id, q: principals.delete(s, "ci"), PrincipalNotFound),
    "principals.delete_role": (lambda s, id, q: principals.delete_role(s, "reader"), False),
    "principals.get": (lambda s, id, q: principals.get(s, "ci"), None),
    "principals.get_role": (lambda s, id, q: principals.get_role(s, "reader"), None),
    "principals.grant": (lambda s, id, q: principals.grant(s, "ci", "admin"), PrincipalNotFound),
    "principals.held": (lambda s, id, q: principals.held(s, "ci"), {}),
    "principals.list_keys": (lambda s, id, q: principals.list_keys(s, "ci"), []),
    "principals.list_roles": (lambda s, id, q: principals.list_roles(s), []),
    "principals.page": (lambda s, id, q: principals.page(s, "service_account"), []),
    "principals.put_role": (lambda s, id, q: principals.put_role(s, "reader", ("*",), create=False), None),
    "principals.revoke": (lambda s, id, q: principals.revoke(s, "ci", "reader"), False),
    "principals.revoke_key": (lambda s, id, q: principals.revoke_key(s, "ci", "key"), False),
    "principals.roles_of": (lambda s, id, q: principals.roles_of(s, "ci"), []),
    "principals.set_state": (lambda s, id, q: principals.set_state(s, "ci", "disabled"), PrincipalNotFound),
    "budgets.taken": (lambda s, id, q: budgets.taken(s, "helper", "x"), (0, 0.0)),
    "budgets.reserve": (lambda s, id, q: budgets.reserve(s, "helper", "own", 1, 0.0), None),
    "budgets.spend": (lambda s, id, q: budgets.spend(s, "helper", id, 1, 0.0), None),
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
    "webhooks.create": (lambda s, id, q: _own_webhook(s), None),
    "webhooks.delete": (lambda s, id, q: webhooks.delete(s, "audit"), None),
    "webhooks.deliveries": (lambda s, id, q: webhooks.deliveries(s, "audit"), []),
    "webhooks.get": (lambda s, id, q: webhooks.get(s, "audit"), None),
    "webhooks.note": (lambda s, id, q: webhooks.note(s, id, "run.failed", "k", {}), 0),
    "webhooks.note_end": (lambda s, id, q: webhooks.note_end(s, id, "r", 9, Cancelled()), 0),
    "webhooks.note_waiting": (lambda s, id, q: webhooks.note_waiting(s, id, "r", 9, "input"), 0),
    "webhooks.page": (lambda s, id, q: webhooks.page(s), []),
    "webhooks.redeliver": (lambda s, id, q: webhooks.redeliver(s, "audit", DELIVERY), None),
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
    "files",
    "configs",
    "principals",
    "principal_roles",
    "roles",
    "api_keys",
    "admissions",
    "memories",
    "memory_writes",
    "schedules",
    "secrets",
    "webhooks",
    "webhook_deliveries",
    "workflows",
    "workflow_versions",
    "spendings",
    "audit",
    "reservations",
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
    await database.write(files.save(ANN, id, 1, id, [files.KeptFile("/notes", "file", 0o644, b"mine")], []))
    await database.write(budgets.spend(ANN, "helper", "other", 5, 0.1))
    await database.write(budgets.reserve(ANN, "helper", id, 5, 0.1))
    await database.write(agents.put(ANN, "helper", "d1", "{}", create=True, update=True))
    await database.write(schedules.create(ANN, "s1", "nightly", TIMES, 1.0))
    await database.write(schedules.record("s1", 0.0, "started", missed=0, execution_id=id))
    await database.write(_own_webhook(ANN))
    await database.write(webhooks.note(ANN, id, "run.failed", "k", {}))
    await database.write(one("update webhook_deliveries set id = :id", id=DELIVERY))
    await database.write(workflows.put(ANN, "default", "hello", digest="d1", source="x", options="{}"))
    await database.write(memories.put(ANN, "helper", "city", '"Rome"', ["rome"], "call"))
    await database.write(principals.create(ANN, "ci", "service_account"))
    await database.write(principals.grant(ANN, "ci", "reader"))
    await database.write(principals.put_role(ANN, "reader", ("agent:*:read",), create=True))
    await database.write(principals.create_key(ANN, "ci", "key", "d1", None))
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
