"""`flux agent start NAME --mode api`."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import click

from flux.client import FluxClient
from flux.errors import AgentNotFound, FluxError, InvalidInput
from flux.settings import Settings
from flux.surfaces.cli.connect import EMBEDDED, LOOPBACK, connect, run, settle_memory
from flux.surfaces.cli.logs import log_to_stderr
from flux.surfaces.cli.start import LEAVE_SECONDS, listen, until_stopped, url_of

PROXY = (
    "Warning: other machines can reach this address, and tokens cross the network in clear. Put a reverse proxy with "
    "TLS in front (nginx, Caddy) that passes Authorization on and buffers no responses."
)


class Address(NamedTuple):
    """Where to listen; `allow_remote`: other machines are meant to reach it, under any name."""

    host: str
    port: int
    allow_remote: bool


def serve(settings: Settings, agent: str, session: str | None, model: str | None, **where: Any) -> int:
    """Serve an agent until the process is stopped; `where` has the fields of an Address.

    :raises InvalidInput: the address can be reached from elsewhere, and that is not meant
    :raises AddressInUse: another process has it
    :raises AgentNotFound: there is no such agent
    """
    address = Address(**where)
    if session is not None:
        raise InvalidInput("--session is not for mode api: each request names its own, ?session=ID")
    if model is not None and "/" not in model:
        raise InvalidInput(f"--model {model!r} must be provider/model, for example anthropic/claude-sonnet-5-5")
    if address.host not in LOOPBACK and not address.allow_remote:
        raise InvalidInput(
            f"{address.host} can be reached from other machines; add --allow-remote if that is meant, "
            "and put a reverse proxy with TLS in front"
        )
    run(_serve(settings, agent, address, model), long_lived=True)
    return 0


async def _serve(settings: Settings, agent: str, address: Address, model: str | None) -> None:
    import uvicorn

    from flux.http.guard import Guard, body_limit
    from flux.surfaces.api.app import create_api, end_streams

    log_to_stderr()
    with listen(address.host, address.port) as listener:
        async with connect(settings, operator=False) as client:
            await _look(client, agent)
            app = create_api(client, agent, model=model)
            hosts: frozenset[str] | None = None if address.allow_remote else frozenset()
            guarded = Guard(app, hosts=hosts, max_body=body_limit(settings.max_message_bytes))
            settle_memory()
            if address.host not in LOOPBACK:
                click.echo(PROXY, err=True)
            click.echo(f"Flux Agent — {agent} (api) on {url_of(listener)} ({_where(client, settings)})")
            config = uvicorn.Config(
                guarded,
                log_level="warning",
                log_config=None,
                access_log=False,
                lifespan="off",
                timeout_graceful_shutdown=LEAVE_SECONDS,
            )
            await until_stopped(config, listener, partial(end_streams, app))


async def _look(client: FluxClient, agent: str) -> None:
    """Refuse an agent that is known not to be there; the operator's token is not used to find out.

    :raises AgentNotFound: there is no such agent
    """
    async with client.with_token(None) as nobody:
        try:
            found = await nobody.get(f"/agents/{agent}")
        except AgentNotFound:
            raise
        except FluxError as error:
            if error.status not in (401, 403):
                click.echo(f"Warning: {error}", err=True)
            return
    for problem in found["problems"]:
        click.echo(f"Warning: {problem}", err=True)


def _where(client: FluxClient, settings: Settings) -> str:
    if client.base_url == EMBEDDED:
        return f"no server is running: this process runs the agent, home: {settings.home}"
    return f"server: {client.base_url}"
