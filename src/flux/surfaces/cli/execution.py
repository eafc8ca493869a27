"""`flux execution`: find executions, look at them, decide what they ask."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import click

from flux.surfaces.cli.connect import EMBEDDED, connect, run
from flux.surfaces.cli.find import find_approval, find_execution
from flux.surfaces.cli.options import (
    Commands,
    examples,
    format_option,
    limit_option,
    print_json,
    print_table,
    printable,
    server_option,
    settings_for,
    short_id,
    when,
)
from flux.surfaces.cli.rows import first
from flux.surfaces.cli.runs import cancel, qualified, status, until_rest

STATES = ["SCHEDULED", "RESUMING", "RUNNING", "PAUSED", "COMPLETED", "FAILED", "CANCELLED"]
STATUSES = ["open", "approved", "rejected", "cancelled", "expired"]


@click.group(cls=Commands)
def execution() -> None:
    """Find executions, look at them, decide what they ask."""


execution.add_command(status, "show")
execution.add_command(cancel)


@execution.command("list")
@click.option("--state", type=click.Choice(STATES, case_sensitive=False), help="Only executions in this state.")
@click.option("--workflow", metavar="[NAMESPACE/]NAME", help="Only executions of this workflow.")
@click.option("--agent", metavar="NAME", help="Only sessions of this agent.")
@limit_option(50)
@format_option()
@server_option
def list_executions(
    state: str | None, workflow: str | None, agent: str | None, limit: int, format_: str, server: str | None
) -> None:
    """List executions, newest first."""
    named = qualified(workflow) if workflow else None
    found = run(_list(server, "/executions", limit, state=state, workflow=named, agent=agent))
    if format_ == "json":
        print_json(found)
        return
    rows = [
        (
            short_id(row["execution_id"]),
            row["workflow"],
            row["state"],
            _local(row["updated_at"]),
            row["name"],
        )
        for row in found
    ]
    print_table(("EXECUTION", "WORKFLOW", "STATE", "UPDATED", "NAME"), rows, "No executions yet.")


@execution.command()
@click.argument("execution_id", metavar="EXECUTION")
@click.option("--after", metavar="SEQ", default="0", show_default=True, help="Only what came after this entry.")
@format_option()
@server_option
def events(execution_id: str, after: str, format_: str, server: str | None) -> None:
    """Show the log of an execution."""
    found = run(_list(server, "/events", None, execution_id, after=after))
    if format_ == "json":
        print_json(found)
        return
    for entry in found:
        told = {key: value for key, value in entry.items() if key not in ("seq", "epoch", "run_id", "at", "type", "v")}
        click.echo(f"{entry['seq']:>5}  {when(entry['at'])}  {entry['type']:22} {printable(json.dumps(told))}")


@execution.command()
@click.argument("execution_id", metavar="[EXECUTION]", required=False)
@click.option(
    "--status",
    "status_",
    type=click.Choice(STATUSES),
    default="open",
    show_default=True,
    help="Only approvals that stand like this.",
)
@limit_option(50)
@format_option()
@server_option
def approvals(execution_id: str | None, status_: str, limit: int, format_: str, server: str | None) -> None:
    """List what waits for approval, in one execution or in all."""
    found = run(_list(server, "/approvals", limit, execution_id, status=status_))
    if format_ == "json":
        print_json(found)
        return
    rows = [
        (
            short_id(row["id"]),
            short_id(row["execution_id"]),
            row["task"],
            row["status"],
            json.dumps(row["args"], ensure_ascii=False),
        )
        for row in found
    ]
    print_table(("APPROVAL", "EXECUTION", "TASK", "STATUS", "ARGUMENTS"), rows, "Nothing waits for approval.")


@execution.command(
    epilog=examples("flux execution approvals", "flux execution approve 3f74b560 a8da8d1f --reason 'it is small'")
)
@click.argument("execution_id", metavar="EXECUTION")
@click.argument("approval", metavar="APPROVAL")
@click.option("--always", is_flag=True, help="Do not ask again for this task in this execution.")
@click.option("--reason", metavar="TEXT", help="Why, for whoever reads it later.")
@format_option()
@server_option
def approve(
    execution_id: str, approval: str, always: bool, reason: str | None, format_: str, server: str | None
) -> None:
    """Let a task run."""
    body = {"always": always, "reason": reason}
    _decided(run(_decide(server, execution_id, approval, "approve", body)), format_)


@execution.command()
@click.argument("execution_id", metavar="EXECUTION")
@click.argument("approval", metavar="APPROVAL")
@click.option("--reason", metavar="TEXT", help="Why, for whoever reads it later.")
@format_option()
@server_option
def reject(execution_id: str, approval: str, reason: str | None, format_: str, server: str | None) -> None:
    """Do not let a task run."""
    _decided(run(_decide(server, execution_id, approval, "reject", {"reason": reason})), format_)


async def _list(
    server: str | None, path: str, limit: int | None, execution: str | None = None, **query: Any
) -> list[dict[str, Any]]:
    """Rows of a list, or of one that belongs to an execution."""
    async with connect(settings_for(server), worker=False) as client:
        if execution is not None:
            path = f"/executions/{await find_execution(client, execution)}{path}"
        return await first(limit, client.pages(path, **query))


async def _decide(server: str | None, execution: str, approval: str, word: str, body: dict[str, Any]) -> dict[str, Any]:
    async with connect(settings_for(server)) as client:
        id = await find_execution(client, execution)
        asked = await find_approval(client, id, approval)
        decided = await client.post(f"/executions/{id}/approvals/{asked}/{word}", body)
        if client.base_url == EMBEDDED:  # nobody else does the work
            await until_rest(client, await client.execution(id).info())
        return decided


def _decided(row: dict[str, Any], format_: str) -> None:
    if format_ == "json":
        print_json(row)
    else:
        click.echo(f"{row['task']} is {row['status']}.")


def _local(iso: str) -> str:
    return when(datetime.fromisoformat(iso).timestamp())


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
