"""FluxClient: typed calls over HTTP, to a server or into an application in this process."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from copy import copy
from typing import Any, Self
from urllib.parse import quote

import httpx
import msgspec

from flux.client.agents import AgentsClient
from flux.client.execution import Begun, ExecutionHandle, ExecutionsClient
from flux.client.lanes import Lanes
from flux.client.memories import MemoriesClient
from flux.client.reader import Answered
from flux.client.schedules import SchedulesClient
from flux.client.session import SessionHandle
from flux.client.sessions import SessionsClient
from flux.client.webhooks import WebhooksClient
from flux.client.workflows import WorkflowsClient
from flux.errors import FluxError, ServerUnreachable, Unavailable, error_tree

CONNECT_SECONDS = 5.0
READ_SECONDS = 60.0
PATIENT = httpx.Timeout(None, connect=CONNECT_SECONDS)


class FluxClient:
    """A connection to a Flux server; use it as an async context manager.

    `agents`, `sessions`, `executions`, `workflows`, `schedules`, `webhooks` and `memories` are what a server has of
    each.
    `workspace` is where sessions started here act (default: the server's own directory).
    `token` may also be an `httpx.Auth`, which is asked at each call.
    `transport` replaces the network, for example `flux.client.transport.InProcessTransport(app)`.
    """

    def __init__(
        self, base_url: str, token: str | httpx.Auth | None = None, *,
        transport: httpx.AsyncBaseTransport | None = None, workspace: str | None = None,
    ) -> None:  # fmt: skip
        self.base_url = base_url
        self._workspace = workspace
        self._headers = _bearer(token)
        self._auth = token if isinstance(token, httpx.Auth) else None
        self._http = httpx.AsyncClient(
            base_url=base_url,
            transport=transport or Lanes(secure=base_url.startswith("https:")),
            timeout=httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS),
            trust_env=False,
        )
        self._owns = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connection."""
        if self._owns:
            await self._http.aclose()

    def with_token(self, token: str | None) -> FluxClient:
        """The same server in somebody else's name, over the connections of this client, which closes them."""
        other = copy(self)
        other._headers, other._auth, other._owns = _bearer(token), None, False
        return other

    @property
    def agents(self) -> AgentsClient:
        """Its agents."""
        return AgentsClient(self)

    @property
    def sessions(self) -> SessionsClient:
        """Its sessions, to be found."""
        return SessionsClient(self)

    @property
    def executions(self) -> ExecutionsClient:
        """Its executions, to be found."""
        return ExecutionsClient(self)

    @property
    def workflows(self) -> WorkflowsClient:
        """Its workflows."""
        return WorkflowsClient(self)

    @property
    def schedules(self) -> SchedulesClient:
        """Its schedules."""
        return SchedulesClient(self)

    @property
    def webhooks(self) -> WebhooksClient:
        """Its webhooks."""
        return WebhooksClient(self)

    @property
    def memories(self) -> MemoriesClient:
        """Its long-term memories."""
        return MemoriesClient(self)

    def session(self, id: str, cursor: str | None = None) -> SessionHandle:
        """A handle on a session; nothing is sent. Without a cursor, `send` begins at the session's head."""
        return SessionHandle(self, id, cursor)

    def execution(self, id: str, cursor: str | None = "0") -> ExecutionHandle:
        """A handle on an execution; nothing is sent."""
        return ExecutionHandle(self, id, cursor)

    async def run_workflow(
        self, workflow: str, input: Any = None, *, mode: str = "sync", version: int | None = None,
        key: str | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Run "namespace/name"; with mode "sync" the answer comes when it rests, with "async" at once.

        :raises WorkflowNotFound: there is no such workflow
        """
        path = f"/workflows/{quote(workflow)}/run/{mode}"
        return await self.wait(path, input, key, version=version)

    def running_workflow(self, workflow: str, input: Any = None, *, version: int | None = None) -> Begun:
        """Run "namespace/name", and follow it from its first event on: its handle, and the events."""
        return ExecutionHandle.begun(self, f"/workflows/{quote(workflow)}/run/async", input, version=version)

    def resuming_workflow(
        self, workflow: str, id: str, input: Any = None, *, pause: str | None = None, after: int = 0
    ) -> Begun:
        """Answer a pause of an execution of "namespace/name", and follow it; its log was read to `after`."""
        path = f"/workflows/{quote(workflow)}/resume/{id}/async"
        return ExecutionHandle.begun(self, path, input, str(after), pause=pause)

    async def resume_workflow(
        self, workflow: str, id: str, input: Any = None, *, pause: str | None = None, mode: str = "sync",
        key: str | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Answer a pause of an execution of "namespace/name".

        :raises ExecutionNotFound, ExecutionFinished, NotPaused: there is no such open pause
        """
        path = f"/workflows/{quote(workflow)}/resume/{id}/{mode}"
        return await self.wait(path, input, key, pause=pause)

    async def start_session(
        self, agent: str, message: str | None = None, *, instance: str | None = None, name: str | None = None,
        key: str | None = None,
    ) -> SessionHandle:  # fmt: skip
        """Start a session of an agent.

        :raises AgentNotFound, SessionExists: it cannot start
        """
        body = {"agent": agent, "message": message, "instance": instance, "name": name, "workspace": self._workspace}
        row = await self.post("/sessions", {k: v for k, v in body.items() if v is not None}, key=key)
        return self.session(row["id"], "0")

    async def get(self, /, path: str, **query: Any) -> dict[str, Any]:
        """GET a JSON object.

        :raises FluxError: as the server says
        :raises ServerUnreachable: there is no server
        """
        return await self._call("GET", path, params={k: v for k, v in query.items() if v is not None})

    async def post(self, /, path: str, body: Any = None, *, key: str | None = None, **query: Any) -> dict[str, Any]:
        """POST a JSON object; `key` is the Idempotency-Key."""
        return await self._call("POST", path, json=body, headers=_headers(key), params=query)

    async def put(self, /, path: str, body: Any, **query: Any) -> dict[str, Any]:
        """PUT a JSON object."""
        return await self._call("PUT", path, json=body, params=query)

    async def discard(self, id: str) -> bool:
        """Remove a session if nothing was ever said in it; whether it was removed.

        :raises SessionNotFound: there is none
        :raises SessionBusy: somebody said something just now
        """
        if (await self.session(id).info())["head"] > 1:
            return False
        await self.request("DELETE", f"/sessions/{id}")
        return True

    async def request(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """Any other call; an empty answer is an empty object."""
        return await self._call(method, path, json=body)

    async def upload(self, path: str, name: str, content: bytes) -> dict[str, Any]:
        """POST a file as a form."""
        return await self._call("POST", path, files={"file": (name, content)})

    async def download(self, path: str) -> bytes:
        """GET something that is no JSON object, whole.

        :raises FluxError: as the server says
        :raises ServerUnreachable: there is no server
        """
        return await self._send("GET", path)

    async def messages(self, id: str) -> list[dict[str, Any]]:
        """Everything that was said in a session."""
        found: list[dict[str, Any]] = []
        after: str | None = "0"
        while after is not None:
            page = await self.get(f"/sessions/{id}/messages", after=after)
            found += page["items"]
            after = page["next_cursor"]
        return found

    async def pages(self, /, path: str, **query: Any) -> AsyncGenerator[dict[str, Any], None]:
        """Every item of a list, page by page."""
        cursor: str | None = None
        while True:
            page = await self.get(path, cursor=cursor, **query)
            for item in page["items"]:
                yield item
            cursor = page["next_cursor"]
            if cursor is None:
                return

    async def stream(self, path: str, headers: dict[str, str]) -> AsyncGenerator[bytes, None]:
        """The bytes of a response as they come. The first piece is empty: the server has answered.

        :raises FluxError: as the server says
        :raises httpx.TransportError: the connection fails
        """
        async with aclosing(await self._begun("GET", path, headers=headers)) as response:
            yield b""
            async for chunk in response.aiter_raw():
                yield chunk

    async def answered(self, path: str, headers: dict[str, str], body: Any) -> Answered:
        """POST a message whose answer is the stream of its run.

        :raises FluxError: as the server says
        :raises ServerUnreachable: there is no server
        """
        answer = await self.posted(path, headers, body)
        if "flux-message" not in answer.headers:
            await answer.aclose()
            raise self._foreign()
        return answer

    async def posted(self, path: str, headers: dict[str, str], body: Any) -> Answered:
        """POST a JSON object, and get the answer as it comes.

        :raises FluxError: as the server says
        :raises ServerUnreachable: there is no server
        """
        try:
            response = await self._begun("POST", path, headers=headers, json=body)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        return Answered(response.headers, response.aiter_raw, response.aclose)

    async def _begun(self, method: str, path: str, **request: Any) -> httpx.Response:
        """A response whose body is still to come."""
        request["headers"] = self._headers | request["headers"]
        response = await self._http.send(
            self._http.build_request(method, path, **request), auth=self._auth, stream=True
        )
        if response.status_code < 400:
            return response
        try:
            raise _error(response.status_code, await response.aread())
        finally:
            await response.aclose()

    async def wait(self, path: str, body: Any, key: str | None = None, **query: Any) -> dict[str, Any]:
        """POST what may take as long as a run does."""
        given = {name: value for name, value in query.items() if value is not None}
        return await self._call("POST", path, json=body, headers=_headers(key), params=given, timeout=PATIENT)

    async def _call(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        content = await self._send(method, path, **request)
        return self._object(content) if content else {}

    async def _send(self, method: str, path: str, **request: Any) -> bytes:
        request["headers"] = self._headers | request.get("headers", {})
        try:
            response = await self._http.request(method, path, auth=self._auth, **request)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        if response.status_code >= 400:
            raise _error(response.status_code, response.content)
        return response.content

    def _unreachable(self, error: httpx.TransportError) -> ServerUnreachable:
        if isinstance(error, httpx.ConnectError):
            told = f"no Flux server answers at {self.base_url}; start one with `flux start server`"
            return ServerUnreachable(told, debug=repr(error))
        return ServerUnreachable(f"{self.base_url}: {type(error).__name__} {error}".rstrip())

    def _object(self, content: bytes) -> dict[str, Any]:
        try:
            return _decode(content)
        except msgspec.DecodeError as error:
            raise self._foreign() from error

    def _foreign(self) -> FluxError:
        return FluxError(f"this is not what a Flux server answers; is there one at {self.base_url}?")


_decode = msgspec.json.Decoder(dict[str, Any]).decode


def _bearer(token: str | httpx.Auth | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if isinstance(token, str) and token else {}


def _headers(key: str | None) -> dict[str, str]:
    return {"Idempotency-Key": key} if key else {}


def _error(status: int, body: bytes) -> FluxError:
    """The server's error as the class it was there."""
    try:
        told = msgspec.json.decode(body)["error"]
        cls = error_tree().get(told["type"], FluxError)
        error = cls.__new__(cls)  # the words are those of the server, whatever a class makes of its arguments
        FluxError.__init__(error, told["message"], **told.get("details", {}))
        if error.type != told["type"]:  # a newer server's: the caller still sees what it is
            vars(error).update(type=told["type"], status=status)
        return error
    except (msgspec.DecodeError, KeyError, TypeError):
        cls = Unavailable if status in (502, 503, 504) else FluxError  # a proxy whose server is away
        return cls(f"the server answered {status}: {body[:200].decode(errors='replace')}")
