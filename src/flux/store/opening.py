"""From a database URL to an open database."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from flux.errors import MissingPackage, SettingsInvalid
from flux.store._sqlite import SqliteDatabase, copy_to, schema_of
from flux.store.database import CommitObserver, Database, hide_password
from flux.store.schema import FLUX, Schema

POSTGRES = ("postgresql://", "postgres://")


async def open_database(
    url: str,
    *,
    synchronous: str = "full",
    observer: CommitObserver | None = None,
    schema: Schema = FLUX,
    connections: int = 8,
) -> Database:
    """Open `sqlite:///PATH` or `postgresql://…`, made or migrated to the present schema.

    At most so many `connections` to Postgres.

    :raises SettingsInvalid: the URL is of another kind
    :raises MissingPackage: Postgres support is not installed
    :raises DatabaseUnavailable, DatabaseLocked, DatabaseTooNew: it cannot be used
    """
    if url.startswith("sqlite:///"):
        path = Path(url.removeprefix("sqlite:///"))
        return await SqliteDatabase(path, synchronous=synchronous, observer=observer, schema=schema).open()
    if url.startswith(POSTGRES):
        made = _postgres().PostgresDatabase(url, observer=observer, connections=connections, schema=schema)
        database: Database = await made.open()
        return database
    raise _of_another_kind(url)


async def found_schema(url: str) -> str | None:
    """The version of a database's schema; None when it has none yet. Nothing is changed.

    :raises SettingsInvalid: the URL is of another kind
    :raises MissingPackage: Postgres support is not installed
    :raises DatabaseUnavailable, DatabaseLocked: it cannot be read
    """
    if url.startswith("sqlite:///"):
        return schema_of(Path(url.removeprefix("sqlite:///")))
    if url.startswith(POSTGRES):
        found: str | None = await _postgres().schema_of(url)
        return found
    raise _of_another_kind(url)


def back_up(url: str, copy: Path) -> None:
    """Copy a SQLite database to a file that is not there yet, while others use it.

    :raises SettingsInvalid: it is on Postgres, which has its own tools, or the URL is of another kind
    :raises DatabaseUnavailable, DatabaseLocked: it cannot be read, or the copy cannot be written
    :raises FileExistsError: there is something where the copy would be
    """
    if url.startswith(POSTGRES):
        raise SettingsInvalid("the database is on Postgres: back it up with pg_dump")
    if not url.startswith("sqlite:///"):
        raise _of_another_kind(url)
    copy_to(Path(url.removeprefix("sqlite:///")), copy)


def require_postgres() -> None:
    """Do nothing where Postgres can be used.

    :raises MissingPackage: Postgres support is not installed
    """
    _postgres()


def _postgres() -> Any:
    try:
        return importlib.import_module("flux.store._postgres")
    except ImportError as error:
        raise MissingPackage("Postgres needs an extra package: pip install 'flux-harness[postgres]'") from error


def _of_another_kind(url: str) -> SettingsInvalid:
    return SettingsInvalid(f"database_url {hide_password(url)!r} must begin with sqlite:/// or postgresql://")
