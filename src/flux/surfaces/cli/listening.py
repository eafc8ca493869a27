"""Serving an application on an address of this machine."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from flux.errors import AddressInUse, InvalidInput

#: Seconds that open connections get when the process stops.
LEAVE_SECONDS = 1
BACKLOG = 2048


async def until_stopped(app: Any, listener: socket.socket, stopping: Callable[[], None]) -> None:
    """Serve an ASGI application until this task is cancelled; `stopping` is then called first.

    Signals are ours: runs are handed over after the last request.
    """
    import uvicorn

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    server = Server(
        uvicorn.Config(
            app, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=LEAVE_SECONDS
        )
    )
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    try:
        await asyncio.shield(serving)
    except asyncio.CancelledError:
        stopping()
        server.should_exit = True
        await serving


@contextmanager
def listen(host: str, port: int) -> Iterator[socket.socket]:
    """A socket on an address; port 0 takes a free one.

    :raises AddressInUse: another process has it
    :raises InvalidInput: it cannot be listened on
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


def url_of(listener: socket.socket) -> str:
    """The address of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
