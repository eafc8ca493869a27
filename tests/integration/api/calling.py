"""Api mode in front of a test server, called as its clients do; an independent parser reads the streams."""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import httpx
import httpx_sse
from starlette.applications import Starlette

from flux.client.transport import InProcessTransport
from flux.http.guard import Guard
from flux.models.base import Model
from flux.surfaces.api.app import create_api
from tests.integration.server.serving import Served

TOKEN = {"authorization": "Bearer a-token"}
MAX_BODY = 200_000
Frame = dict[str, Any]


class Api:
    """Api mode for one agent. `frames` and the like send a message and read the frames."""

    def __init__(self, app: Starlette, http: httpx.AsyncClient) -> None:
        self.app = app
        self.http = http

    async def chat(self, message: str, session: str | None = None, **headers: str) -> list[Frame]:
        """Every frame of a message's run."""
        return await self.post(_chat(session), {"message": message}, **headers)

    async def post(self, path: str, body: Any, **headers: str) -> list[Frame]:
        """Every frame of a stream."""
        async with aclosing(self.stream(path, body, **headers)) as frames:
            return [frame async for frame in frames]

    async def stream(self, path: str, body: Any, **headers: str) -> AsyncGenerator[Frame, None]:
        """The frames of a stream, as they come."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        async with httpx_sse.aconnect_sse(self.http, "POST", path, json=body, headers=TOKEN | given) as source:
            if source.response.status_code != 200:
                raise AssertionError((await source.response.aread()).decode())
            async for event in source.aiter_sse():
                assert event.event == "message"
                yield json.loads(event.data)

    async def refused(self, status: int, path: str, body: Any, **headers: str) -> str:
        """The message of an error, in the one envelope."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        response = await self.http.post(path, json=body, headers=TOKEN | given)
        return message_of(response, status)


def message_of(response: httpx.Response, status: int) -> str:
    """The message of an error, in the one envelope."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"type", "message", "details"}
    assert "\n" not in error["message"]
    return str(error["message"])


@asynccontextmanager
async def api(served: Served, model: Model, *, heartbeat: float = 15.0, **fields: Any) -> AsyncIterator[Api]:
    """Api mode for a new agent."""
    name = await served.agent(model, **fields)
    async with served.new_client("of-the-operator") as client:
        app = create_api(client, name, heartbeat=heartbeat)
        guarded = Guard(app, hosts=frozenset(), max_body=MAX_BODY)
        async with httpx.AsyncClient(base_url="http://localhost", transport=InProcessTransport(guarded)) as http:
            yield Api(app, http)


def _chat(session: str | None) -> str:
    return f"/chat?session={session}" if session else "/chat"


def kinds(frames: list[Frame]) -> list[str]:
    """The types of frames, pieces of an answer counted once."""
    found = [frame["type"] for frame in frames]
    return [kind for index, kind in enumerate(found) if found[index - 1 : index] != [kind] or kind != "token"]


def text_of(frames: list[Frame]) -> str:
    """What the tokens say together."""
    return "".join(frame["text"] for frame in frames if frame["type"] == "token")


def one(frames: list[Frame], kind: str) -> Frame:
    """The only frame of a type."""
    (found,) = [frame for frame in frames if frame["type"] == kind]
    return found
