"""Registered workflows, and what is deleted of executions that ended."""

import asyncio

import anyio
import pytest

from flux.engine.service.registration import Workflows
from flux.engine.service.retention import Retention
from flux.engine.sources.catalog import read_source
from flux.engine.sources.source import CatalogCode, SourceLoader
from flux.errors import WorkflowNotFound
from flux.store import artifacts, executions, interrupts, retention, waits, workflows
from flux.store.database import NEWEST, Database, one
from flux.store.workflows import WorkflowVersion
from tests.integration.states import ANN, BOB, EVE, HELLO, Sessions

SOURCE = """\
from flux import workflow

@workflow
async def hello(ctx):
    return {number}

@workflow.with_options(namespace="billing")
async def pay(ctx): ...
"""
LEFT = ("events", "interrupts", "grants", "admissions", "waits", "artifacts")
DAY = 86_400.0


def source(number: int = 1) -> bytes:
    return SOURCE.format(number=number).encode()


def told(found: list[WorkflowVersion]) -> list[tuple[str, int]]:
    return [(one.qualified_name, one.version) for one in found]


@pytest.mark.behaviour("store:workflows:versions")
async def test_each_new_source_is_a_version_and_the_same_again_is_none(database: Database) -> None:
    registered = Workflows(database)
    first = await registered.register(ANN, source(1))
    assert told(first) == [("billing/pay", 1), ("default/hello", 1)]
    assert await registered.register(BOB, source(1)) == first
    assert told(await registered.register(BOB, source(2))) == [("billing/pay", 2), ("default/hello", 2)]
    assert await registered.get(ANN, "default", "hello", 1) == first[1]
    current = await registered.get(ANN, "default", "hello")
    assert (current.version, current.author, current.source) == (2, "bob", source(2).decode())
    before, limit = NEWEST, 9
    assert [v.version for v in await registered.versions(ANN, "default", "hello", before, limit)] == [2, 1]
    await registered.delete(ANN, "default", "hello")
    assert await registered.get(ANN, "default", "hello", 1) == first[1]
    for missing in (registered.get(ANN, "default", "hello"), registered.delete(ANN, "default", "hello")):
        with pytest.raises(WorkflowNotFound):
            await missing
    assert told(await registered.register(ANN, source(2))) == [("billing/pay", 2), ("default/hello", 3)]


@pytest.mark.behaviour("store:workflows:versions")
async def test_many_that_register_at_once_make_one_version_of_each_source(
    database: Database, other_database: Database
) -> None:
    async def register(side: Database, number: int) -> None:
        await Workflows(side).register(ANN, source(number))

    async with anyio.create_task_group() as group:
        for n in range(8):
            group.start_soon(register, (database, other_database)[n % 2], 1)
    registered = Workflows(database)
    assert len(await registered.versions(ANN, "default", "hello", NEWEST, 50)) == 1
    async with anyio.create_task_group() as group:
        for n in range(2, 10):
            group.start_soon(register, (database, other_database)[n % 2], n)
    found = await registered.versions(ANN, "default", "hello", NEWEST, 50)
    assert [one.version for one in found] == list(range(9, 0, -1))
    assert (await registered.get(ANN, "default", "hello")).version == 9


@pytest.mark.behaviour("store:workflows:listed")
async def test_workflows_are_listed_by_namespace_and_name_without_their_sources(database: Database) -> None:
    registered = Workflows(database)
    await registered.register(ANN, source())
    for namespace, name in (("a", "z"), ("b", "a"), ("b", "b")):
        await database.write(workflows.put(ANN, namespace, name, digest="d", source="x", options="{}"))
    pages: list[str] = []
    after = ("", "")
    while page := await registered.page(ANN, None, after, 2):
        assert {one.source for one in page} == {""}
        pages += [one.qualified_name for one in page]
        after = (page[-1].namespace, page[-1].name)
    assert pages == ["a/z", "b/a", "b/b", "billing/pay", "default/hello"]
    assert [one.name for one in await registered.page(ANN, "b", ("", ""), 9)] == ["a", "b"]
    assert await registered.page(EVE, None, ("", ""), 9) == []


@pytest.mark.behaviour("workflows:load:pinned")
async def test_the_code_of_an_execution_is_of_the_version_it_began_with(database: Database) -> None:
    registered = Workflows(database)
    code, forgetful = CatalogCode(database, SourceLoader()), CatalogCode(database, SourceLoader(kept=1))
    ids: dict[int, str] = {}
    for number in (1, 2):
        found = (await registered.register(ANN, source(number)))[1]
        ids[number] = f"run-{number}"
        await database.write(
            executions.create_workflow(
                ANN, id=ids[number], workflow=found.qualified_name, source_version=found.version, pool="default"
            )
        )
    await registered.delete(ANN, "default", "hello")
    for number, id in [*ids.items(), *ids.items()]:
        row = await database.read(executions.get(ANN, id))
        assert row is not None
        assert await (await code(row))(None) == await (await forgetful(row))(None) == number
    await database.write(
        executions.create_workflow(ANN, id="none", workflow="default/other", source_version=1, pool="default")
    )
    row = await database.read(executions.get(ANN, "none"))
    assert row is not None
    with pytest.raises(WorkflowNotFound, match="no workflow default/other"):
        await code(row)


#: A row that an execution drives.
COPIED = executions.COLUMNS.replace("driver", ":root").replace("id,", "'driven',", 1)
DRIVEN = f"insert into executions ({executions.COLUMNS}) select {COPIED} from executions where id = :root"


@pytest.mark.behaviour("store:retention")
async def test_what_ended_long_ago_is_deleted_with_all_it_left_behind(database: Database) -> None:
    sessions = Sessions(database)
    old, recent, child, parent = [await sessions.running() for _ in range(4)]
    await sessions.ask(await sessions.row(old))
    await sessions.admission.admit(ANN, old, HELLO, key="key")
    await database.write(interrupts.grant(ANN, old, "shell", "ann"))
    await database.write(waits.wait_for(ANN, old, "another"))
    await database.write(artifacts.put(ANN, old, 1, "a1", name="long", media_type="text/plain", data=b"long"))
    for table in LEFT:
        assert await database.read(one(f"select 1 from {table} where execution_id = :id", id=old)), table
    for id in (old, recent, child):
        await sessions.admission.end(ANN, id)
    await database.write(one(DRIVEN, root=old))
    await database.write(one("update executions set parent = :parent where id = :id", parent=parent, id=child))
    await database.write(one("update executions set updated = :now - 10 * 86400 where id <> :id", id=recent))
    for seconds, gone in ((20 * DAY, 0), (0, 0), (5 * DAY, 1), (5 * DAY, 0)):
        assert await Retention(database, seconds).delete() == gone
    rows = await database.read(one("select id from executions"))
    assert {row[0] for row in rows} == {recent, child, parent}
    for table in LEFT:
        assert not await database.read(one(f"select 1 from {table} where execution_id = :id", id=old)), table
    assert await database.read(retention.counted()) == {("session", "ended"): 2, ("session", "running"): 1}
    await sessions.admission.end(ANN, parent)
    assert await Retention(database, 5 * DAY).delete() == 1


@pytest.mark.behaviour("store:retention")
async def test_a_process_deletes_in_batches_what_its_settings_say(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = Sessions(database)
    for id in [await sessions.running() for _ in range(5)]:
        await sessions.admission.end(ANN, id)
    await database.write(one("update executions set updated = 0"))
    monkeypatch.setattr("flux.engine.service.retention.BATCH", 2)
    watching = asyncio.create_task(Retention(database, DAY).watch())
    async with asyncio.timeout(20):
        while await database.read(retention.counted()):
            await anyio.lowlevel.checkpoint()
    watching.cancel()
    await asyncio.wait((watching,))
    await Retention(database, 0).watch()


@pytest.mark.behaviour("store:workflows:versions")
def test_the_digest_is_of_the_text_alone() -> None:
    assert read_source(b"\xef\xbb\xbf" + source()).digest == read_source(source()).digest
    assert read_source(source(1)).digest != read_source(source(2)).digest
