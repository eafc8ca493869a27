"""Options and output that commands share."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import click
from rich.cells import cell_len, set_cell_size

from flux.settings import Settings, load_settings
from flux.surfaces.visible import visible

Command = Callable[..., Any]
SHORT_ID = 8
#: How the value of an option that chooses a model is called.
MODEL = "PROVIDER/MODEL"
#: More characters than the first sentence about a command has.
SENTENCE = 500


class Commands(click.Group):
    """A group that tells of each command the whole first sentence."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands."""
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, one.get_short_help_str(SENTENCE)) for name, one in found if one])


def examples(*lines: str) -> str:
    """Calls of a command, for the end of its help."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def server_option(command: Command) -> Command:
    """`--server URL`."""
    return click.option("--server", metavar="URL", help="The Flux server to use.")(command)


def format_option(default: str = "simple") -> Callable[[Command], Command]:
    """`--format`."""
    choices = ["simple", "json"] if default == "simple" else ["yaml", "json"]
    return click.option("--format", "format_", type=click.Choice(choices), default=default, show_default=True,
                        help="For people, or for programs.")  # fmt: skip


def limit_option(default: int = 200) -> Callable[[Command], Command]:
    """`--limit N`."""
    return click.option("--limit", type=click.IntRange(1), metavar="N", default=default, show_default=True,
                        help="How many to list at most.")  # fmt: skip


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
    widths = [max(cell_len(row[column]) for row in cells) for column in range(len(header))]
    for row in cells:
        line = "  ".join(cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True))
        click.echo(_fit(line.rstrip()))


def short_id(id: str) -> str:
    """An id for people: its beginning is enough for every command. Whole where a program reads it."""
    return id[:SHORT_ID] if sys.stdout.isatty() else id


def _fit(line: str) -> str:
    """A line cut to the width of the terminal; whole where a program reads it."""
    width = shutil.get_terminal_size().columns
    if not sys.stdout.isatty() or cell_len(line) <= width:
        return line
    return set_cell_size(line, width - 1).rstrip() + "…"


def printable(text: str) -> str:
    """One line without control characters."""
    return visible(" ".join(text.split()))


def when(seconds: float) -> str:
    """Local date and time of seconds since the epoch."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")
