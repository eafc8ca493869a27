"""`flux schedule`: start workflows, and send messages to agents, at given times."""

from __future__ import annotations

import json
from typing import Any

import click

from flux.client import SchedulesClient
from flux.errors import InvalidInput
from flux.surfaces.cli.connect import run
from flux.surfaces.cli.options import (
    Commands,
    examples,
    format_option,
    limit_option,
    print_json,
    print_table,
    printable,
    server_option,
    short_id,
    when,
)
from flux.surfaces.cli.rows import Row, asked, first


@click.group(cls=Commands)
def schedule() -> None:
    """Start workflows and agents at given times."""


@schedule.command(
    epilog=examples(
        "flux schedule create morning --agent helper --message 'What is new?' --cron '0 9 * * MON-FRI'",
        "flux schedule create tidy --workflow reports/daily --every 6h",
    )
)
@click.argument("name")
@click.option("--workflow", metavar="NS/NAME", help="Start this workflow.")
@click.option("--input", "input_", metavar="JSON", help="The workflow's input.")
@click.option("--agent", metavar="NAME", help="Send a message to this agent.")
@click.option("--instance", metavar="NAME", help="The agent's instance; the schedule's name, if not given.")
@click.option("--message", metavar="TEXT", help="What the agent is told.")
@click.option("--cron", metavar="EXPR", help="When: minute hour day-of-month month day-of-week.")
@click.option("--every", metavar="TIME", help="When: again and again, as in 6h, 1d12h or 90s.")
@click.option("--at", metavar="ISO", help="When: once, as in 2030-01-31T09:00.")
@click.option("--timezone", default="UTC", show_default=True, metavar="ZONE", help="Such as Europe/Berlin.")
@click.option("--overlap", type=click.Choice(["skip", "allow"]), default="skip", show_default=True,
              help="While the last execution has not ended: skip this time, or start another.")  # fmt: skip
@click.option("--missed", type=click.Choice(["once", "skip"]), default="once", show_default=True,
              help="After a time without any worker: one run for all that was missed, or none.")  # fmt: skip
@format_option()
@server_option
def create(name: str, input_: str | None, every: str | None, at: str | None, format_: str, server: str | None,
           **fields: Any) -> None:  # fmt: skip
    """Make a schedule: what to start, and when."""
    if (fields["workflow"] is None) == (fields["agent"] is None):
        raise click.UsageError("say what to start: --workflow or --agent")
    if [fields["cron"], every, at].count(None) != 2:
        raise click.UsageError("say when, once: --cron, --every or --at")
    if fields["agent"] is not None and fields["message"] is None:
        raise click.UsageError("say what the agent is told: --message")
    fields |= {"interval": every, "once": at, "input": _parsed(input_)}
    made = run(asked(server, SchedulesClient, lambda schedules: schedules.create(name, **fields)))
    _report(made, format_, f"Created schedule {made['name']}; next at {_when(made['next_at'])}.")


@schedule.command("list")
@limit_option()
@format_option()
@server_option
def list_schedules(limit: int, format_: str, server: str | None) -> None:
    """List the schedules."""
    found = run(asked(server, SchedulesClient, lambda schedules: first(limit, schedules.list())))
    if format_ == "json":
        print_json(found)
        return
    rows = [
        (row["name"], row["workflow"] or f"agent {row['agent']}", _times(row), row["state"], _when(row["next_at"]))
        for row in found
    ]
    print_table(
        ("NAME", "STARTS", "WHEN", "STATE", "NEXT"), rows, "No schedules yet; `flux schedule create` makes one."
    )


@schedule.command()
@click.argument("name")
@format_option()
@server_option
def show(name: str, format_: str, server: str | None) -> None:
    """Show a schedule."""
    found = run(asked(server, SchedulesClient, lambda schedules: schedules.get(name)))
    if format_ == "json":
        print_json(found)
        return
    click.echo(f"Schedule: {found['name']} ({found['state']})")
    if found["agent"] is not None:
        click.echo(f"Starts:   agent {found['agent']}, instance {printable(found['instance'])}")
        click.echo(f"Message:  {printable(found['message'])}")
    else:
        click.echo(f"Starts:   workflow {found['workflow']}")
        click.echo(f"Input:    {printable(json.dumps(found['input'], ensure_ascii=False))}")
    click.echo(f"When:     {_times(found)}")
    click.echo(f"Overlap:  {found['overlap']}")
    click.echo(f"Missed:   {found['missed']}")
    click.echo(f"Next:     {_when(found['next_at'])}")
    click.echo(f"Last:     {_when(found['last_at'])}")
    if found["failures"]:
        click.echo(f"Failures: {found['failures']} in a row; see `flux schedule history {found['name']}`")


@schedule.command()
@click.argument("name")
@format_option()
@server_option
def pause(name: str, format_: str, server: str | None) -> None:
    """Let nothing start until it is resumed."""
    _report(
        run(asked(server, SchedulesClient, lambda schedules: schedules.pause(name))),
        format_,
        f"Paused schedule {name}.",
    )


@schedule.command()
@click.argument("name")
@format_option()
@server_option
def resume(name: str, format_: str, server: str | None) -> None:
    """Go on with the next time from now."""
    found = run(asked(server, SchedulesClient, lambda schedules: schedules.resume(name)))
    _report(found, format_, f"Resumed schedule {name}; next at {_when(found['next_at'])}.")


@schedule.command()
@click.argument("name")
@server_option
def delete(name: str, server: str | None) -> None:
    """Delete a schedule and its history; what it has started goes on."""
    run(asked(server, SchedulesClient, lambda schedules: schedules.delete(name)))
    click.echo(f"Deleted schedule {name}.")


@schedule.command()
@click.argument("name")
@limit_option(50)
@format_option()
@server_option
def history(name: str, limit: int, format_: str, server: str | None) -> None:
    """Show what became of the times of a schedule, newest first."""
    found = run(asked(server, SchedulesClient, lambda schedules: first(limit, schedules.history(name))))
    if format_ == "json":
        print_json(found)
        return
    rows = [
        (_when(row["due_at"]), row["outcome"], row["missed"], short_id(row["execution_id"] or "-"), row["error"] or "")
        for row in found
    ]
    print_table(("DUE", "OUTCOME", "MISSED", "EXECUTION", "ERROR"), rows, "It has not fired yet.")


def _parsed(text: str | None) -> Any:
    if text is None:
        return None
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"--input is not JSON: {error}; quote it for the shell, as in '{{\"id\": 1}}'") from error


def _report(found: Row, format_: str, said: str) -> None:
    if format_ == "json":
        print_json(found)
    else:
        click.echo(said)


def _times(row: Row) -> str:
    """When a schedule fires, in words."""
    spec = row["schedule"]
    match spec["type"]:
        case "cron":
            return f"{spec['expr']} ({spec['timezone']})"
        case "interval":
            return f"every {_duration(spec['seconds'])}"
    return f"once, {spec['at']}"


def _duration(seconds: float) -> str:
    """Seconds as `--every` takes them."""
    parts: list[str] = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        number, seconds = divmod(seconds, size)
        if number:
            parts.append(f"{number:.0f}{unit}")
    if seconds or not parts:
        parts.append(f"{seconds:g}s")
    return "".join(parts)


def _when(seconds: float | None) -> str:
    return "-" if seconds is None else when(seconds)
