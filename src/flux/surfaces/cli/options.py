"""Options and output that commands share."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import click

from flux.settings import Settings, load_settings

Command = Callable[..., Any]


def server_option(command: Command) -> Command:
    """`--server URL`."""
    return click.option("--server", metavar="URL", help="The Flux server to use.")(command)


def format_option(default: str = "simple") -> Callable[[Command], Command]:
    """`--format`."""
    choices = ["simple", "json"] if default == "simple" else ["yaml", "json"]
    return click.option("--format", "format_", type=click.Choice(choices), default=default, show_default=True)


def settings_for(server: str | None = None, **flags: Any) -> Settings:
    """The settings in force, with this command's flags."""
    return load_settings(server=server, **flags)


def print_json(value: Any) -> None:
    """JSON on stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]], empty: str) -> None:
    """Aligned columns on stdout; `empty` on stderr when there are no rows."""
    if not rows:
        click.echo(empty, err=True)
        return
    cells = [list(header), *([printable(str(cell)) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    for row in cells:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def printable(text: str) -> str:
    """One line without control characters."""
    return "".join(char if char.isprintable() else " " for char in text)


def when(seconds: float) -> str:
    """Local date and time of seconds since the epoch."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")
