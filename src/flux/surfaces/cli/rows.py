"""Asking a server for what a command shows: one thing, or the first rows of a list."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeVar

import click

from flux.client import FluxClient
from flux.surfaces.cli.connect import connect
from flux.surfaces.cli.options import settings_for

Row = dict[str, Any]
N = TypeVar("N")
T = TypeVar("T")


async def asked(server: str | None, noun: Callable[[FluxClient], N], call: Callable[[N], Awaitable[T]]) -> T:
    """What `call` gets from a part of the client, such as SchedulesClient."""
    async with connect(settings_for(server), worker=False) as client:
        return await call(noun(client))


async def listed(server: str | None, path: str, limit: int, **query: Any) -> list[Row]:
    """The first rows of a list on the server."""
    async with connect(settings_for(server), worker=False) as client:
        return await first(limit, client.pages(path, **query))


async def first(limit: int | None, rows: AsyncGenerator[Row, None], *, quiet: bool = False) -> list[Row]:
    """At most so many rows (None: all); stderr says when there are more, unless `quiet`."""
    found: list[Row] = []
    async with aclosing(rows):
        async for row in rows:
            if len(found) == limit:
                if not quiet:
                    _at_the_end(f"There are more than {limit}; --limit N shows more.")
                break
            found.append(row)
    return found


def _at_the_end(text: str) -> None:
    """Say something on stderr when the command has printed its rows."""
    context = click.get_current_context(silent=True)
    if context is None:
        click.echo(text, err=True)
    else:
        context.call_on_close(lambda: click.echo(text, err=True))
