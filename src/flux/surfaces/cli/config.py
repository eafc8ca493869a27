"""`flux config`: configuration values of workflows."""

from __future__ import annotations

import json
from typing import Any

import click

from flux.surfaces.cli.connect import run
from flux.surfaces.cli.named import print_names, print_text, send
from flux.surfaces.cli.options import (
    Commands,
    examples,
    format_option,
    limit_option,
    print_json,
    server_option,
)
from flux.surfaces.cli.rows import listed


@click.group(cls=Commands)
def config() -> None:
    """Set and look up configuration values: what tasks get by `config_requests`."""


@config.command("set", epilog=examples("flux config set retries 3 --json"))
@click.argument("name")
@click.argument("value")
@click.option("--json", "as_json", is_flag=True, help="VALUE is JSON of any kind, such as a number.")
@server_option
def set_config(name: str, value: str, as_json: bool, server: str | None) -> None:
    """Set a value. VALUE is text, or a JSON object or list; --json takes any other JSON."""
    run(send(server, "PUT", "configs", name, {"value": _value(value, as_json)}))
    click.echo(f"Set config {name}.")


@config.command("get")
@click.argument("name")
@format_option()
@server_option
def get_config(name: str, format_: str, server: str | None) -> None:
    """Show a value."""
    found = run(send(server, "GET", "configs", name))
    if format_ == "json":
        print_json(found)
    else:
        value = found["value"]
        print_text(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


@config.command("list")
@limit_option()
@format_option()
@server_option
def list_configs(limit: int, format_: str, server: str | None) -> None:
    """List the names that are set."""
    print_names(run(listed(server, "/configs", limit)), format_, "No configs yet; `flux config set` sets one.")


@config.command()
@click.argument("name")
@server_option
def remove(name: str, server: str | None) -> None:
    """Forget a value."""
    run(send(server, "DELETE", "configs", name))
    click.echo(f"Removed config {name}.")


def _value(text: str, as_json: bool) -> Any:
    """Text stays text even if it looks like a number or a word of JSON: `1.10` may be a version."""
    if not as_json and not text.lstrip().startswith(("{", "[")):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        if not as_json:
            return text
        raise click.UsageError(f"VALUE is not JSON: {error}") from error
