"""Takes browsers that come back from a login, while no server of ours listens: for `flux chat`."""

from __future__ import annotations

import asyncio
import html
from contextlib import suppress
from urllib.parse import parse_qs, urlsplit

from flux.agents.mcp.logins import Logins
from flux.errors import FluxError

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Flux</title>
<body style="font-family: sans-serif; margin: 4em auto; max-width: 30em"><h1>{title}</h1><p>{text}</p></body></html>"""
HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'",
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
}
LOOPBACK = ("localhost", "127.0.0.1")
#: Seconds that the door stays open for a login, and for one browser to say what it wants.
OPEN_SECONDS, REQUEST_SECONDS = 600.0, 10.0


async def finished(logins: Logins, state: str, code: str | None, iss: str | None, error: str | None) -> tuple[int, str]:
    """Finish a login; a status and the page that the browser shows."""
    try:
        await logins.came_back(state, code, iss, error)
    except FluxError as problem:
        return problem.status, PAGE.format(title="The login did not work", text=html.escape(str(problem)))
    return 200, PAGE.format(title="You are logged in", text="The agent goes on. You can close this page.")


class Doorman:
    """Opens the port of the callback when a login is asked for; where it is taken, a server of ours has it."""

    def __init__(self, logins: Logins, callback: str) -> None:
        place = urlsplit(callback)
        self._logins = logins
        self._path = place.path
        self._port = place.port if place.hostname in LOOPBACK else None
        self._server: asyncio.Server | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def open(self) -> None:
        """Wait for a browser, from now on for a while."""
        if self._port is None:
            return
        if self._server is None:
            with suppress(OSError):
                self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(OPEN_SECONDS, self._shut)

    async def close(self) -> None:
        """Wait no longer."""
        if self._timer is not None:
            self._timer.cancel()
        server = self._server
        self._shut()
        if server is not None:
            await server.wait_closed()

    def _shut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
            status, page = await self._answer(head.split(b"\r\n", 1)[0].decode("ascii", "replace"))
            lines = [f"HTTP/1.1 {status} Flux", "content-type: text/html; charset=utf-8", "connection: close"]
            lines += [f"{name}: {value}" for name, value in HEADERS.items()]
            writer.write("\r\n".join([*lines, "", page]).encode())
            await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # no browser, or one that left
        finally:
            writer.close()

    async def _answer(self, line: str) -> tuple[int, str]:
        method, target, *_ = [*line.split(" "), "", ""]
        place = urlsplit(target)
        if method != "GET" or place.path != self._path:
            return 404, PAGE.format(title="Nothing is here", text="")
        query = {name: values[0] for name, values in parse_qs(place.query).items()}
        return await finished(
            self._logins, query.get("state", ""), query.get("code"), query.get("iss"), query.get("error")
        )
