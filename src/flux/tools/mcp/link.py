"""What one person has of one server: its tools as they were last listed, and a connection while one is needed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

import mcp_types as types
from mcp.shared.dispatcher import ProgressFnT
from mcp.shared.exceptions import MCPError

from flux.errors import FluxError
from flux.tools.mcp.config import SECRET, McpServer
from flux.tools.mcp.connection import BAD_ANSWER, Connection, Down, Listed, Result, Target, reason_of
from flux.tools.mcp.oauth import Login, LoginNeeded
from flux.tools.mcp.surroundings import Surroundings, Vault
from flux.tools.mcp.whose import Elicit

logger = logging.getLogger(__name__)

#: Seconds that a session waits for a server when it begins.
OPEN_SECONDS = 15.0
#: Seconds between two attempts to reach a server that is down, and how long anybody's interest in it lasts.
FIRST_PAUSE, LONGEST_PAUSE, INTEREST = 1.0, 60.0, 600.0
#: What an HTTP server answers that does not know Streamable HTTP.
UNKNOWN_WAY = (400, 404, 405)


class Link:
    """One server for one person. `version` grows whenever what it offers changes."""

    def __init__(self, pool: Surroundings, server: McpServer, vault: Vault) -> None:
        self.server = server
        self.version = 0
        self.trouble: Down | None = None
        self._pool = pool
        self.vault = vault
        self._connection: Connection | None = None
        self._listing: tuple[Listed, ...] | None = None
        self._lock = asyncio.Lock()
        self._retrying: asyncio.Task[None] | None = None
        self._calls = 0
        self._idle: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._wanted = 0.0
        told = pool.us.transport
        self._old = told == "sse" or (told is None and _looks_old(server.url))

    @property
    def listing(self) -> tuple[Listed, ...] | None:
        """The tools as last listed; None: never."""
        return self._listing

    @property
    def rests(self) -> bool:
        """Whether nothing is open or under way."""
        return self._connection is None and self._retrying is None and self._calls == 0 and not self._lock.locked()

    @property
    def stale(self) -> bool:
        """Whether the server has said that its tools are others by now."""
        return self._connection is not None and self._connection.stale

    @property
    def wants_login(self) -> bool:
        """Whether all it lacks is a person who logs in."""
        return isinstance(self.trouble, LoginNeeded)

    async def offer(self) -> tuple[Listed, ...] | None:
        """The tools of the server, None while it is down and never told them; `trouble` says why."""
        self._wanted = asyncio.get_running_loop().time()
        if self._retrying is not None or (self._listing is not None and not self.stale):
            return self._listing
        try:
            async with self._lock:
                await self._usable()
        except LoginNeeded:
            pass  # trying again does not help
        except Down:
            self._retrying = asyncio.create_task(self._retry())
        return self._listing

    async def expect_login(self) -> None:
        """Let somebody wait for the person who is about to log in."""
        if self._pool.on_login is not None:
            await self._pool.on_login()

    async def ready(self) -> None:
        """Wait until the server can be used, and its tools are known.

        :raises Down: it cannot
        """
        async with self._lock:
            await self._usable()

    async def call(
        self, tool: Listed, params: types.CallToolRequestParams, elicit: Elicit, progress: ProgressFnT
    ) -> Result:
        """Call a tool, if the server still has it as it was listed.

        :raises Down: the server cannot be reached, or went away meanwhile
        :raises MCPError: it refuses
        """
        self._calls += 1
        try:
            for last in (False, True):
                async with self._lock:
                    connection = await self._usable()
                    self._check(tool)
                try:
                    return await connection.call(params, elicit, progress)
                except MCPError as error:
                    if connection.alive:
                        raise
                    lost = await connection.lost(str(error))
                    if isinstance(lost, LoginNeeded):
                        raise lost from error
                    # An expired session was refused as a whole: nothing has happened.
                    if last or not (tool.effect != "once" or connection.expired):
                        raise Down(f"{lost}; what became of the call is unknown") from error
                    logger.info("an MCP server went away (%s); connecting again", lost)
            raise Down("it went away twice")
        finally:
            self._calls -= 1
            self._rest()

    async def close(self) -> None:
        """End everything."""
        if self._idle is not None:
            self._idle.cancel()
        if self._retrying is not None:
            self._retrying.cancel()
            await asyncio.wait((self._retrying,))
        if self._connection is not None:
            await self._connection.close()
        if self._closing:
            await asyncio.wait(self._closing)

    def _check(self, tool: Listed) -> None:
        if not any(one.digest == tool.digest and one.name == tool.name for one in self._listing or ()):
            raise Down(f"it has changed {tool.name}, or offers it no more; call it again if it is still there")

    async def _usable(self) -> Connection:
        """A live connection whose tools are known. The caller holds the lock."""
        connection = self._connection
        if connection is None or not connection.alive:
            if connection is not None:
                self._close(connection)
            self._connection = connection = await self._open()
        if connection.stale or self._listing is None:
            await self._list(connection)
        return connection

    async def _open(self) -> Connection:
        try:
            connection = await self._connected()
            await self._list(connection)
        except Down as down:
            self._changed(down)
            raise
        self._rest()
        return connection

    async def _connected(self) -> Connection:
        try:
            return await self._connect()
        except Down as down:
            told = self._pool.us.transport is not None
            if self.server.url is None or self._old or told or down.status not in UNKNOWN_WAY:
                raise
            self._old = True
            try:
                return await self._connect()
            except Down:
                self._old = False
                raise down from None

    async def _connect(self) -> Connection:
        try:
            variables, login = await self._variables(), self._login()
            target = Target(
                self.server,
                self._pool.cwd,
                variables,
                self._headers,
                login,
                old=self._old,
                us=self._pool.us,
                hosts=self._pool.hosts,
            )
        except FluxError as error:
            raise Down(str(error)) from error
        connection = Connection(target)
        await connection.open(min(OPEN_SECONDS, self.server.timeout))
        return connection

    async def _list(self, connection: Connection) -> None:
        try:
            async with asyncio.timeout(min(OPEN_SECONDS, self.server.timeout)):
                listing = await connection.tools()
        except (TimeoutError, Down, *BAD_ANSWER) as error:
            connection.stale = True
            self._close(connection)
            raise (
                Down("it does not list its tools") if isinstance(error, TimeoutError) else reason_of(error)
            ) from error
        changed = listing != self._listing
        self._listing = listing
        if changed or self.trouble is not None:
            self._changed(None)

    def _changed(self, trouble: Down | None) -> None:
        if trouble is None or self.trouble is None or str(trouble) != str(self.trouble):
            self.version += 1
            if trouble is not None:
                logger.warning("the MCP server %s cannot be used: %s", self.server.url or self.server.words[0], trouble)
        self.trouble = trouble

    async def _retry(self) -> None:
        """Try again until it works, or nobody wants it any more."""
        loop = asyncio.get_running_loop()
        pause = FIRST_PAUSE
        try:
            while loop.time() - self._wanted < INTEREST:
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
                try:
                    async with self._lock:
                        await self._usable()
                except LoginNeeded:
                    return
                except Down:
                    continue
                return
        finally:
            self._retrying = None

    def _rest(self) -> None:
        """Close the connection when nobody has used it for a while."""
        if self._idle is not None:
            self._idle.cancel()
        self._idle = asyncio.get_running_loop().call_later(self._pool.idle, self._sleep)

    def _sleep(self) -> None:
        connection = self._connection
        if connection is not None and self._calls == 0:
            self._connection = None
            self._close(connection)

    def _close(self, connection: Connection) -> None:
        task = asyncio.create_task(connection.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _login(self) -> Login | None:
        if self.server.auth != "oauth":
            return None
        return Login(self.server, self.vault, self._pool.callback, self._pool.document, self._pool.hosts)

    async def _headers(self) -> Mapping[str, str]:
        """What is sent with every request, as it is now."""
        headers = {name: await self._value(value) for name, value in self.server.headers.items()}
        if self.server.auth == "bearer" and self.server.secret:
            headers["Authorization"] = f"Bearer {await self.vault.read(self.server.secret)}"
        return headers

    async def _variables(self) -> Mapping[str, str]:
        own = {name: await self._value(value) for name, value in self.server.env.items()}
        return {**self._pool.environment, **own}

    async def _value(self, text: str) -> str:
        return await self.vault.read(text.removeprefix(SECRET)) if text.startswith(SECRET) else text


def _looks_old(url: str | None) -> bool:
    """Whether an address is one of HTTP with server-sent events, as far as its path tells."""
    return url is not None and url.partition("?")[0].rstrip("/").endswith("/sse")
