"""`flux audit`: who decided, changed, started or read what."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import click

from flux.surfaces.cli.connect import connect, run
from flux.surfaces.cli.options import format_option, print_json, print_table, server_option, settings_for, when

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


@click.command()
@click.option("--action", help="Only this, such as secret.read, or a noun: all about secrets.")
@click.option("--principal", help="Only what this one did.")
@click.option("--subject", help="Only about this: a name, or an id.")
@click.option("--since", callback=_ago, metavar="AGO", help="Only from then on: 90m, 24h, 7d.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
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
    found = run(_acts(server, {key: value for key, value in wanted.items() if value is not None}, limit))
    if format_ == "json":
        print_json(found)
        return
    rows = [
        (when(act["at"]), act["principal"], act["action"], act["subject"], json.dumps(act["details"])) for act in found
    ]
    print_table(("TIME", "PRINCIPAL", "ACTION", "SUBJECT", "DETAILS"), rows, "Nothing was done yet.")


async def _acts(server: str | None, wanted: dict[str, Any], limit: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    async with connect(settings_for(server), worker=False) as client:
        async for act in client.pages("/audit", **wanted):
            found.append(act)
            if len(found) == limit:
                break
    return found
