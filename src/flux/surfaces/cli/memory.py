"""`flux memory`: what agents noted down for later sessions."""

from __future__ import annotations

import json
from typing import TypeVar

import click

from flux.agents.memory.store import check_key
from flux.client.memories import MemoriesClient
from flux.surfaces.cli.connect import run
from flux.surfaces.cli.named import print_text
from flux.surfaces.cli.options import (
    Command,
    Commands,
    format_option,
    limit_option,
    print_json,
    print_table,
    server_option,
    when,
)
from flux.surfaces.cli.rows import asked, first

T = TypeVar("T")


def whose_options(command: Command) -> Command:
    """`--agent` and `--scope`."""
    command = click.option("--scope", metavar="SCOPE", help="Only this scope, such as user:123.")(command)
    return click.option("--agent", metavar="NAME",
                        help="The memory of this agent. Without it: that in Flux's own database.")(command)  # fmt: skip


@click.group(cls=Commands)
def memory() -> None:
    """Look at what agents noted down for later sessions, and let them forget it."""


@memory.command("list")
@whose_options
@limit_option()
@format_option()
@server_option
def list_memories(agent: str | None, scope: str | None, limit: int, format_: str, server: str | None) -> None:
    """List memories, by scope and key."""
    found = run(asked(server, MemoriesClient, lambda memories: first(limit, memories.list(agent=agent, scope=scope))))
    if format_ == "json":
        print_json(found)
        return
    rows = [(row["scope"], row["key"], when(row["updated_at"]), row["preview"]) for row in found]
    print_table(("SCOPE", "KEY", "UPDATED", "VALUE"), rows, "No memories yet; agents with long_term_memory store some.")


@memory.command()
@click.argument("key")
@whose_options
@format_option()
@server_option
def show(key: str, agent: str | None, scope: str | None, format_: str, server: str | None) -> None:
    """Show the memory KEY. --scope or --agent says which, where several scopes have it."""
    check_key(key)
    found = run(asked(server, MemoriesClient, lambda memories: memories.get(key, agent=agent, scope=scope)))
    if format_ == "json":
        print_json(found)
        return
    value = found["value"]
    print_text(value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False))


@memory.command()
@click.argument("key")
@whose_options
@server_option
def forget(key: str, agent: str | None, scope: str | None, server: str | None) -> None:
    """Forget the memory KEY. --scope or --agent says which, where several scopes have it."""
    check_key(key)
    gone = run(asked(server, MemoriesClient, lambda memories: memories.forget(key, agent=agent, scope=scope)))
    click.echo(f"Forgot {gone['key']} of {gone['scope']}.")
