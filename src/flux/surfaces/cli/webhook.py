"""`flux webhook`: tell other programs what becomes of sessions."""

from __future__ import annotations

import click

from flux.client import WebhooksClient
from flux.errors import InvalidInput, WebhookNotFound
from flux.surfaces.cli.connect import connect, run
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
from flux.surfaces.cli.rows import Row, asked, first

EVENTS = ["session.waiting", "run.finished", "run.failed"]
STATES = ["pending", "delivered", "failed"]
#: Deliveries that are looked through for one whose id is not typed whole.
LOOKED_AT = 2_000


@click.group(cls=Commands)
def webhook() -> None:
    """Tell other programs what becomes of sessions."""


@webhook.command(epilog=examples("flux webhook create desk https://desk.example/flux --event session.waiting"))
@click.argument("name")
@click.argument("url")
@click.option(
    "--event", "events", type=click.Choice(EVENTS), multiple=True, help="What to tell; without it, everything."
)
@click.option("--agent", metavar="NAME", help="Only of sessions of this agent.")
@format_option()
@server_option
def create(name: str, url: str, events: tuple[str, ...], agent: str | None, format_: str, server: str | None) -> None:
    """Make a webhook: what happens is posted to URL, signed with a secret that is shown this once."""
    made = run(asked(server, WebhooksClient, lambda webhooks: webhooks.create(name, url, events, agent=agent)))
    if format_ == "json":
        print_json(made)
        return
    click.echo(f"Created webhook {made['name']}. Its secret, which is not shown again:")
    click.echo(made["secret"])


@webhook.command("list")
@limit_option()
@format_option()
@server_option
def list_webhooks(limit: int, format_: str, server: str | None) -> None:
    """List the webhooks."""
    found = run(asked(server, WebhooksClient, lambda webhooks: first(limit, webhooks.list())))
    if format_ == "json":
        print_json(found)
        return
    rows = [(row["name"], row["url"], row["agent"] or "every agent", ", ".join(row["events"])) for row in found]
    print_table(("NAME", "URL", "AGENT", "EVENTS"), rows, "No webhooks yet; `flux webhook create` makes one.")


@webhook.command()
@click.argument("name")
@format_option()
@server_option
def show(name: str, format_: str, server: str | None) -> None:
    """Show a webhook."""
    found = run(asked(server, WebhooksClient, lambda webhooks: webhooks.get(name)))
    if format_ == "json":
        print_json(found)
        return
    click.echo(f"Webhook: {found['name']}")
    click.echo(f"URL:     {printable(found['url'])}")
    click.echo(f"Events:  {', '.join(found['events'])}")
    click.echo(f"Agent:   {found['agent'] or 'every agent'}")
    click.echo(f"Owner:   {printable(found['owner'])}")
    click.echo(f"Created: {when(found['created_at'])}")


@webhook.command()
@click.argument("name")
@server_option
def delete(name: str, server: str | None) -> None:
    """Delete a webhook; what it was still to be told is not."""
    run(asked(server, WebhooksClient, lambda webhooks: webhooks.delete(name)))
    click.echo(f"Deleted webhook {name}.")


@webhook.command()
@click.argument("name")
@click.option("--state", type=click.Choice(STATES), help="Only deliveries that stand like this.")
@limit_option(50)
@format_option()
@server_option
def deliveries(name: str, state: str | None, limit: int, format_: str, server: str | None) -> None:
    """Show what a webhook was told and is to be told, newest first."""
    found = run(asked(server, WebhooksClient, lambda webhooks: first(limit, webhooks.deliveries(name, state))))
    if format_ == "json":
        print_json(found)
        return
    rows = [
        (row["id"], row["type"], short_id(row["session"]), row["state"], row["attempts"], row["status"] or "-",
         when(row["created_at"]), row["error"] or "")
        for row in found
    ]  # fmt: skip
    header = ("DELIVERY", "EVENT", "SESSION", "STATE", "TRIES", "STATUS", "CREATED", "ERROR")
    print_table(header, rows, "Nothing was told yet.")


@webhook.command()
@click.argument("name")
@click.argument("delivery")
@format_option()
@server_option
def redeliver(name: str, delivery: str, format_: str, server: str | None) -> None:
    """Tell something again, with the same id; the beginning of DELIVERY is enough."""
    found = run(_redeliver(server, name, delivery))
    if format_ == "json":
        print_json(found)
        return
    click.echo(f"Delivery {found['id']} is to be told again.")


async def _redeliver(server: str | None, name: str, given: str) -> Row:
    async with connect(settings_for(server), worker=False) as client:
        webhooks = WebhooksClient(client)
        looked_at = await first(LOOKED_AT, webhooks.deliveries(name), quiet=True)
        found = [row["id"] for row in looked_at if row["id"].startswith(given)]
        if len(found) > 1:
            raise InvalidInput(f"{len(found)} deliveries begin with {given!r}; type more of the id")
        if not found:
            raise WebhookNotFound(f"there is no delivery {given!r}; `flux webhook deliveries {name}` lists them")
        return await webhooks.redeliver(name, found[0])
