"""`flux workflow run|resume|status|cancel`: executions of workflows from the command line."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

import click

from flux.client import FluxClient
from flux.client.execution import Begun
from flux.errors import InvalidInput
from flux.events import encode, type_of
from flux.surfaces.cli.connect import connect, run
from flux.surfaces.cli.find import find_execution
from flux.surfaces.cli.options import (
    Command,
    examples,
    format_option,
    print_json,
    printable,
    server_option,
    settings_for,
)

FAILED = ("FAILED", "CANCELLED")
ENDS = ("WORKFLOW_COMPLETED", "WORKFLOW_FAILED", "WORKFLOW_CANCELLED")
RESTS = ("PAUSED", "COMPLETED", "FAILED", "CANCELLED")
#: What a person answers.
ANSWERED = ("pause", "approval")
#: Seconds that a cancelled execution may take to clean up before the command leaves it alone.
CANCEL_SECONDS = 15.0


def input_argument(command: Command) -> Command:
    """An input as JSON."""
    return click.argument("input", required=False)(command)


@click.command(
    "run",
    epilog=examples(
        "flux workflow run reports/daily '\"2030-01-31\"'", "flux workflow run reports/daily @input.json --mode stream"
    ),
)
@click.argument("workflow", metavar="[NAMESPACE/]NAME")
@input_argument
@click.option(
    "--mode",
    type=click.Choice(["sync", "async", "stream"]),
    default="sync",
    show_default=True,
    help="Wait until it rests, do not wait, or show its events as they come.",
)
@click.option("--version", type=click.IntRange(1), metavar="N", help="A version other than the newest.")
@click.option("--detailed", is_flag=True, help="Show the events, too.")
@format_option()
@server_option
def run_workflow(
    workflow: str, input: str | None, mode: str, version: int | None, detailed: bool, format_: str, server: str | None
) -> int:
    """Run a workflow. INPUT is JSON, @FILE, or - for standard input; what is no JSON is taken as text."""
    return run(_send(server, workflow, mode, read_input(input), format_, detailed, version))


@click.command("resume", epilog=examples("flux workflow resume 3f74b560 '\"good\"' --pause review"))
@click.argument("execution", metavar="EXECUTION")
@input_argument
@click.option("--pause", metavar="NAME", help="The pause to answer, where several are open.")
@click.option(
    "--mode",
    type=click.Choice(["sync", "async", "stream"]),
    default="sync",
    show_default=True,
    help="Wait until it rests, do not wait, or show its events as they come.",
)
@format_option()
@server_option
def resume_workflow(
    execution: str, input: str | None, pause: str | None, mode: str, format_: str, server: str | None
) -> int:
    """Answer a pause of an execution with INPUT, and go on."""
    return run(_resume(server, execution, mode, read_input(input), format_, pause))


@click.command("status")
@click.argument("execution", metavar="EXECUTION")
@click.option("--detailed", is_flag=True, help="Show the events, too.")
@format_option()
@server_option
def status(execution: str, detailed: bool, format_: str, server: str | None) -> None:
    """Show an execution."""
    run(_status(server, execution, detailed, format_))


@click.command("cancel")
@click.argument("execution", metavar="EXECUTION")
@format_option()
@server_option
def cancel(execution: str, format_: str, server: str | None) -> None:
    """Cancel an execution with all it started."""
    run(_cancel(server, execution, format_))


def qualified(workflow: str) -> str:
    """A workflow's name with its namespace."""
    return workflow if "/" in workflow else f"default/{workflow}"


def read_input(text: str | None) -> Any:
    """The value of an argument.

    :raises InvalidInput: the file cannot be read
    """
    if text is None:
        return None
    if text == "-":
        text = sys.stdin.read()
    elif text.startswith("@"):
        try:
            text = Path(text[1:]).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            said = getattr(error, "strerror", None) or "not UTF-8 text"
            raise InvalidInput(f"cannot read {text[1:]}: {said}") from error
    try:
        return json.loads(text)
    except ValueError:
        return text


async def _send(
    server: str | None, workflow: str, mode: str, input: Any, format_: str, detailed: bool, version: int | None
) -> int:
    async with connect(settings_for(server)) as client:
        if mode == "stream":
            return await _watch(client.running_workflow(qualified(workflow), input, version=version))
        shown = await client.run_workflow(qualified(workflow), input, mode=mode, version=version)
        return show_execution(await _info(client, shown) if detailed else shown, format_)


async def _resume(server: str | None, id: str, mode: str, input: Any, format_: str, pause: str | None) -> int:
    async with connect(settings_for(server)) as client:
        row = await client.execution(await find_execution(client, id)).info()
        if mode == "stream":
            place = {"pause": pause, "after": row["head"]}
            return await _watch(client.resuming_workflow(row["workflow"], row["execution_id"], input, **place))
        shown = await client.resume_workflow(row["workflow"], row["execution_id"], input, pause=pause, mode=mode)
        return show_execution(shown, format_)


async def _info(client: FluxClient, shown: dict[str, Any]) -> dict[str, Any]:
    return await client.execution(shown["execution_id"]).info(detailed=True)


async def _status(server: str | None, id: str, detailed: bool, format_: str) -> None:
    async with connect(settings_for(server), worker=False) as client:
        handle = client.execution(await find_execution(client, id))
        show_execution(await handle.info(detailed=detailed), format_)


async def _cancel(server: str | None, id: str, format_: str) -> None:
    async with connect(settings_for(server)) as client:
        handle = client.execution(await find_execution(client, id))
        shown = await handle.cancel()
        if not shown.pop("cancelled"):
            click.echo("It has ended already; nothing was cancelled.", err=True)
        if shown["state"] == "CANCELLING":
            with suppress(TimeoutError):
                async with asyncio.timeout(CANCEL_SECONDS):
                    await until_rest(client, shown)
            shown = await handle.info()
        show_execution(shown, format_)


async def until_rest(client: FluxClient, row: dict[str, Any]) -> None:
    """Return when the execution of that row has ended, or waits."""
    handle = client.execution(row["execution_id"], str(row["head"] - 1))
    async with aclosing(handle.events()) as events:
        async for event in events:
            if event.seq is not None and (await handle.info())["state"] in RESTS:
                return


async def _watch(begun: Begun) -> int:
    """Show the events of an execution as they come, a JSON object a line, until it ends or waits for a person."""
    async with begun as (handle, events):
        click.echo(f"Execution: {handle.id}", err=True)
        async for event in events:
            click.echo(encode(event.event))
            if type_of(event.event) in ENDS:
                break
            if type_of(event.event) == "WORKFLOW_PAUSED" and (await handle.info())["waiting_for"] in ANSWERED:
                break
        return 1 if (await handle.info())["state"] in FAILED else 0


def show_execution(row: dict[str, Any], format_: str) -> int:
    """Show an execution; the exit code says whether it went well."""
    if format_ == "json":
        print_json(row)
        return 1 if row["state"] in FAILED else 0
    click.echo(f"Execution: {row['execution_id']}")
    click.echo(f"Workflow:  {row['workflow']}")
    click.echo(f"State:     {row['state']}" + (f" (waiting for {row['waiting_for']})" if row["waiting_for"] else ""))
    if row["pause"]:
        click.echo(f"Pause:     {printable(row['pause'])}")
    if row["error"]:
        click.echo(f"Error:     {printable(row['error'])}")
    if row["output"] is not None:
        click.echo(f"Output:    {json.dumps(row['output'], ensure_ascii=False)}")
    for event in row.get("events", []):
        click.echo(f"  {event['time']}  {event['type']:26} {printable(event['name'])}")
    if row["waiting_for"] in ANSWERED:
        click.echo(f"Go on with: {_remedy(row)}", err=True)
    return 1 if row["state"] in FAILED else 0


def _remedy(row: dict[str, Any]) -> str:
    """The command that answers what an execution waits for."""
    id = row["execution_id"]
    if row["kind"] == "session":
        return f"flux agent session resume {id}"
    return f"flux workflow resume {id} INPUT" if row["waiting_for"] == "pause" else f"flux execution approvals {id}"
