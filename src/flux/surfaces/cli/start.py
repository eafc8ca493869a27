"""`flux start server`, `flux start worker`, and both the other way round."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flux.engine.dispatching.pools import pools_of
from flux.errors import AddressInUse, InvalidInput
from flux.settings import Settings
from flux.surfaces.cli.connect import LOOPBACK, live_server, run, settle_memory
from flux.surfaces.cli.logs import log_to_stderr
from flux.surfaces.cli.options import (
    Commands,
    examples,
    settings_for,
)

if TYPE_CHECKING:
    from uvicorn import Config

    from flux.agents.project.discovery import Project

OPEN = "Warning: auth is off; whoever reaches this address can run commands here."
CLEAR = "Warning: tokens cross the network in clear; put a reverse proxy with TLS in front."
#: Seconds that open connections get when the server stops.
LEAVE_SECONDS = 1
BACKLOG = 2048


@click.group(cls=Commands)
def start() -> None:
    """Start a server or a worker."""


@click.group(cls=Commands)
def server() -> None:
    """The server."""


project_option = click.option(
    "--project",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Also run the agents and workflows of this folder's Python files.",
)


@click.command()
@click.option("--host", metavar="ADDRESS", help="The address to listen on.  [default: 127.0.0.1]")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="The port to listen on; 0 takes a free one.  [default: 8000]",
)
@click.option("--no-worker", is_flag=True, help="Serve only; run nothing.")
@click.option("--allow-remote", is_flag=True, help="Allow an address that other machines can reach.")
@project_option
def start_server(host: str | None, port: int | None, no_worker: bool, allow_remote: bool, project: Path | None) -> None:
    """Start a server; it also runs agents unless told not to."""
    settings = settings_for(server_host=host, server_port=port)
    remote = is_remote(settings.server_host, allowed=allow_remote, auth=settings.auth.enabled)
    with listen(settings.server_host, settings.server_port) as listener:
        served = serve(settings, _loaded(project), listener, worker=not no_worker, remote=remote, told="Flux server")
        run(served, long_lived=True)


@click.command(epilog=examples("flux start worker gpu-1 --label gpu=a100"))
@project_option
@click.argument("name", required=False)
@click.option("--label", "labels", metavar="KEY=VALUE", multiple=True, help="What this worker is; may be repeated.")
def start_worker(name: str | None, labels: tuple[str, ...], project: Path | None) -> None:
    """Start a worker: a process that runs agents and serves nobody (needs Postgres).

    NAME is what `flux worker list` calls it; without one it is called by its host and process.
    """
    settings = settings_for()
    if settings.database.startswith("sqlite:"):
        raise InvalidInput(
            "a worker of its own needs Postgres: set FLUX_DATABASE_URL=postgresql://...; "
            "on SQLite `flux start server` runs agents too"
        )
    run(_work(settings, name, _labels(labels), _loaded(project)), long_lived=True)


@server.command("admin-key")
@click.option("--name", metavar="NAME", default="first", show_default=True, help="What the key is called.")
@click.option(
    "--tenant", metavar="NAME", default="default", show_default=True,
    help="Whose admin; a runtime in code names its own.",
)  # fmt: skip
def admin_key(name: str, tenant: str) -> None:
    """Make an API key of the principal "admin", who may do everything, and print it, alone.

    For whoever has the server's database: the first admin, or after a lost key. It asks no server.
    """
    settings = settings_for()
    click.echo(run(_admin_key(settings, name, tenant)))
    if not settings.auth.api_keys.enabled:
        click.echo(
            "Note: API keys are off; set enabled = true in [flux.security.auth.api_keys] and start the server again.",
            err=True,
        )


async def _admin_key(settings: Settings, name: str, tenant: str) -> str:
    from flux.engine.service.identity import Identities
    from flux.engine.service.principals import Principals
    from flux.store.opening import open_database

    database = await open_database(settings.database, synchronous=settings.synchronous)
    try:
        made = await Principals(database, Identities(database, enabled=True)).admin_key(name, tenant)
    finally:
        await database.close()
    return made.secret


start.add_command(start_server, "server")
start.add_command(start_worker, "worker")
server.add_command(start_server, "start")


def is_remote(host: str, *, allowed: bool, auth: bool = False) -> bool:
    """Whether other machines reach an address, of which this warns.

    :raises InvalidInput: they do, and that is not allowed
    """
    if host in LOOPBACK:
        return False
    if not (allowed or auth):
        raise InvalidInput(
            f"{host} can be reached from other machines and auth is off: "
            "anybody could run commands here; turn auth on, or add --allow-remote if a proxy in front checks who calls"
        )
    click.echo(CLEAR if auth else OPEN, err=True)
    return True


def _loaded(root: Path | None) -> Project | None:
    from flux.agents.project.discovery import load_project

    return load_project(root) if root else None


def _labels(pairs: tuple[str, ...]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise InvalidInput(f"label {pair!r} is not KEY=VALUE")
        if key in labels:
            raise InvalidInput(f"label {key!r} is given twice")
        labels[key] = value
    pools_of(labels)
    return labels


async def _work(settings: Settings, name: str | None, labels: dict[str, str], project: Project | None) -> None:
    """Work until cancelled or drained."""
    from flux.agents.process import open_process

    log_to_stderr()
    opening = open_process(
        settings, environment=os.environ, workspace=Path.cwd(), labels=labels, name=name, project=project
    )
    async with opening as process:
        settle_memory()
        pools = " ".join(process.offer.pools)
        click.echo(f"Flux worker {process.who.name} (id: {process.worker_id}, pools: {pools})")
        await process.drained.wait()
    click.echo(f"Flux worker {process.who.name} has been drained")


async def serve(
    settings: Settings,
    project: Project | None,
    listener: socket.socket,
    *,
    worker: bool,
    remote: bool,
    told: str | None = None,
) -> None:
    """Serve until cancelled; `told` is what to call it on standard output once it is there."""
    import uvicorn

    from flux.agents.process import open_process
    from flux.http.bounded import bounded
    from flux.server.app import create_app, end_streams

    log_to_stderr()
    opening = open_process(settings, environment=os.environ, workspace=Path.cwd(), worker=worker, project=project)
    async with opening as process:
        app = create_app(process, hosts=None if remote else frozenset())
        config = uvicorn.Config(
            app,
            http=bounded(settings.max_header_bytes),
            ws="websockets-sansio",
            ws_max_size=6 * settings.max_message_bytes,
            log_level="warning",
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=LEAVE_SECONDS,
        )
        url = url_of(listener)
        settle_memory()
        with announced(settings.home, url, process.worker_id):
            if told is not None:
                click.echo(f"{told} on {url} (home: {settings.home})")
            await until_stopped(config, listener, partial(end_streams, app))


async def until_stopped(config: Config, listener: socket.socket, stopping: Callable[[], None]) -> None:
    """Serve until this task is cancelled; `stopping` is then called first.

    Signals are ours: runs are handed over after the last request.
    """
    import uvicorn

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    server = Server(config)
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    try:
        await asyncio.shield(serving)
    except asyncio.CancelledError:
        stopping()
        server.should_exit = True
        await serving


@contextmanager
def listen(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens there.

    :raises AddressInUse, InvalidInput: it cannot
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio turns off Nagle's delay only for sockets that say TCP.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(BACKLOG)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise AddressInUse(
                    f"port {port} on {host} is in use by another process; choose another with --port"
                ) from error
            raise InvalidInput(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
        yield listener


@contextmanager
def announced(home: Path, url: str, worker: str) -> Iterator[None]:
    """Let commands on this home find the server, unless another one is there already."""
    path = home / "server.json"
    if live_server(home) is not None:
        yield
        return
    path.write_text(json.dumps({"url": url, "worker": worker}))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def url_of(listener: socket.socket) -> str:
    """The address to open."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
