"""`flux agent session`: find sessions, look at them, go on with them."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, get_args

import click

from flux.events import Mode
from flux.surfaces.cli.connect import connect, run
from flux.surfaces.cli.find import find_artifact, find_session
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
from flux.surfaces.cli.rows import listed
from flux.surfaces.visible import visible

STATES = ["idle", "scheduled", "running", "waiting", "ended"]


@click.group(cls=Commands)
def session() -> None:
    """Find sessions, look at them, go on with them."""


@session.command(
    "list",
    epilog=examples(
        "flux agent session list helper --state waiting", "flux agent session list --search invoice --format json"
    ),
)
@click.argument("agent", required=False)
@click.option("--state", type=click.Choice(STATES), help="Only sessions in this state.")
@click.option("--instance", metavar="NAME", help="Only sessions about this, such as a ticket.")
@click.option("--search", "q", metavar="TEXT", help="Only sessions whose title or text holds TEXT.")
@limit_option(50)
@format_option()
@server_option
def list_sessions(
    agent: str | None,
    state: str | None,
    instance: str | None,
    q: str | None,
    limit: int,
    format_: str,
    server: str | None,
) -> None:
    """List sessions, newest first."""
    found = run(listed(server, "/sessions", limit, agent=agent, state=state, instance=instance, q=q))
    if format_ == "json":
        print_json(found)
        return
    rows = [
        (short_id(row["id"]), row["agent_name"], _state(row), row["turns"], when(row["started_at"]), row["title"] or "")
        for row in found
    ]
    header = ("SESSION", "AGENT", "STATE", "TURNS", "STARTED", "TITLE")
    print_table(header, rows, "No sessions yet; `flux chat` starts one.")


@session.command()
@click.argument("session_id", metavar="SESSION")
@format_option()
@server_option
def show(session_id: str, format_: str, server: str | None) -> None:
    """Show a session and what was said in it."""
    row, messages = run(_show(server, session_id))
    if format_ == "json":
        print_json(row | {"messages": messages})
        return
    usage = row["usage"]
    click.echo(f"Session: {row['id']}")
    click.echo(f"Agent:   {row['agent_name']} (version {row['agent_version']})")
    click.echo(f"State:   {_state(row)}")
    click.echo(f"Started: {when(row['started_at'])}")
    click.echo(f"Turns:   {row['turns']}")
    click.echo(f"Usage:   {usage['total']:,} tokens, ${usage['cost']:.4f}")
    if row["last_error"]:
        click.echo(f"Error:   {printable(row['last_error'])}")
    for message in messages:
        for line in _told(message):
            click.echo(line)


@session.command(epilog=examples("flux agent session resume 3f74b560"))
@click.argument("session_id", metavar="[SESSION]", required=False)
@server_option
def resume(session_id: str | None, server: str | None) -> int:
    """Go on with a session in this terminal; without an id, with the latest."""
    return run(_resume(server, session_id))


@session.command()
@click.argument("session_id", metavar="SESSION")
@click.option("--at", type=click.IntRange(1), metavar="SEQ", help="The last entry to copy; without it, all are.")
@click.option("--name", metavar="NAME", help="A name for the copy, unique for its agent and instance.")
@format_option()
@server_option
def fork(session_id: str, at: int | None, name: str | None, format_: str, server: str | None) -> None:
    """Start a session that begins as a copy of another, and goes on by itself."""
    row = run(_fork(server, session_id, at, name))
    if format_ == "json":
        print_json(row)
        return
    click.echo(f"Session: {row['id']}")
    click.echo(f"Resume with: flux agent session resume {row['id']}")


@session.command()
@click.argument("session_id", metavar="SESSION")
@click.option("--format", "format_", type=click.Choice(["jsonl", "markdown"]), default="jsonl", show_default=True,
              help="What is written.")  # fmt: skip
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="The file to write, instead of stdout.")
@server_option
def export(session_id: str, format_: str, output: Path | None, server: str | None) -> None:
    """Write a session to a file: JSON lines, which programs read, or Markdown for people."""
    run(_export(server, session_id, format_, output))
    if output is not None:
        click.echo(f"Wrote {output}", err=True)


@session.command(epilog=examples("flux agent session send 3f74b560 'One more thing' --mode steer"))
@click.argument("session_id", metavar="SESSION")
@click.argument("message")
@click.option(
    "--mode",
    type=click.Choice(get_args(Mode)),
    default="queue",
    show_default=True,
    help="When it is read if the agent works: in the next run, in this one, instead of it, or not at all.",
)
@click.option("--key", metavar="KEY", help="The same key sends the message once, however often this is run.")
@format_option()
@server_option
def send(session_id: str, message: str, mode: str, key: str | None, format_: str, server: str | None) -> None:
    """Send a message to a session, and do not wait for its answer."""
    accepted = run(_send(server, session_id, message, mode, key))
    if format_ == "json":
        print_json(accepted)
        return
    click.echo(
        f"Accepted in session {accepted['id']}; `flux agent session show {accepted['id']}` tells what comes of it."
    )


@session.command()
@click.argument("session_id", metavar="SESSION")
@click.argument("title")
@server_option
def rename(session_id: str, title: str, server: str | None) -> None:
    """Change the title of a session."""
    row = run(_rename(server, session_id, title))
    click.echo(f"Renamed session {row['id']}: {printable(row['title'])}")


@session.command("artifacts")
@click.argument("session_id", metavar="SESSION")
@click.argument("artifact_id", metavar="[ARTIFACT]", required=False)
@format_option()
@server_option
def session_artifacts(session_id: str, artifact_id: str | None, format_: str, server: str | None) -> None:
    """List what a session has kept, such as long outputs; with ARTIFACT, write that one to stdout."""
    if artifact_id is not None:
        _print_bytes(run(_artifact(server, session_id, artifact_id)))
        return
    found = run(_artifacts(server, session_id))
    if format_ == "json":
        print_json(found)
        return
    rows = [
        (short_id(row["id"]), row["name"], row["media_type"], f"{row['size']:,}", when(row["created_at"]))
        for row in found
    ]
    print_table(("ARTIFACT", "NAME", "TYPE", "BYTES", "CREATED"), rows, "This session has kept no artifacts.")


def _print_bytes(data: bytes) -> None:
    """Bytes as they are for a program; on a terminal as text without what would steer it."""
    if sys.stdout.isatty():
        click.echo(visible(data.decode(errors="replace")))
    else:
        sys.stdout.buffer.write(data)


async def _artifacts(server: str | None, id: str) -> list[dict[str, Any]]:
    async with connect(settings_for(server), worker=False) as client:
        handle = client.session(await find_session(client, id))
        return [row async for row in handle.artifacts()]


async def _artifact(server: str | None, id: str, artifact: str) -> bytes:
    async with connect(settings_for(server), worker=False) as client:
        handle = client.session(await find_session(client, id))
        return await handle.artifact(await find_artifact(client, handle.id, artifact))


async def _show(server: str | None, id: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    async with connect(settings_for(server), worker=False) as client:
        id = await find_session(client, id)
        row = await client.get(f"/sessions/{id}")
        return row, await client.messages(id)


async def _send(server: str | None, id: str, message: str, mode: str, key: str | None) -> dict[str, Any]:
    async with connect(settings_for(server), worker=False) as client:
        return await client.session(await find_session(client, id)).post(message, mode=mode, key=key)


async def _export(server: str | None, id: str, format_: str, output: Path | None) -> None:
    async with connect(settings_for(server), worker=False) as client:
        handle = client.session(await find_session(client, id))
        await handle.info()  # before the file is touched
        with ExitStack() as stack:
            target = stack.enter_context(output.open("wb")) if output else sys.stdout.buffer
            shown = output is None and format_ == "markdown" and sys.stdout.isatty()
            async for piece in handle.export(format_):
                target.write(visible(piece.decode(errors="replace")).encode() if shown else piece)
            target.flush()


async def _fork(server: str | None, id: str, at: int | None, name: str | None) -> dict[str, Any]:
    async with connect(settings_for(server), worker=False) as client:
        forked = await client.session(await find_session(client, id)).fork(at, name=name)
        return await forked.info()


async def _rename(server: str | None, id: str, title: str) -> dict[str, Any]:
    async with connect(settings_for(server), worker=False) as client:
        return await client.session(await find_session(client, id)).rename(title)


async def _resume(server: str | None, given: str | None) -> int:
    from flux.surfaces.cli.chat import Talk, talk

    settings = settings_for(server)
    async with connect(settings) as client:
        return await talk(client, settings, Talk(session=await find_session(client, given)))


def _told(message: dict[str, Any]) -> list[str]:
    """The lines that tell one message or tool result."""
    if message["role"] == "tool":
        return [f"  {printable(message['name'])}: {message['outcome']}"]
    text = "".join(part["text"] for part in message["parts"] if part["type"] == "text").strip()
    return [f"\n{'>' if message['role'] == 'user' else '<'} {visible(text)}"] if text else []


def _state(row: dict[str, Any]) -> str:
    return f"waiting for {row['waiting_for']}" if row["waiting_for"] else str(row["state"])
