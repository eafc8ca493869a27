"""`flux audit`: who decided, changed, started or read what."""

from __future__ import annotations

import json
import re
import time

import click

from flux.surfaces.cli.connect import run
from flux.surfaces.cli.options import (
    examples,
    format_option,
    limit_option,
    print_json,
    print_table,
    server_option,
    when,
)
from flux.surfaces.cli.rows import listed

UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
AGO = re.compile(r"(\d+)([smhd])")


def _ago(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """The time that is so long ago, in seconds since the epoch."""
    if value is None:
        return None
    found = AGO.fullmatch(value)
    if found is None:
        raise click.BadParameter(f"{value!r} is no time such as 90m, 24h or 7d", ctx, param)
    return time.time() - int(found[1]) * UNITS[found[2]]


@click.command(epilog=examples("flux audit --action secrets --since 24h"))
@click.option("--action", metavar="ACTION", help="Only this, such as secret.read, or a noun: all about secrets.")
@click.option("--principal", metavar="SUBJECT", help="Only what this one did.")
@click.option("--subject", metavar="NAME", help="Only about this: a name, or an id.")
@click.option("--since", callback=_ago, metavar="AGO", help="Only from then on: 90m, 24h, 7d.")
@limit_option(50)
@format_option()
@server_option
def audit(
    action: str | None,
    principal: str | None,
    subject: str | None,
    since: float | None,
    limit: int,
    format_: str,
    server: str | None,
) -> None:
    """Show who decided, changed, started or read what, newest first."""
    wanted = {"action": action, "principal": principal, "subject": subject, "since": since}
    found = run(listed(server, "/audit", limit, **wanted))
    if format_ == "json":
        print_json(found)
        return
    rows = [
        (when(act["at"]), act["principal"], act["action"], act["subject"], json.dumps(act["details"])) for act in found
    ]
    print_table(("TIME", "PRINCIPAL", "ACTION", "SUBJECT", "DETAILS"), rows, "Nothing was done yet.")
