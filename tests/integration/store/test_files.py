"""Files of virtual sandboxes: kept by the owner of the execution alone, and as the last one left them."""

import pytest

from flux.errors import Fenced
from flux.store import files
from flux.store.database import Database, one
from flux.store.files import KeptFile
from tests.integration.states import ANN, Sessions

OLD, NEW = KeptFile("/a", "file", 0o644, b"old\0\xff"), KeptFile("/a", "symlink", 0o777, b"b")
FOLDER = KeptFile("/a/b", "directory", 0o755, b"")


@pytest.mark.behaviour("sandbox:virtual:rows")
async def test_what_changes_is_replaced_and_what_goes_is_gone(database: Database) -> None:
    row = await Sessions(database).row(await Sessions(database).running())
    await database.write(files.save(ANN, row.id, row.epoch, row.id, [FOLDER, OLD], []))
    assert await database.read(files.load(ANN, row.id)) == [OLD, FOLDER]
    await database.write(files.save(ANN, row.id, row.epoch, row.id, [NEW], ["/a/b", "/none"]))
    assert await database.read(files.load(ANN, row.id)) == [NEW]


@pytest.mark.behaviour("sandbox:virtual:rows")
async def test_whoever_lost_the_execution_changes_nothing(database: Database) -> None:
    sessions = Sessions(database)
    row = await sessions.row(await sessions.running())
    await database.write(files.save(ANN, row.id, row.epoch, row.id, [OLD], []))
    await database.write(one("update executions set epoch = epoch + 1 where id = :id", id=row.id))
    with pytest.raises(Fenced):
        await database.write(files.save(ANN, row.id, row.epoch, row.id, [NEW], ["/a"]))
    assert await database.read(files.load(ANN, row.id)) == [OLD]


@pytest.mark.behaviour("sandbox:virtual:forgotten")
async def test_files_of_an_instance_stay_as_long_as_it_has_a_session(database: Database) -> None:
    sessions = Sessions(database)
    row = await sessions.row(await sessions.running())
    place = files.place_of(row.agent or "", row.instance or "")
    await database.write(files.save(ANN, row.id, row.epoch, place, [OLD], []))
    await database.write(files.forget_instances())
    assert await database.read(files.load(ANN, place)) == [OLD]
    await database.write(one("delete from executions where id = :id", id=row.id))
    await database.write(files.forget_instances())
    assert await database.read(files.load(ANN, place)) == []
