"""`flux db`: the schema of the database."""

from __future__ import annotations

from typing import Any

import click

from flux.errors import DatabaseTooNew
from flux.settings import Settings
from flux.store.database import check_version, hide_password
from flux.store.opening import found_schema, open_database
from flux.store.schema import VERSION
from flux.surfaces.cli.connect import run
from flux.surfaces.cli.options import (
    Commands,
    format_option,
    print_json,
    settings_for,
)


@click.group(cls=Commands)
def db() -> None:
    """The schema of the database that FLUX_HOME or FLUX_DATABASE_URL names."""


@db.command()
@format_option()
def status(format_: str) -> int:
    """Whether the database has the schema of this Flux; nothing is changed. Exit code 1: it does not."""
    return _report(run(_status(settings_for())), format_)


@db.command()
@format_option()
def upgrade(format_: str) -> int:
    """Make the database, or bring it to the schema of this Flux."""
    return _report(run(_upgrade(settings_for())), format_)


def _report(found: dict[str, Any], format_: str) -> int:
    if format_ == "json":
        print_json(found)
    else:
        click.echo(f"{found['database']}: {found['says']}")
    return 0 if found["current"] else 1


async def _status(settings: Settings) -> dict[str, Any]:
    found = await found_schema(settings.database)
    try:
        behind = check_version(found, settings.database)
        says = f"schema {found}, up to date"
        if behind:
            said = "no schema yet" if found is None else f"schema {found}, this Flux wants {VERSION}"
            says = f"{said}; `flux db upgrade` makes it"
    except DatabaseTooNew as error:
        behind, says = True, str(error)
    database = hide_password(settings.database)
    return {"database": database, "found": found, "wanted": VERSION, "current": not behind, "says": says}


async def _upgrade(settings: Settings) -> dict[str, Any]:
    database = await open_database(settings.database, synchronous=settings.synchronous)
    await database.close()
    return await _status(settings)
