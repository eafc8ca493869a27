"""What `flux config` and `flux secrets` have in common: named values over HTTP."""

from __future__ import annotations

import sys
from typing import Any

import click

from flux.engine.configuration.configs import check_name
from flux.surfaces.cli.connect import connect
from flux.surfaces.cli.options import print_json, print_table, settings_for
from flux.surfaces.visible import visible


async def send(server: str | None, method: str, collection: str, name: str, body: Any = None) -> dict[str, Any]:
    """One call about one named value.

    :raises InvalidInput: no address can hold the name
    """
    check_name(collection.removesuffix("s"), name)
    async with connect(settings_for(server), worker=False) as client:
        return await client.request(method, f"/{collection}/{name}", body)


async def post(server: str | None, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """One call about all of them."""
    async with connect(settings_for(server), worker=False) as client:
        return await client.request("POST", path, body)


def print_names(found: list[dict[str, Any]], format_: str, empty: str) -> None:
    """The names on stdout."""
    if format_ == "json":
        print_json(found)
        return
    print_table(("NAME",), [(row["name"],) for row in found], empty)


def print_text(text: str) -> None:
    """A text as it is; on a terminal without what would steer it."""
    click.echo(visible(text) if sys.stdout.isatty() else text)
