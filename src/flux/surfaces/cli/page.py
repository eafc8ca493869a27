"""`flux agent start NAME --mode web`: a page in the browser."""

from __future__ import annotations

import click

from flux.errors import InvalidInput
from flux.settings import Settings
from flux.surfaces.cli.connect import LOOPBACK, connect, run
from flux.surfaces.cli.find import find_session
from flux.surfaces.cli.start import LEAVE_SECONDS, listen, until_stopped, url_of

ADVICE = "put a reverse proxy in front that speaks TLS, asks who calls, keeps the Host header and does not buffer"


def page(settings: Settings, agent: str, session: str | None, *, host: str, port: int, allow_remote: bool) -> int:
    """Serve the page of an agent until stopped."""
    remote = host not in LOOPBACK
    if remote and not allow_remote:
        raise InvalidInput(
            f"{host} can be reached from other machines, and whoever opens the page acts as you; "
            f"add --allow-remote if that is meant, and {ADVICE}"
        )
    if remote:
        click.echo(f"Warning: whoever reaches {host} talks to {agent} as you; {ADVICE}.", err=True)
    run(_serve(settings, agent, session, host, port), long_lived=True)
    return 0


async def _serve(settings: Settings, agent: str, session: str | None, host: str, port: int) -> None:
    import uvicorn

    from flux.surfaces.web.app import create_page, end_streams

    async with connect(settings) as client:
        await client.get(f"/agents/{agent}")
        place = f"/#/s/{await find_session(client, session)}" if session else "/"
        with listen(host, port) as listener:
            app = create_page(client, agent, hosts=frozenset() if host in LOOPBACK else None)
            config = uvicorn.Config(
                app, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=LEAVE_SECONDS
            )
            click.echo(f"Flux Agent — {agent}: {url_of(listener)}{place}")
            await until_stopped(config, listener, lambda: end_streams(app))
