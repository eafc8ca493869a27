"""One live connection to a server: the SDK's client in a task of its own, and the calls that go through it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any

import httpx2
import mcp_types as types
from mcp.client import Client
from mcp.client.session import ClientRequestContext
from mcp.client.subscriptions import SubscriptionLost
from mcp.shared.dispatcher import ProgressFnT
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from msgspec import Struct
from pydantic import TypeAdapter, ValidationError

from flux.tools.base import Effect
from flux.tools.mcp.config import McpServer, digest_of
from flux.tools.mcp.http import Careful, Headers, Through, sse, streamable
from flux.tools.mcp.stdio import stdio
from flux.tools.mcp.surroundings import Introduction
from flux.tools.mcp.whose import Calls, Elicit

logger = logging.getLogger(__name__)

LARGEST_LISTING = 5_000_000
MOST_PAGES = 100
MOST_TOOLS = 2_000
#: Seconds to end in good order.
CLOSE_SECONDS = 5.0
#: Seconds to learn why a connection ended.
EPILOGUE_SECONDS = 1.0
#: What the SDK raises for what a server says or fails to say.
BAD_ANSWER = (MCPError, ValidationError, RuntimeError, ValueError)

Result = types.CallToolResult | types.InputRequiredResult
_result: TypeAdapter[Result] = TypeAdapter(Result)


class Listed(Struct, frozen=True):
    """A tool as its server describes it; `digest` is that of the whole description."""

    name: str
    description: str
    input_schema: dict[str, Any]
    output_schema: dict[str, Any] | None
    effect: Effect
    digest: str


class Down(Exception):
    """The server cannot be used now; the text says why, on one line. `status`: its answer over HTTP was this."""

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(" ".join(reason.split())[:500])
        self.status = status


class Connection:
    """A connection that its own task opens, holds and closes. `lost` is why it ended."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._ready: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        self._closing = asyncio.Event()
        self._owner = asyncio.create_task(self._own(), name="mcp connection")
        self._owner.add_done_callback(_heard_of)
        self._calls = Calls()
        self._broken = False
        #: Its list of tools is not what it was.
        self.stale = False

    @property
    def alive(self) -> bool:
        """Whether calls may go through it."""
        usable = self._ready.done() and not self._owner.done()
        return usable and not (self._broken or self._target.expired or self._target.ended.done())

    @property
    def expired(self) -> bool:
        """Whether the server refuses it because it forgot the session."""
        return self._target.expired

    async def open(self, seconds: float) -> None:
        """Wait until it can be used.

        :raises Down: it cannot, or not within so many seconds
        """
        await asyncio.wait((self._owner, self._ready), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if self._owner.done():
            raise await self.lost("the connection was closed")
        if not self._ready.done():
            await self.close()
            raise Down(f"no answer within {seconds:g} s")

    async def lost(self, said: str) -> Exception:
        """Why it ended, or can be used no more; `said` is what counts when nothing better is known soon."""
        await asyncio.wait((self._owner,), timeout=EPILOGUE_SECONDS)
        if self._target.expired:
            return Down("the session expired")
        if self._target.ended.done():
            return Down(self._target.ended.result())
        error = self._owner.exception() if self._owner.done() and not self._owner.cancelled() else None
        return reason_of(error) if error is not None else Down(said)

    async def close(self) -> None:
        """End it."""
        self._closing.set()
        await asyncio.wait((self._owner,), timeout=CLOSE_SECONDS)
        if not self._owner.done():
            self._owner.cancel()
            await asyncio.wait((self._owner,))
        self._ready.cancel()

    async def tools(self) -> tuple[Listed, ...]:
        """All tools of the server.

        :raises Down: it does not list them in good order
        """
        found: dict[str, Listed] = {}
        cursor: str | None = None
        seen: set[str] = set()
        size = 0
        client = await self._ready
        self.stale = False
        if client.server_capabilities.tools is None:
            return ()
        for _ in range(MOST_PAGES):
            params = types.PaginatedRequestParams(cursor=cursor) if cursor is not None else None
            page = await client.session.list_tools(params=params)
            for tool in page.tools:
                if tool.name in found:
                    raise Down(f"the server lists the tool {tool.name[:80]!r} twice")
                found[tool.name], length = _listed(tool)
                size += length
            cursor = page.next_cursor
            if cursor is None:
                return tuple(found.values())
            if cursor in seen or len(found) > MOST_TOOLS or size > LARGEST_LISTING:
                break
            seen.add(cursor)
        raise Down(f"its list of tools has no end: {len(found)} tools, {size:,} bytes")

    async def call(self, params: types.CallToolRequestParams, elicit: Elicit, progress: ProgressFnT) -> Result:
        """Call a tool. `elicit` answers what the server asks meanwhile.

        :raises MCPError: the server refuses, or the connection ends
        """
        try:
            async with self._calls.running(elicit):
                return await self._send(params, progress)
        except MCPError as error:
            if error.code == types.HEADER_MISMATCH:
                await self.tools()  # what a header repeats may have changed
                async with self._calls.running(elicit):
                    return await self._send(params, progress)
            self._broken = self._broken or error.code == types.CONNECTION_CLOSED
            raise
        finally:
            if self._broken and not self._calls:
                self._closing.set()

    async def _send(self, params: types.CallToolRequestParams, progress: ProgressFnT) -> Result:
        session = (await self._ready).session
        return await session.send_request(types.CallToolRequest(params=params), _result, progress_callback=progress)

    async def _own(self) -> None:
        async with AsyncExitStack() as stack:
            client = Client(
                self._target.connect(),
                elicitation_callback=self._elicited,
                message_handler=self._heard,
                client_info=types.Implementation(name=self._target.us.name, version=self._target.us.version),
                cache=None,
            )
            # An initialisation that fails must not be taken for one that is slow.
            await stack.enter_async_context(client)
            if not self._ready.done():
                self._ready.set_result(client)
            stack.push_async_callback(_stop, asyncio.create_task(self._listen(client)))
            closing = asyncio.ensure_future(self._closing.wait())
            stack.callback(closing.cancel)
            await asyncio.wait((closing, self._target.ended), return_when=asyncio.FIRST_COMPLETED)

    async def _listen(self, client: Client) -> None:
        """Hear of changed tools from a server of 2026-07-28, which tells only those who listen."""
        tools = client.server_capabilities.tools
        if client.protocol_version not in MODERN_PROTOCOL_VERSIONS or tools is None or not tools.list_changed:
            return
        with suppress(MCPError, SubscriptionLost, TimeoutError):
            async with client.listen(tools_list_changed=True) as changes:
                async for _ in changes:
                    self.stale = True

    async def _heard(self, message: Any) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            self.stale = True
        elif isinstance(message, Exception):
            logger.warning("an MCP server said what cannot be read: %s", str(message)[:200])

    async def _elicited(self, context: ClientRequestContext, params: Any) -> Any:
        nobody = types.ErrorData(code=types.INVALID_REQUEST, message="no call is running that could ask anybody")
        return await self._calls.answer(params) or nobody


def _heard_of(owner: asyncio.Task[None]) -> None:
    """Why a connection ended is told to whoever needs it, by `lost`."""
    if not owner.cancelled():
        owner.exception()


class Target:
    """Where a connection goes: a URL or a program, with what is sent along; `old`: it speaks HTTP with SSE."""

    def __init__(
        self,
        server: McpServer,
        cwd: str,
        environment: Mapping[str, str],
        headers: Headers,
        auth: httpx2.Auth | None,
        *,
        old: bool,
        us: Introduction,
        hosts: Sequence[str] = (),
    ) -> None:
        self.us = us
        self._server = server
        self._old = old
        self._cwd = cwd
        self._environment = environment
        self._auth = auth
        inner = Through(us.http) if us.http is not None else None
        self._careful = Careful(server.url, headers, inner, hosts=hosts) if server.url is not None else None
        #: Why the program at the other end is gone.
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    @property
    def expired(self) -> bool:
        """The server does not know the session any more."""
        return self._careful is not None and self._careful.expired

    def connect(self) -> Any:
        """The transport for the SDK."""
        if self._server.url is None or self._careful is None:
            return stdio(self._server.words, self._environment, self._cwd, self.ended)
        way = sse if self._old else streamable
        return way(self._server.url, self._careful, self._auth)


async def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait((task,))


def _listed(tool: types.Tool) -> tuple[Listed, int]:
    whole = tool.model_dump_json(by_alias=True, exclude_none=True, exclude={"icons"})
    hints = tool.annotations
    effect: Effect = "once"
    if hints is not None and (hints.read_only_hint or hints.idempotent_hint):
        effect = "read" if hints.read_only_hint else "idempotent"
    schema = tool.input_schema if tool.input_schema.get("type") == "object" else {**tool.input_schema, "type": "object"}
    text = tool.description or tool.title or ""
    return Listed(tool.name, text, schema, tool.output_schema, effect, digest_of(whole)), len(whole)


def leaf(error: BaseException) -> BaseException:
    """The first failure in a group of them."""
    while isinstance(error, BaseExceptionGroup):
        known = error.subgroup(Down)
        error = (known or error).exceptions[0]
    return error


def reason_of(error: BaseException) -> Exception:
    """A failure in words."""
    error = leaf(error)
    if isinstance(error, Down):
        return error
    match error:
        case MCPError():
            data = error.data if isinstance(error.data, dict) else {}
            return Down(error.message, data.get("http_status"))
        case httpx2.HTTPStatusError():
            return Down(f"HTTP {error.response.status_code}", error.response.status_code)
        case httpx2.TransportError():
            return Down(f"cannot reach it: {str(error) or type(error).__name__}")
        case ValidationError():
            return Down(f"it speaks no MCP that is known: {error.errors(include_url=False)[0]['msg']}")
        case OSError():
            return Down(error.strerror or str(error))
    return Down(f"{type(error).__name__}: {error}")
