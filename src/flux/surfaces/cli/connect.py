"""Which server a command talks to; this is the only place that decides.

The flag, environment or file; else the live server of this home; else one embedded in this process.
A configured server that is down is an error, never another database.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from flux.engine.running.recovery import is_alive
from flux.errors import InvalidInput
from flux.redaction import Known
from flux.settings import Settings
from flux.surfaces.cli.logs import log_to_file
from flux.trust import user_data

if TYPE_CHECKING:
    from flux.client import FluxClient
    from flux.client.credentials import StoredLogin

T = TypeVar("T")

#: Of logins, in the user's own folder.
FILE = "credentials.json"
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
EMBEDDED = "http://localhost"
#: What this command knows, until it has told how it ended.
KNOWN = Known()
#: Seconds that runs get to finish when a command leaves; they go on when the session is resumed.
EMBEDDED_GRACE = 1.0


@asynccontextmanager
async def connect(
    settings: Settings, *, worker: bool = True, project: Path | None = None, operator: bool = True
) -> AsyncIterator[FluxClient]:
    """A client of the server in force; `worker`: an embedded one also runs what has work, `project` included.

    `operator`: who runs the command has the database, so an embedded server does not ask who calls.
    """
    from flux.client import FluxClient  # a server needs none, and starts sooner without

    url = settings.server or live_server(settings.home)
    here = str(Path.cwd())
    if url is not None:
        _check_address(url)
        # A server on this machine acts where this command was given; another one has its own directories.
        # With a token it may be for others too, who choose no directories on it.
        token = settings.auth_token or stored_login(url)
        workspace = here if urlsplit(url).hostname in LOOPBACK and not token else None
        KNOWN.add(settings.auth_token)
        async with FluxClient(url, token, workspace=workspace) as client:
            yield client
        return
    log_to_file(settings.home)
    from flux.agents.process import open_process
    from flux.agents.project.discovery import load_project
    from flux.client.transport import InProcessTransport
    from flux.server.app import create_app

    async with AsyncExitStack() as stack:
        hurried = msgspec.structs.replace(settings, grace=min(settings.grace, EMBEDDED_GRACE))
        opening = open_process(
            hurried,
            environment=os.environ,
            workspace=Path(here),
            worker=worker,
            project=load_project(project) if project else None,
        )
        process = await stack.enter_async_context(opening)
        app = create_app(process, operator=operator)
        client = FluxClient(EMBEDDED, transport=InProcessTransport(app), workspace=here)
        settle_memory()
        yield await stack.enter_async_context(client)


def _check_address(url: str) -> None:
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidInput(f"the server {url!r} must be an address such as http://127.0.0.1:8000")


def stored_login(url: str) -> StoredLogin | None:
    """The login that is kept for a server."""
    folder = user_data(os.environ)
    if not (folder / FILE).exists():
        return None
    from flux.client.credentials import Credentials, StoredLogin

    credentials = Credentials(folder)
    return StoredLogin(credentials, url) if credentials.get(url) else None


def live_server(home: Path) -> str | None:
    """The address of the server that runs on this home, if one does."""
    try:
        found = json.loads((home / "server.json").read_text())
        return str(found["url"]) if is_alive(home / "workers", found["worker"]) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def settle_memory() -> None:
    """What start-up has made stays for good: keep the garbage collector from walking it again and again."""
    gc.collect()
    gc.freeze()


def run(work: Coroutine[Any, Any, T], *, long_lived: bool = False) -> T:
    """Run a command's work; SIGTERM and a closed terminal stop it in good order.

    `long_lived` work is worth the time it takes to load a faster event loop.
    """

    async def guarded() -> T:
        task = asyncio.ensure_future(work)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, task.cancel)
        return await task

    try:
        with asyncio.Runner(loop_factory=_fast_loop() if long_lived else None) as runner:
            return runner.run(guarded())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


def _fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        factory: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module("uvloop").new_event_loop
    except ImportError:
        return None
    return factory
