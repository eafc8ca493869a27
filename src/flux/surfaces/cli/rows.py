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
                    click.echo(f"Only the first {limit} are shown; --limit shows more.", err=True)
                break
            found.append(row)
    return found
