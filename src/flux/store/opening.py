"""From a database URL to an open database."""

from __future__ import annotations

import importlib
from pathlib import Path

from flux.errors import MissingPackage, SettingsInvalid
from flux.store._sqlite import SqliteDatabase
from flux.store.database import CommitObserver, Database, hide_password


async def open_database(url: str, *, synchronous: str = "full", observer: CommitObserver | None = None) -> Database:
    """Open `sqlite:///PATH` or `postgresql://…`, made or migrated to the present schema.

    :raises SettingsInvalid: the URL is of another kind
    :raises MissingPackage: Postgres support is not installed
    :raises DatabaseUnavailable, DatabaseLocked, DatabaseTooNew: it cannot be used
    """
    if url.startswith("sqlite:///"):
        path = Path(url.removeprefix("sqlite:///"))
        return await SqliteDatabase(path, synchronous=synchronous, observer=observer).open()
    if url.startswith(("postgresql://", "postgres://")):
        try:
            postgres = importlib.import_module("flux.store._postgres")
        except ImportError as error:
            raise MissingPackage("Postgres needs an extra package: pip install 'flux-harness[postgres]'") from error
        database: Database = await postgres.PostgresDatabase(url, observer=observer).open()
        return database
    raise SettingsInvalid(f"database_url {hide_password(url)!r} must begin with sqlite:/// or postgresql://")
