"""A Postgres that is there and yet of no use: everything that means so is the same error."""

import psycopg
import pytest

from flux.errors import DatabaseUnavailable
from flux.store.database import Steps, one
from flux.store.opening import open_database

MADE = "update executions set updated = 0"


def ends_its_session() -> Steps[None]:
    yield "select pg_terminate_backend(pg_backend_pid())", {}
    yield MADE, {}


def waits_too_long() -> Steps[None]:
    yield "set local statement_timeout = 1", {}
    yield "select pg_sleep(60)", {}


def is_read_only() -> Steps[None]:
    yield "set transaction read only", {}
    yield MADE, {}


def closed_connection() -> Steps[None]:
    yield "select 1", {}
    raise psycopg.InterfaceError("the connection is closed")


@pytest.mark.behaviour("engine:postgres:trouble")
@pytest.mark.parametrize("program", [ends_its_session, waits_too_long, is_read_only, closed_connection])
async def test_a_server_that_is_gone_slow_or_read_only_is_unavailable(postgres_url: str, program: object) -> None:
    database = await open_database(postgres_url)
    with pytest.raises(DatabaseUnavailable) as caught:
        await database.write(program())  # type: ignore[operator]
    assert "does not answer" in str(caught.value)
    assert await database.read(one("select 1")) == [(1,)]
    await database.close()
