"""Artifacts: kept once per call and number, by the owner of the execution alone, and paged in their order."""

import pytest

from flux.errors import Fenced
from flux.store import artifacts, executions
from flux.store.artifacts import Artifact, artifact_id
from flux.store.database import Database, Steps, one
from flux.store.executions import Execution
from tests.integration.states import ANN, BOB, Sessions

#: A session that another one drives.
COPIED = executions.COLUMNS.replace("driver", ":root").replace("instance", "'other'").replace("id,", "'driven',", 1)
DRIVEN = f"insert into executions ({executions.COLUMNS}) select {COPIED} from executions where id = :root"


def kept(row: Execution, n: int, data: bytes) -> Steps[None]:
    id = artifact_id(row.id, "c1", n)
    return artifacts.put(ANN, row.id, row.epoch, id, name=f"{n}.bin", media_type="image/png", data=data)


@pytest.mark.behaviour("artifacts:once")
async def test_the_same_call_keeps_each_of_its_artifacts_once(database: Database) -> None:
    row = await Sessions(database).row(await Sessions(database).running())
    for data in (b"first\0\xff", b"again"):
        await database.write(kept(row, 0, data))
    await database.write(kept(row, 1, b""))
    found = await database.read(artifacts.page(ANN, row.id))
    assert [(one.name, one.size) for one in found] == [("0.bin", 5), ("1.bin", 0)]
    first = await database.read(artifacts.get(ANN, row.id, artifact_id(row.id, "c1", 0)))
    assert first == (found[0], b"again")
    assert found[0].digest != found[1].digest


@pytest.mark.behaviour("artifacts:fenced")
async def test_whoever_lost_the_execution_keeps_nothing(database: Database) -> None:
    sessions = Sessions(database)
    row = await sessions.row(await sessions.running())
    await database.write(kept(row, 0, b"before"))
    await database.write(one("update executions set epoch = epoch + 1 where id = :id", id=row.id))
    for n in (0, 1):
        with pytest.raises(Fenced):
            await database.write(kept(row, n, b"late"))
    (only,) = await database.read(artifacts.page(ANN, row.id))
    assert await database.read(artifacts.get(ANN, row.id, only.id)) == (only, b"before")


@pytest.mark.behaviour("artifacts:list")
async def test_artifacts_come_in_pages_oldest_first(database: Database) -> None:
    row = await Sessions(database).row(await Sessions(database).running())
    for n in range(5):
        await database.write(kept(row, n, b"x" * n))
    found: list[Artifact] = []
    while page := await database.read(
        artifacts.page(ANN, row.id, (found[-1].created, found[-1].id) if found else None, 2)
    ):
        found += page
    assert [one.name for one in found] == [f"{n}.bin" for n in range(5)]


@pytest.mark.behaviour("artifacts:read")
async def test_a_tree_of_sessions_shares_what_it_has_kept(database: Database) -> None:
    sessions = Sessions(database)
    row = await sessions.row(await sessions.running())
    await database.write(kept(row, 0, b"whole"))
    await database.write(one(DRIVEN, root=row.id))
    id = artifact_id(row.id, "c1", 0)
    assert await database.read(artifacts.read_in_tree(ANN, "driven", id)) == ("image/png", b"whole")
    assert await database.read(artifacts.read_in_tree(ANN, row.id, id)) == ("image/png", b"whole")
    assert await database.read(artifacts.read_in_tree(ANN, await sessions.running(), id)) is None
    assert await database.read(artifacts.read_in_tree(BOB, row.id, id)) == ("image/png", b"whole")
    assert await database.read(artifacts.get(ANN, "driven", id)) is None
    await sessions.admission.end(ANN, row.id)
    await database.write(executions.delete(ANN, row.id))
    assert await database.read(one("select count(*) from artifacts")) == [(0,)]
