"""`flux workflow`: register workflows and look at them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import click

from flux.client.workflows import WorkflowsClient
from flux.surfaces.cli.connect import run
from flux.surfaces.cli.options import (
    Commands,
    format_option,
    limit_option,
    print_json,
    print_table,
    printable,
    server_option,
    when,
)
from flux.surfaces.cli.rows import asked, first
from flux.surfaces.cli.runs import cancel, resume_workflow, run_workflow, status

T = TypeVar("T")


@click.group(cls=Commands)
def workflow() -> None:
    """Register workflows, run them, look at them."""


for command in (run_workflow, resume_workflow, status, cancel):
    workflow.add_command(command)


@workflow.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@format_option()
@server_option
def register(file: Path, format_: str, server: str | None) -> None:
    """Store every workflow of the Python FILE; it is read, not run."""
    content = file.read_bytes()
    found = run(asked(server, WorkflowsClient, lambda workflows: workflows.register(content, file.name)))
    if format_ == "json":
        print_json(found)
        return
    for row in found:
        click.echo(f"Registered {_name(row)} (version {row['version']}).")


@workflow.command("list")
@click.option("--namespace", metavar="NAME", help="Only workflows of this namespace.")
@limit_option()
@format_option()
@server_option
def list_workflows(namespace: str | None, limit: int, format_: str, server: str | None) -> None:
    """List the workflows."""
    found = run(asked(server, WorkflowsClient, lambda workflows: first(limit, workflows.list(namespace))))
    if format_ == "json":
        print_json(found)
        return
    rows = [(_name(row), row["version"], row["options"].get("description", "")) for row in found]
    print_table(("NAME", "VERSION", "DESCRIPTION"), rows, "No workflows yet; `flux workflow register` stores some.")


@workflow.command()
@click.argument("name")
@click.option("--version", type=click.IntRange(1), metavar="N", help="A version other than the newest.")
@click.option("--source", is_flag=True, help="Print the source alone.")
@format_option()
@server_option
def show(name: str, version: int | None, source: bool, format_: str, server: str | None) -> None:
    """Show the workflow NAME, written "namespace/name"; "name" alone is in the namespace "default"."""
    row = run(asked(server, WorkflowsClient, lambda workflows: workflows.get(name, version, source=source)))
    if format_ == "json":
        print_json(row)
    elif source:
        click.echo(row["source"], nl=False)
    else:
        click.echo(f"{_name(row)}, version {row['version']}, digest {row['digest']}, {when(row['created_at'])}")
        for option, value in row["options"].items():
            click.echo(f"  {option}: {printable(str(value))}")


@workflow.command()
@click.argument("name")
@limit_option()
@format_option()
@server_option
def versions(name: str, limit: int, format_: str, server: str | None) -> None:
    """List the versions of a workflow, newest first."""
    found = run(asked(server, WorkflowsClient, lambda workflows: first(limit, workflows.versions(name))))
    if format_ == "json":
        print_json(found)
        return
    rows = [(row["version"], row["digest"], row["author"], when(row["created_at"])) for row in found]
    print_table(("VERSION", "DIGEST", "AUTHOR", "CREATED"), rows, "No versions.")


@workflow.command()
@click.argument("name")
@server_option
def delete(name: str, server: str | None) -> None:
    """Delete a workflow; its executions go on."""
    run(asked(server, WorkflowsClient, lambda workflows: workflows.delete(name)))
    click.echo(f"Deleted workflow {name}.")


def _name(row: dict[str, Any]) -> str:
    return f"{row['namespace']}/{row['name']}"
