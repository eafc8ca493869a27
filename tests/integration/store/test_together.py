"""Programs beside each other: each gets its own rows, and all of a step is one transaction."""

import contextlib

import pytest

from flux.entries.workflows import WorkflowStarted
from flux.store import configs, executions, log
from flux.store.database import Database, Steps, one, together
from tests.integration.states import ANN, Sessions

WORKER = "w-together"


def counted(upto: int) -> Steps[list[int]]:
    """A program of so many steps."""
    found: list[int] = []
    for n in range(upto):
        rows = yield "select cast(:n as integer)", {"n": n}
        found.append(rows[0][0])
    return found


def put_then_fail(name: str) -> Steps[None]:
    """A statement that works, and one that does not, in one step."""
    yield from together(configs.put(ANN, name, "never"), one("insert into nowhere values (1)"))


@pytest.mark.behaviour("store:database:together")
async def test_each_of_several_programs_gets_its_own_rows(database: Database) -> None:
    for run in (database.read, database.write):
        assert await run(together(counted(3), counted(0), counted(1))) == [[0, 1, 2], [], [0]]
        assert await run(together()) == []
    nothing, written = await database.write_one(together(one("select 1 where 1 = 0"), configs.put(ANN, "name", "x")))
    assert (nothing, written) == ([], None)
    assert await database.single(together(configs.get(ANN, "name"), one("select 7"))) == ["x", [(7,)]]


@pytest.mark.behaviour("store:database:together")
async def test_what_fails_in_a_step_undoes_all_of_it(database: Database) -> None:
    for write in (database.write, database.write_one):
        with contextlib.suppress(Exception):  # each driver has its own
            await write(put_then_fail("name"))
        assert await database.read(configs.get(ANN, "name")) is None
    await database.write(configs.put(ANN, "name", "x"))
    assert await database.read(configs.get(ANN, "name")) == "x"


@pytest.mark.behaviour("claims:plain:log")
async def test_a_claim_brings_the_log_of_a_workflow_and_of_nothing_else(database: Database) -> None:
    made = executions.create_workflow(ANN, id="flow", workflow="a/b", source_version=None, pool="default")
    await database.write(made)
    session = await Sessions(database).running()
    take = "update executions set state = 'running', worker = :worker where id = :id"
    for id in ("flow", session):
        await database.write(one(take, id=id, worker=WORKER))
    await database.write(log.insert("flow", [WorkflowStarted()], 1, "flow", 1))
    assert [stored.seq for stored in await database.read(log.load_claimed("flow", WORKER, 5))] == [1]
    assert await database.read(log.load_claimed("flow", "another", 5)) == []
    assert await database.read(log.load_claimed(session, WORKER, 5)) == []
    await database.write(one("update executions set head = 6 where id = 'flow'"))
    assert await database.read(log.load_claimed("flow", WORKER, 5)) == []
