"""`flux secrets`: secrets of workflows."""

from __future__ import annotations

import sys

import click

from flux.surfaces.cli.connect import run
from flux.surfaces.cli.named import post, print_names, print_text, send
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
def secrets() -> None:
    """Set and look up secrets: what tasks get by `secret_requests`. They are kept encrypted."""


@secrets.command("set", epilog=examples('printf %s "$TOKEN" | flux secrets set billing_token'))
@click.argument("name")
@click.argument("value", required=False)
@server_option
def set_secret(name: str, value: str | None, server: str | None) -> None:
    """Set a secret. Without VALUE it is asked for, or read from stdin: there it stays out of the shell's history."""
    run(send(server, "PUT", "secrets", name, {"value": _given(name) if value is None else value}))
    click.echo(f"Set secret {name}.")


@secrets.command("get")
@click.argument("name")
@format_option()
@server_option
def get_secret(name: str, format_: str, server: str | None) -> None:
    """Show a secret."""
    found = run(send(server, "GET", "secrets", name))
    if format_ == "json":
        print_json(found)
    else:
        print_text(found["value"])


@secrets.command("list")
@limit_option()
@format_option()
@server_option
def list_secrets(limit: int, format_: str, server: str | None) -> None:
    """List the names that are set."""
    print_names(run(listed(server, "/secrets", limit)), format_, "No secrets yet; `flux secrets set` sets one.")


@secrets.command()
@click.argument("name")
@server_option
def remove(name: str, server: str | None) -> None:
    """Forget a secret."""
    run(send(server, "DELETE", "secrets", name))
    click.echo(f"Removed secret {name}.")


@secrets.command("rotate-key")
@click.option("--forget-unreadable", is_flag=True, help="Remove secrets that no key here can read.")
@format_option()
@server_option
def rotate_key(forget_unreadable: bool, format_: str, server: str | None) -> None:
    """Encrypt every secret anew with a fresh key.

    With FLUX_SECRET_KEY or secret_key_command there must be two keys, the new one first: NEW,OLD.
    """
    done = run(post(server, "/secrets/rotate-key", {"forget_unreadable": forget_unreadable}))
    if format_ == "json":
        print_json(done)
        return
    click.echo(f"{done['resealed']} secrets and logins are encrypted with key {done['key']} now.")
    for name in done["forgotten"]:
        click.echo(f"Forgotten, as no key here could read it: {name}")


def _given(name: str) -> str:
    if sys.stdin.isatty():
        asked: str = click.prompt(f"Value of {name}", hide_input=True, err=True)
        return asked
    text = sys.stdin.read()
    value = text.removesuffix("\n")
    if not value:
        raise click.UsageError("the value is empty; give it as VALUE or on stdin")
    return value
