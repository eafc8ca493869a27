"""Opening a database: fresh, old, too new, in use, not one at all."""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flux.errors import DatabaseLocked, DatabaseTooNew, DatabaseUnavailable, SettingsInvalid
from flux.store import configs
from flux.store.database import hide_password, one
from flux.store.migrations import upgrade
from flux.store.opening import found_schema, open_database
from flux.store.schema import VERSION
from tests.integration.states import ANN, Sessions
from tests.integration.store.raw import connected, path_of, run

OPEN_IT = """
import asyncio, sys
from flux.store.opening import open_database
from flux.store.database import one

async def main():
    print("ready", flush=True)
    sys.stdin.readline()
    database = await open_database(sys.argv[1])
    await database.write(one("insert into waits values (:me, '')", me=sys.argv[2]))
    await database.close()

asyncio.run(main())
"""


def schema_of(url: str) -> list[Any]:
    """Every table, column and index, without the names of places."""
    if url.startswith("sqlite"):
        return run(
            url, "select type, name, tbl_name, sql from sqlite_master where name <> 'alembic_version' order by 2"
        )
    columns = run(
        url,
        "select table_name, column_name, data_type, is_nullable, column_default from information_schema.columns"
        " where table_schema = current_schema() and table_name <> 'alembic_version' order by 1, ordinal_position",
    )
    indexes = run(
        url,
        "select tablename, indexname, replace(indexdef, current_schema(), '') from pg_indexes"
        " where schemaname = current_schema() and tablename <> 'alembic_version' order by 1, 2",
    )
    return columns + indexes


def empty(url: str) -> None:
    if url.startswith("sqlite"):
        path_of(url).unlink()
    else:
        (schema,) = run(url, "select current_schema()")[0]
        with connected(url) as connection:
            connection.execute(f"drop schema {schema} cascade")
            connection.execute(f"create schema {schema}")


async def opened_and_closed(url: str) -> None:
    await (await open_database(url)).close()


@pytest.mark.behaviour("store:open:migrations-agree")
async def test_a_fresh_database_and_a_migrated_one_are_the_same(database_url: str) -> None:
    await opened_and_closed(database_url)
    fresh = schema_of(database_url)
    assert run(database_url, "select version_num from alembic_version") == [(VERSION,)]
    empty(database_url)
    upgrade(database_url)
    assert run(database_url, "select version_num from alembic_version") == [(VERSION,)]
    assert schema_of(database_url) == fresh != []
    database = await open_database(database_url)
    assert (await Sessions(database).row(await Sessions(database).ended())).state == "ended"
    await database.close()


@pytest.mark.behaviour("store:open:migrations-agree")
async def test_both_spellings_of_a_postgres_url_are_understood(postgres_url: str) -> None:
    short = postgres_url.replace("postgresql://", "postgres://", 1)
    upgrade(short)
    await opened_and_closed(short)


@pytest.mark.behaviour("store:open:again")
async def test_what_was_written_is_there_when_it_is_opened_again(database_url: str) -> None:
    for expected in (None, "1"):
        database = await open_database(database_url)
        assert await database.read(configs.get(ANN, "a")) == expected
        await database.write(configs.put(ANN, "a", "1"))
        await database.close()


@pytest.mark.behaviour("store:open:too-new")
async def test_a_newer_schema_is_refused_and_left_as_it_is(database_url: str) -> None:
    await opened_and_closed(database_url)
    run(database_url, "update alembic_version set version_num = '9999'")
    before = (schema_of(database_url), run(database_url, "select * from alembic_version"))
    file = path_of(database_url).read_bytes() if database_url.startswith("sqlite") else b""
    with pytest.raises(DatabaseTooNew, match="9999"):
        await open_database(database_url)
    if file:
        assert path_of(database_url).read_bytes() == file
    assert (schema_of(database_url), run(database_url, "select * from alembic_version")) == before


@pytest.mark.behaviour("store:open:together")
async def test_a_fresh_database_may_be_opened_many_times_at_once(database_url: str) -> None:
    databases = await asyncio.gather(*(open_database(database_url) for _ in range(6)))
    for n, database in enumerate(databases):
        await database.write(configs.put(ANN, f"c{n}", "x"))
    assert len(await databases[0].read(configs.names(ANN))) == 6
    for database in databases:
        await database.close()


@pytest.mark.behaviour("store:open:together")
async def test_processes_may_open_a_fresh_database_at_once(database_url: str) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN_IT, database_url, str(n)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for n in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        _, errors = process.communicate()
        assert (process.returncode, errors) == (0, "")
    assert run(database_url, "select execution_id from waits order by 1") == [("0",), ("1",), ("2",)]
    assert run(database_url, "select version_num from alembic_version") == [(VERSION,)]


@pytest.mark.behaviour("store:open:private-file")
async def test_the_file_and_its_folder_are_the_users_own(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "flux.db"
    database = await open_database(f"sqlite:///{path}")
    await database.write(configs.put(ANN, "a", "1"))
    assert [file.stat().st_mode & 0o777 for file in sorted(path.parent.iterdir())] == [0o600] * 3
    assert path.parent.stat().st_mode & 0o077 == 0
    await database.close()


@pytest.mark.behaviour("store:open:unusable")
async def test_what_is_no_database_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("this is not a database, but it is long enough to look at" * 20)
    (tmp_path / "file").touch()
    for path in (tmp_path / "text.db", tmp_path, tmp_path / "file" / "flux.db"):
        with pytest.raises(DatabaseUnavailable, match=path.name):
            await open_database(f"sqlite:///{path}")
    assert (tmp_path / "text.db").read_text().startswith("this is not")


@pytest.mark.behaviour("store:open:url")
@pytest.mark.parametrize("url", ["mysql://user:secret@host/db", "flux.db", "", "sqlite://flux.db"])
async def test_a_url_of_another_kind_is_refused_without_showing_its_password(url: str) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        await open_database(url)
    assert "sqlite:///" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.behaviour("store:open:url")
def test_a_url_is_shown_without_its_password() -> None:
    assert hide_password("postgresql://ann:se@cret@db:5432/flux") == "postgresql://ann@db:5432/flux"
    assert hide_password("postgresql://db/flux?user=a&password=se%20cret&x=1") == (
        "postgresql://db/flux?user=a&password=***&x=1"
    )
    assert hide_password("sqlite:////data/flux.db") == "sqlite:////data/flux.db"


@pytest.mark.behaviour("store:sqlite:locked")
async def test_a_lock_of_another_process_fails_writes_while_reads_go_on(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flux.store._sqlite.BUSY_SECONDS", 0.1)
    database = await open_database(sqlite_url)
    await database.write(configs.put(ANN, "a", "1"))
    with connected(sqlite_url) as other:
        other.execute("begin exclusive")
        with pytest.raises(DatabaseLocked, match="another process"):
            await database.write(configs.put(ANN, "a", "2"))
        assert await database.read(configs.get(ANN, "a")) == "1"
        assert await database.scan(configs.get(ANN, "a")) == "1"
        second = await open_database(sqlite_url)
        assert await second.read(one("select count(*) from configs")) == [(1,)]
        await second.close()
        other.execute("rollback")
    await database.write(configs.put(ANN, "a", "3"))
    assert await database.read(configs.get(ANN, "a")) == "3"
    await database.close()


@pytest.mark.behaviour("store:sqlite:locked")
async def test_a_fresh_file_locked_by_another_process_is_named_as_such(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flux.store._sqlite.BUSY_SECONDS", 0.1)
    with connected(sqlite_url) as other:
        other.execute("begin exclusive")
        with pytest.raises(DatabaseLocked):
            await open_database(sqlite_url)
        other.execute("rollback")
    await opened_and_closed(sqlite_url)


@pytest.mark.behaviour("cli:db")
async def test_the_schema_of_a_database_is_told_without_making_it(database_url: str) -> None:
    for _ in range(2):
        assert await found_schema(database_url) is None
    await (await open_database(database_url)).close()
    assert await found_schema(database_url) == VERSION


@pytest.mark.behaviour("cli:db")
async def test_a_database_server_that_is_not_there_is_said(tmp_path: Path) -> None:
    assert await found_schema(f"sqlite:///{tmp_path}/nowhere/flux.db") is None
    with pytest.raises(DatabaseUnavailable, match="does not answer"):
        await found_schema("postgresql://127.0.0.1:9/x")
