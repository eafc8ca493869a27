"""`flux agent start NAME --mode web`: a page in the browser."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import click

from flux.errors import InvalidInput
from flux.settings import Settings
from flux.surfaces.cli.connect import LOOPBACK, connect, run, settle_memory
from flux.surfaces.cli.find import find_session
from flux.surfaces.cli.logs import log_to_stderr
from flux.surfaces.cli.start import LEAVE_SECONDS, listen, until_stopped, url_of

ADVICE = "put a reverse proxy in front that speaks TLS, asks who calls, keeps the Host header and does not buffer"


class Shown(NamedTuple):
    """What the page opens with."""

    agent: str
    session: str | None
    model: str | None


def page(settings: Settings, shown: Shown, *, host: str, port: int, allow_remote: bool) -> int:
    """Serve the page of an agent until stopped.

    :raises InvalidInput: the address can be reached from elsewhere, and that is not meant
    :raises AddressInUse: another process has it
    :raises AgentNotFound, SessionNotFound: there is no such agent or session
    """
    if shown.model is not None and "/" not in shown.model:
        raise InvalidInput(f"--model {shown.model!r} must be provider/model, for example anthropic/claude-sonnet-5-5")
    remote = host not in LOOPBACK
    if remote and not allow_remote:
        raise InvalidInput(
            f"{host} can be reached from other machines, and whoever opens the page acts as you; "
            f"add --allow-remote if that is meant, and {ADVICE}"
        )
    if remote:
        click.echo(f"Warning: whoever reaches {host} talks to {shown.agent} as you; {ADVICE}.", err=True)
    run(_serve(settings, shown, host, port), long_lived=True)
    return 0


async def _serve(settings: Settings, shown: Shown, host: str, port: int) -> None:
    import uvicorn

    from flux.surfaces.web.app import create_page, end_streams

    log_to_stderr()
    with listen(host, port) as listener:
        async with connect(settings) as client:
            await client.get(f"/agents/{shown.agent}")
            place = f"/#/s/{await find_session(client, shown.session)}" if shown.session else "/"
            hosts: frozenset[str] | None = frozenset() if host in LOOPBACK else None
            app = create_page(client, shown.agent, model=shown.model, hosts=hosts)
            config = uvicorn.Config(
                app,
                log_level="warning",
                log_config=None,
                access_log=False,
                lifespan="off",
                timeout_graceful_shutdown=LEAVE_SECONDS,
            )
            settle_memory()
            click.echo(f"Flux Agent — {shown.agent}: {url_of(listener)}{place}")
            await until_stopped(config, listener, partial(end_streams, app))
