"""Calls that may be made again when they did not reach the server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from flux.errors import ServerUnreachable, Unavailable

T = TypeVar("T")

#: Seconds to wait after the n-th call in a row that did not reach the server.
RETRY = (0.1, 0.2, 0.5, 1.0, 2.0)


async def patiently(call: Callable[[], Awaitable[T]]) -> T:
    """Make a call that may be repeated until it reaches the server, for a few seconds.

    :raises ServerUnreachable: the server stays away
    """
    for delay in RETRY:
        try:
            return await call()
        except Unavailable as error:
            if type(error) not in (ServerUnreachable, Unavailable):
                raise
        await asyncio.sleep(delay)
    return await call()
