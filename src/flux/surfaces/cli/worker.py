"""`flux worker`: start one, see those there are, let one go."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import click

from flux.surfaces.cli.connect import connect, run
from flux.surfaces.cli.options import (
    Commands,
    format_option,
    limit_option,
    print_json,
    print_table,
    printable,
    server_option,
    settings_for,
    when,
)
from flux.surfaces.cli.rows import listed
from flux.surfaces.cli.start import start_worker

Row = dict[str, Any]
GIB = 1024**3


@click.group(cls=Commands)
def worker() -> None:
    """Start workers, see those there are, let one go."""


worker.add_command(start_worker, "start")


@worker.command("list")
@limit_option()
@format_option()
@server_option
def list_workers(limit: int, format_: str, server: str | None) -> None:
    """List the workers; those that died are shown as gone for an hour."""
    found = run(listed(server, "/workers", limit))
    if format_ == "json":
        print_json(found)
        return
    rows = [
        (row["name"], row["state"], _load(row), row["host"], row["version"], _labels(row), when(row["seen_at"]))
        for row in found
    ]
    header = ("NAME", "STATE", "LOAD", "HOST", "VERSION", "LABELS", "SEEN")
    print_table(header, rows, "No workers; `flux start server` or `flux start worker` starts one.")


@worker.command()
@click.argument("name")
@format_option()
@server_option
def show(name: str, format_: str, server: str | None) -> None:
    """Show a worker."""
    found = run(_get(server, name))
    if format_ == "json":
        print_json(found)
        return
    has = found["resources"]
    memory, packages = has["memory"] / GIB, len(has["packages"])
    click.echo(f"Worker:    {found['name']} ({found['state']})")
    click.echo(f"Process:   {found['pid']} on {printable(found['host'])}, Flux {found['version']}, id {found['id']}")
    click.echo(f"Load:      {_load(found)}")
    click.echo(f"Labels:    {_labels(found)}")
    click.echo(f"Resources: {has['cpu']:g} cores, {memory:.1f} GiB, {has['gpu']} GPUs, {packages} packages")
    click.echo(f"Started:   {when(found['started_at'])}")
    click.echo(f"Seen:      {when(found['seen_at'])}")


@worker.command()
@click.argument("name")
@format_option()
@server_option
def drain(name: str, format_: str, server: str | None) -> None:
    """Let a worker take nothing new, finish or hand over what it runs, and leave."""
    found = run(_drain(server, name))
    if format_ == "json":
        print_json(found)
    elif found["state"] == "gone":
        click.echo(f"Worker {name} is gone already.")
    else:
        count = found["running"]
        more = (
            f"it runs {count} execution{'s' * (count != 1)} and leaves when they are over" if count else "it leaves now"
        )
        click.echo(f"Worker {name} drains; {more}.")


async def _get(server: str | None, name: str) -> Row:
    async with connect(settings_for(server), worker=False) as client:
        return await client.get(f"/workers/{quote(name, safe='')}")


async def _drain(server: str | None, name: str) -> Row:
    async with connect(settings_for(server), worker=False) as client:
        return await client.post(f"/workers/{quote(name, safe='')}/drain")


def _load(row: Row) -> str:
    return f"{row['running']}/{row['concurrency']}"


def _labels(row: Row) -> str:
    return printable(" ".join(f"{key}={value}" for key, value in sorted(row["labels"].items()))) or "-"
