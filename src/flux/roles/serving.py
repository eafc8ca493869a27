"""Serving a runtime: the HTTP API of its process, and the page of one of its agents."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from functools import partial
from typing import Any, NamedTuple

import uvicorn

from flux.agents.process import Process
from flux.client import FluxClient
from flux.client.transport import InProcessTransport
from flux.server.app import create_app, end_streams
from flux.surfaces.cli.connect import EMBEDDED, LOOPBACK
from flux.surfaces.cli.start import LEAVE_SECONDS, announced, listen, until_stopped, url_of
from flux.surfaces.web import app as web


class Places(NamedTuple):
    """Where to listen; `page` None: no page."""

    host: str
    port: int
    page: int | None


def say(url: str, page: str | None) -> None:
    """Tell a person the addresses."""
    sys.stdout.write(f"Flux server on {url}\n" + (f"Page: {page}/\n" if page is not None else ""))
    sys.stdout.flush()


async def serve(process: Process, agent: str, places: Places, ready: Callable[[str, str | None], None]) -> None:
    """Serve until cancelled.

    :raises AddressInUse, InvalidInput: it cannot listen there
    """
    hosts: frozenset[str] | None = frozenset() if places.host in LOOPBACK else None
    with ExitStack() as stack:
        listener = stack.enter_context(listen(places.host, places.port))
        paged = nullcontext() if places.page is None else listen(places.host, places.page)
        page_listener: Any = stack.enter_context(paged)
        url = url_of(listener)
        stack.enter_context(announced(process.settings.home, url, process.worker_id))
        app = create_app(process, hosts=hosts)
        within = InProcessTransport(create_app(process, operator=True))
        client = FluxClient(EMBEDDED, transport=within, workspace=process.binder.workspace)
        async with client, asyncio.TaskGroup() as serving:
            serving.create_task(_listening(app, listener, partial(end_streams, app)))
            if page_listener is not None:
                page = web.create_page(client, agent, hosts=hosts)
                serving.create_task(_listening(page, page_listener, partial(web.end_streams, page)))
            ready(url, url_of(page_listener) if page_listener is not None else None)


async def _listening(app: Any, listener: Any, stopping: Callable[[], None]) -> None:
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=LEAVE_SECONDS
    )
    await until_stopped(config, listener, stopping)
