"""`flux roles`: names for permissions."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import click

from flux.errors import InvalidInput
from flux.surfaces.cli.connect import connect, run
from flux.surfaces.cli.options import (
    Commands,
    examples,
    format_option,
    print_json,
    print_table,
    server_option,
    settings_for,
)


@click.group(cls=Commands)
def roles() -> None:
    """What principals may do: built-in roles, and your own."""


@roles.command("list")
@format_option()
@server_option
def list_roles(format_: str, server: str | None) -> None:
    """List the roles."""
    found = run(_send(server, "GET", "/roles"))["items"]
    if format_ == "json":
        print_json(found)
        return
    rows = [(row["name"], "built in" if row["built_in"] else "", len(row["permissions"])) for row in found]
    print_table(("NAME", "", "PERMISSIONS"), rows, "")


@roles.command()
@click.argument("name")
@format_option()
@server_option
def show(name: str, format_: str, server: str | None) -> None:
    """Show what a role may do."""
    found = run(_send(server, "GET", _path(name)))
    if format_ == "json":
        print_json(found)
        return
    for permission in found["permissions"]:
        click.echo(permission)


@roles.command(epilog=examples("flux roles create desk --permission agent:helper:start --permission agent:helper:read"))
@click.argument("name")
@click.option("--permissions", "--permission", "permissions", multiple=True, required=True, metavar="A:B:C",
              help="Such as agent:helper:start; may be repeated.")  # fmt: skip
@format_option()
@server_option
def create(name: str, permissions: tuple[str, ...], format_: str, server: str | None) -> None:
    """Make a role."""
    made = run(_send(server, "POST", "/roles", {"name": name, "permissions": _all(permissions)}))
    _report("Created", made, format_)


@roles.command()
@click.argument("source")
@click.argument("name", required=False)
@click.option("--name", "named", metavar="NAME", help="The same as NAME.")
@format_option()
@server_option
def clone(source: str, name: str | None, named: str | None, format_: str, server: str | None) -> None:
    """Make a role NAME that may do what SOURCE may."""
    if (name is None) == (named is None):
        raise click.UsageError("give the name of the new role, once: SOURCE NAME")
    _report("Created", run(_clone(server, source, name or named or "")), format_)


@roles.command()
@click.argument("name")
@click.option("--add-permissions", "--add", "add", multiple=True, metavar="A:B:C", help="May be repeated.")
@click.option("--remove-permissions", "--remove", "remove", multiple=True, metavar="A:B:C", help="May be repeated.")
@format_option()
@server_option
def update(name: str, add: tuple[str, ...], remove: tuple[str, ...], format_: str, server: str | None) -> None:
    """Change what a role may do, for everybody who has it."""
    if not add and not remove:
        raise click.UsageError("give --add-permissions or --remove-permissions")
    _report("Updated", run(_update(server, name, _all(add), _all(remove))), format_)


@roles.command()
@click.argument("name")
@server_option
def delete(name: str, server: str | None) -> None:
    """Remove a role, also from those who have it."""
    run(_send(server, "DELETE", _path(name)))
    click.echo(f"Deleted role {name}.")


def _all(given: tuple[str, ...]) -> list[str]:
    """Permissions of options, each of which may hold several between commas."""
    return [one.strip() for text in given for one in text.split(",") if one.strip()]


def _path(name: str) -> str:
    return f"/roles/{quote(name, safe='')}"


def _report(done: str, made: dict[str, Any], format_: str) -> None:
    if format_ == "json":
        print_json(made)
    else:
        count = len(made["permissions"])
        click.echo(f"{done} role {made['name']} ({count} permission{'s' * (count != 1)}).")


async def _send(server: str | None, method: str, path: str, body: Any = None) -> dict[str, Any]:
    async with connect(settings_for(server), worker=False) as client:
        return await client.request(method, path, body)


async def _clone(server: str | None, source: str, name: str) -> dict[str, Any]:
    async with connect(settings_for(server), worker=False) as client:
        found = await client.get(_path(source))
        return await client.post("/roles", {"name": name, "permissions": found["permissions"]})


async def _update(server: str | None, name: str, add: list[str], remove: list[str]) -> dict[str, Any]:
    async with connect(settings_for(server), worker=False) as client:
        before = (await client.get(_path(name)))["permissions"]
        absent = [one for one in remove if one not in before]
        if absent:
            raise InvalidInput(f"the role {name} does not have {', '.join(absent)}; `flux roles show {name}`")
        kept = [one for one in before if one not in remove]
        return await client.put(_path(name), {"permissions": list(dict.fromkeys([*kept, *add]))})
