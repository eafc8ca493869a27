"""`flux dev`: serves a project, and starts again when one of its files changes."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flux.errors import InvalidInput
from flux.surfaces.cli.connect import run
from flux.surfaces.cli.options import settings_for
from flux.surfaces.cli.start import is_remote, listen, serve, url_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from flux.agents.project.discovery import Project

PORT = 2024
#: Seconds that the server gets to hand over what runs before it is killed.
STOP_SECONDS = 60.0


project_option = click.option(
    "--project", metavar="DIR", type=click.Path(path_type=Path), help="The project.  [default: this folder]"
)


@click.command()
@click.option("--host", metavar="ADDRESS", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), metavar="PORT", default=PORT, show_default=True, help="0 takes a free one."
)
@project_option
@click.option("--no-reload", is_flag=True, help="Do not start again when a file changes.")
@click.option("--allow-remote", is_flag=True, help="Allow an address that other machines can reach.")
@click.option("--listener", type=int, hidden=True, help="The socket of the `flux dev` that watches.")
def dev(host: str, port: int, project: Path | None, no_reload: bool, allow_remote: bool, listener: int | None) -> None:
    """Serve the agents and workflows of a project, with a worker, and start again when a file changes.

    Agents are agents/NAME.py or src/agents/NAME.py, workflows are workflows/NAME.py. Sessions are kept in the
    project's .flux; what runs when a file changes goes on afterwards.
    """
    root = (project or Path.cwd()).resolve()
    if listener is not None:
        return _serve(root, socket.socket(fileno=listener), allow_remote)
    remote = is_remote(host, allowed=allow_remote)
    with listen(host, port) as bound:
        if no_reload:
            return _serve(root, bound, remote)
        run(_watch(root, bound, remote))


def _serve(root: Path, bound: socket.socket, remote: bool) -> None:
    from flux.agents.project.discovery import load_project

    project = load_project(root)
    os.chdir(root)
    home_in(root)
    settings = settings_for()
    click.echo(f"Flux dev on {url_of(bound)} ({_told(project)}; home: {settings.home})")
    run(serve(settings, project, bound, worker=True, remote=remote), long_lived=True)


def home_in(root: Path) -> None:
    """Make the folder that holds the sessions of a project, unless FLUX_HOME says where they are."""
    if not os.environ.get("FLUX_HOME"):
        try:
            (root / ".flux").mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise InvalidInput(f"cannot make {root / '.flux'} for the sessions: {error.strerror or error}") from error


def _told(project: Project) -> str:
    kinds = {"agents": project.agents, "workflows": project.workflows}
    return "; ".join(f"{kind}: {', '.join(names)}" for kind, names in kinds.items() if names)


async def _watch(root: Path, bound: socket.socket, remote: bool) -> None:
    """Run the server as a process of its own; when a file changes, let it hand over, and start the next.

    The socket stays open all the time: who connects meanwhile waits, and is not refused.
    """
    bound.set_inheritable(True)
    options = ["--project", str(root), "--listener", str(bound.fileno()), *(["--allow-remote"] if remote else [])]
    changes = _changes(root)
    while True:
        server = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "flux", "dev", *options, pass_fds=(bound.fileno(),)
        )
        ended, changed = asyncio.ensure_future(server.wait()), asyncio.ensure_future(anext(changes))
        try:
            await asyncio.wait((ended, changed), return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                click.echo("The server has stopped; it starts again when a file changes.", err=True)
            files = await changed
        finally:
            await _stop(server, ended)
            changed.cancel()
            await asyncio.wait((changed,))
        click.echo(f"{files} changed; starting again.", err=True)


async def _stop(server: asyncio.subprocess.Process, ended: asyncio.Future[int]) -> None:
    if ended.done():
        return
    with suppress(ProcessLookupError):
        server.terminate()
    try:
        await asyncio.wait_for(ended, STOP_SECONDS)
    except TimeoutError:
        server.kill()
        await server.wait()


async def _changes(root: Path) -> AsyncIterator[str]:
    """The source files that changed, each time some did."""
    from watchfiles import PythonFilter, awatch

    async for changes in awatch(root, watch_filter=PythonFilter(extra_extensions=("flux.toml",))):
        names = sorted({str(Path(path).relative_to(root)) for _, path in changes})
        yield ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
