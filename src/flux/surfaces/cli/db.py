"""`flux db`: the schema of the database, and copies of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from flux.errors import DatabaseTooNew, InvalidInput
from flux.settings import Settings
from flux.store.database import check_version, hide_password
from flux.store.opening import back_up, found_schema, open_database
from flux.store.schema import VERSION
from flux.surfaces.cli.connect import run
from flux.surfaces.cli.options import (
    Commands,
    examples,
    format_option,
    print_json,
    settings_for,
)


@click.group(cls=Commands)
def db() -> None:
    """Look at the database that FLUX_HOME or FLUX_DATABASE_URL names, bring it up to date, copy it."""


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


@db.command(epilog=examples("flux db backup flux-2030-01-31.db"))
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def backup(file: Path) -> None:
    """Copy the database to FILE, while others may use it; FILE must not exist yet."""
    try:
        back_up(settings_for().database, file)
    except FileExistsError as error:
        raise InvalidInput(f"{file} exists already; name a file that does not") from error
    click.echo(f"Copied the database to {file}.")


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
