"""`flux auth`: logging in, and who one is."""

from __future__ import annotations

import os
import time
import webbrowser
from typing import Any

import click

from flux.client.credentials import Credentials
from flux.client.login import Client, Login, Provider, claims_of, provider_client
from flux.errors import FluxError, InvalidInput
from flux.settings import Settings
from flux.surfaces.cli.connect import connect, live_server, run
from flux.surfaces.cli.options import (
    Commands,
    format_option,
    print_json,
    server_option,
    settings_for,
    when,
)
from flux.trust import user_data


@click.group(cls=Commands)
def auth() -> None:
    """Log in at a server's identity provider, and see who you are."""


@auth.command()
@click.option("--browser", is_flag=True, help="Log in with a browser on this machine, not with a code.")
@click.option("--no-open", is_flag=True, help="Only print the address.")
@click.option("--issuer", metavar="URL", help="The identity provider.  [default: the setting]")
@click.option("--client-id", metavar="ID", help="What Flux is called there.  [default: the setting]")
@click.option("--audience", metavar="NAME", help="For whom the token shall be.  [default: the setting]")
@server_option
def login(browser: bool, no_open: bool, server: str | None, **given: str | None) -> None:
    """Log in. The token is kept for this user alone and refreshed by itself; FLUX_AUTH_TOKEN goes before it."""
    settings = settings_for(server)
    client = _client(settings, **given)

    async def work() -> Login:
        async with provider_client() as http:
            provider = await Provider.find(http, client)
            if browser:
                return await provider.by_browser(lambda url: _open(url, None, no_open))
            return await provider.by_device(lambda url, code: _open(url, code, no_open))

    made = run(work())
    where = _server(settings)
    _credentials().put(where, made)
    click.echo(f"Logged in at {where} as {claims_of(made.token).get('sub')}.")


@auth.command()
@format_option()
@server_option
def status(format_: str, server: str | None) -> None:
    """Show the login that is used, without asking anybody. Exit code 1: there is none."""
    settings = settings_for(server)
    where = _server(settings)
    found = _status(settings, where)
    if format_ == "json":
        print_json(found)
    elif found["by"] is None:
        click.echo(f"Not logged in at {where}; `flux auth login` does.")
    else:
        click.echo(f"Server: {where}\nBy: {found['by']}")
        for name in ("subject", "issuer"):
            if found[name]:
                click.echo(f"{name.capitalize()}: {found[name]}")
        if found["expires_at"]:
            ended = " (expired)" if found["expires_at"] < time.time() else ""
            click.echo(f"Token until: {when(found['expires_at'])}{ended}")
    if found["by"] is None:
        raise click.exceptions.Exit(1)


@auth.command()
@server_option
def logout(server: str | None) -> None:
    """Forget the login for a server, here and at the identity provider."""
    where = _server(settings_for(server))
    credentials = _credentials()
    kept = credentials.get(where)
    if kept is None:
        click.echo(f"Not logged in at {where}.", err=True)
        return
    credentials.put(where, None)
    try:
        run(_leave(kept))
    except FluxError as error:
        click.echo(f"Note: the provider was not told: {error}", err=True)
    click.echo(f"Logged out at {where}.")


@auth.command("test-token")
@click.argument("token", required=False)
@format_option()
@server_option
def test_token(token: str | None, format_: str, server: str | None) -> None:
    """Ask the server whose TOKEN it is, or the present one. Exit code 1: it is not valid there."""
    settings = settings_for(server, auth_token=token)
    _print_me(run(_me(settings)), format_, permissions=False)


@auth.command()
@format_option()
@server_option
def permissions(format_: str, server: str | None) -> None:
    """List what you may do at the server."""
    _print_me(run(_me(settings_for(server))), format_, permissions=True)


def _client(settings: Settings, **given: str | None) -> Client:
    oidc = settings.auth.oidc
    issuer, audience = given["issuer"] or oidc.issuer, given["audience"] or oidc.audience
    client_id = given["client_id"] or oidc.client_id or audience
    if not (issuer and audience):
        raise InvalidInput(
            "which identity provider? give --issuer, --client-id and --audience, "
            "or set issuer and audience in [flux.security.auth.oidc]"
        )
    return Client(issuer, client_id, audience, oidc.scopes)


def _open(url: str, code: str | None, no_open: bool) -> None:
    click.echo(f"Open {url}" + (f"\nand enter the code {code}" if code else ""), err=True)
    if not no_open and os.environ.get("FLUX_BROWSER") != "none":
        webbrowser.open(url)


def _server(settings: Settings) -> str:
    """The server that a login is for."""
    found = settings.server or live_server(settings.home)
    return found or f"http://{settings.server_host}:{settings.server_port}"


def _credentials() -> Credentials:

    return Credentials(user_data(os.environ))


def _status(settings: Settings, where: str) -> dict[str, Any]:
    kept = _credentials().get(where)
    token = settings.auth_token or (kept.token if kept else "")
    claims = claims_of(token)
    by = "FLUX_AUTH_TOKEN" if settings.auth_token else "login" if kept else None
    return {
        "server": where,
        "by": by,
        "subject": claims.get("sub"),
        "issuer": claims.get("iss"),
        "expires_at": claims.get("exp"),
        "refreshes": by == "login" and kept is not None and kept.refresh_token is not None,
    }


async def _leave(kept: Login) -> None:
    async with provider_client() as http:
        await (await Provider.find(http, kept.client)).leave(kept)


async def _me(settings: Settings) -> dict[str, Any]:
    async with connect(settings, worker=False) as client:
        return await client.get("/auth/me")


def _print_me(me: dict[str, Any], format_: str, *, permissions: bool) -> None:
    if format_ == "json":
        print_json(me)
        return
    if not me["auth"]:
        click.echo("Auth is off: everybody who reaches the server is its operator.", err=True)
    if permissions:
        for permission in me["permissions"]:
            click.echo(permission)
        return
    click.echo(f"Subject: {me['subject']}\nRoles: {', '.join(me['roles']) or 'none'}")
    if me["expires_at"]:
        click.echo(f"Until: {when(me['expires_at'])}")
