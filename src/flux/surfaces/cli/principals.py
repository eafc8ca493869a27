"""`flux principals`: who may call, their roles, and their keys."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import click

from flux.engine.service.principals import check_subject
from flux.errors import InvalidInput
from flux.surfaces.cli.connect import connect, run
from flux.surfaces.cli.options import (
    Commands,
    examples,
    format_option,
    limit_option,
    print_json,
    print_table,
    server_option,
    settings_for,
    when,
)
from flux.surfaces.cli.rows import listed

DAY = 86_400
UNITS = {"s": 1, "m": 60, "h": 3600, "d": DAY, "w": 7 * DAY, "y": 365 * DAY}


key_name_option = click.option(
    "--name", "--key-name", "name", metavar="NAME", default="default", show_default=True, help="What the key is called."
)


@click.group(cls=Commands)
def principals() -> None:
    """Who may call a server with auth: people, and accounts of programs."""


@principals.command(epilog=examples("flux principals create ci --type service_account --role operator"))
@click.argument("subject")
@click.option(
    "--type",
    "kind",
    type=click.Choice(["user", "service_account"]),
    default="user",
    show_default=True,
    help="A person, or an account of a program.",
)
@click.option("--role", "roles", multiple=True, metavar="ROLE", help="A role; may be repeated.")
@click.option("--display-name", "name", metavar="TEXT", help="What people call it.")
@format_option()
@server_option
def create(subject: str, kind: str, roles: tuple[str, ...], name: str | None, format_: str, server: str | None) -> None:
    """Let SUBJECT in: the `sub` of a person at the identity provider, or the name of an account."""
    body = {"subject": subject, "kind": kind, "roles": list(roles), "name": name}
    made = run(_send(server, "POST", "/principals", {key: value for key, value in body.items() if value is not None}))
    _report(f"Created {subject} ({_roles(made)}).", made, format_)


@principals.command("list")
@click.option("--type", "kind", type=click.Choice(["user", "service_account"]), help="Only these.")
@limit_option()
@format_option()
@server_option
def list_principals(kind: str | None, limit: int, format_: str, server: str | None) -> None:
    """List the principals."""
    found = run(listed(server, "/principals", limit, kind=kind))
    if format_ == "json":
        print_json(found)
        return
    rows = [(row["subject"], row["kind"], row["state"], ", ".join(row["roles"])) for row in found]
    print_table(("SUBJECT", "TYPE", "STATE", "ROLES"), rows, "No principals yet; `flux principals create` makes one.")


@principals.command()
@click.argument("subject")
@format_option()
@server_option
def show(subject: str, format_: str, server: str | None) -> None:
    """Show a principal."""
    found = run(_send(server, "GET", _path(subject)))
    if format_ == "json":
        print_json(found)
        return
    for name, value in (
        ("Subject", found["subject"]), ("Type", found["kind"]), ("Name", found["name"]), ("State", found["state"]),
        ("Roles", _roles(found)), ("Since", when(found["created_at"])),
    ):  # fmt: skip
        if value:
            click.echo(f"{name}: {value}")


@principals.command()
@click.argument("subject")
@click.argument("role", required=False)
@click.option("--role", "named", metavar="ROLE", help="The same as ROLE.")
@format_option()
@server_option
def grant(subject: str, role: str | None, named: str | None, format_: str, server: str | None) -> None:
    """Give a principal a role."""
    role = _one_role(role, named)
    made = run(_send(server, "PUT", f"{_path(subject)}/roles/{quote(role, safe='')}"))
    _report(f"{subject} has {_roles(made)}.", made, format_)


@principals.command()
@click.argument("subject")
@click.argument("role", required=False)
@click.option("--role", "named", metavar="ROLE", help="The same as ROLE.")
@format_option()
@server_option
def revoke(subject: str, role: str | None, named: str | None, format_: str, server: str | None) -> None:
    """Take a role from a principal."""
    role = _one_role(role, named)
    made = run(_send(server, "DELETE", f"{_path(subject)}/roles/{quote(role, safe='')}"))
    _report(f"{subject} has {_roles(made)}.", made, format_)


@principals.command()
@click.argument("subject")
@server_option
def disable(subject: str, server: str | None) -> None:
    """Let a principal in no more, whatever it brings; its streams end."""
    run(_send(server, "POST", f"{_path(subject)}/disable"))
    click.echo(f"Disabled {subject}.")


@principals.command()
@click.argument("subject")
@server_option
def enable(subject: str, server: str | None) -> None:
    """Let a principal in again."""
    run(_send(server, "POST", f"{_path(subject)}/enable"))
    click.echo(f"Enabled {subject}.")


@principals.command()
@click.argument("subject")
@server_option
def delete(subject: str, server: str | None) -> None:
    """Remove a principal with its keys; what it made stays."""
    run(_send(server, "DELETE", _path(subject)))
    click.echo(f"Deleted {subject}.")


@principals.command("create-key", epilog=examples("flux principals create-key ci --name deploy --expires 30d"))
@click.argument("subject")
@key_name_option
@click.option("--expires", metavar="TIME", help="For how long it is good, such as 30d or 12h.  [default: for good]")
@format_option()
@server_option
def create_key(subject: str, name: str, expires: str | None, format_: str, server: str | None) -> None:
    """Make an API key and print it, alone. It is not kept: nobody can show it again."""
    body: dict[str, Any] = {"name": name}
    if expires is not None:
        body["expires_in"] = seconds(expires)
    made = run(_send(server, "POST", f"{_path(subject)}/keys", body))
    if format_ == "json":
        print_json(made)
    else:
        click.echo(made["key"])


@principals.command("list-keys")
@click.argument("subject")
@format_option()
@server_option
def list_keys(subject: str, format_: str, server: str | None) -> None:
    """List the keys of a principal, without the keys themselves."""
    found = run(_send(server, "GET", f"{_path(subject)}/keys"))["items"]
    if format_ == "json":
        print_json(found)
        return
    rows = [(row["name"], when(row["created_at"]), _end(row), row["created_by"]) for row in found]
    print_table(("NAME", "CREATED", "EXPIRES", "BY"), rows, "No keys; `flux principals create-key` makes one.")


@principals.command("revoke-key")
@click.argument("subject")
@key_name_option
@server_option
def revoke_key(subject: str, name: str, server: str | None) -> None:
    """Make a key useless at once; streams that were opened with it end."""
    run(_send(server, "DELETE", f"{_path(subject)}/keys/{quote(name, safe='')}"))
    click.echo(f"Revoked key {name} of {subject}.")


def seconds(text: str) -> float:
    """A time such as "30d" in seconds.

    :raises InvalidInput: it is none
    """
    number, unit = text[:-1], UNITS.get(text[-1:].lower())
    if unit is None or not number.isascii() or not number.isdigit() or int(number) == 0:
        raise InvalidInput(f"--expires {text[:40]!r}: a number and s, m, h, d, w or y, such as 30d")
    return float(int(number) * unit)


def _path(subject: str) -> str:
    check_subject(subject)
    return f"/principals/{quote(subject, safe='')}"


def _one_role(role: str | None, named: str | None) -> str:
    if (role is None) == (named is None):
        raise click.UsageError("give the role, once: SUBJECT ROLE")
    return role or named or ""


def _roles(row: dict[str, Any]) -> str:
    return f"roles: {', '.join(row['roles'])}" if row["roles"] else "no roles"


def _end(row: dict[str, Any]) -> str:
    return when(row["expires_at"]) if row["expires_at"] else "never"


def _report(text: str, made: dict[str, Any], format_: str) -> None:
    if format_ == "json":
        print_json(made)
    else:
        click.echo(text)


async def _send(server: str | None, method: str, path: str, body: Any = None) -> dict[str, Any]:
    async with connect(settings_for(server), worker=False) as client:
        return await client.request(method, path, body)
