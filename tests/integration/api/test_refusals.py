"""What api mode refuses, each in one line and in the one envelope; and whose token it uses."""

import uuid
from typing import Any

import httpx
import pytest

from flux.client import FluxClient
from flux.client.transport import InProcessTransport
from flux.surfaces.api.app import create_api
from tests.integration.api.calling import MAX_BODY, TOKEN, Api, api, message_of
from tests.integration.server.models import says
from tests.integration.server.serving import IN_PROCESS_URL, Served

MISSING = "Missing or invalid Authorization header"
ROUTES = [
    ("POST", "/chat"), ("POST", f"/chat?session={uuid.UUID(int=1)}"), ("POST", "/elicitation/e?session=1"),
    ("POST", "/approval/a?session=1"), ("GET", f"/session/{uuid.UUID(int=1)}"), ("GET", "/"), ("GET", "/docs"),
    ("GET", "/health/"),
]  # fmt: skip
BEARERS = [
    b"", b"Bearer", b"Bearer ", b"Bearer  ", b"bearer\t", b"Basic abc", b"abc", b"Bearerabc", b"Bearer a b",
    b"Bearer \xfc",
]  # fmt: skip


@pytest.mark.behaviour("api:token:required")
@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_every_route_but_health_needs_a_token(served: Served, method: str, path: str) -> None:
    async with api(served, says("hi")) as agent:
        assert (await agent.http.get("/health")).json() == {"status": "ok"}
        missing = await agent.http.request(method, path, json={"message": "hi"})
        assert message_of(missing, 401) == MISSING
        assert missing.headers["www-authenticate"] == "Bearer"
        for value in BEARERS:
            refused = await agent.http.request(method, path, json={}, headers={b"authorization": value})
            assert message_of(refused, 401) == MISSING


class Heard(httpx.AsyncBaseTransport):
    """Notes which tokens pass."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self.tokens: list[str | None] = []
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.tokens.append(request.headers.get("authorization"))
        return await self._inner.handle_async_request(request)


@pytest.mark.behaviour("api:token:passed-through")
async def test_each_request_acts_with_its_own_token_and_never_with_the_operators(served: Served) -> None:
    name = await served.agent(says("hi"))
    heard = Heard(served.transport())
    async with FluxClient(IN_PROCESS_URL, "of-the-operator", transport=heard) as client:
        app = create_api(client, name)
        async with httpx.AsyncClient(base_url=IN_PROCESS_URL, transport=InProcessTransport(app)) as http:
            await http.get("/health")
            assert heard.tokens == []
            for token in ("one", "two"):
                heard.tokens.clear()
                frames = await Api(app, http).chat("hi", authorization=f"bearer {token}")
                await http.get(f"/session/{frames[0]['id']}", headers={"Authorization": f"Bearer {token}"})
                assert set(heard.tokens) == {f"Bearer {token}"}


class Refusing(httpx.AsyncBaseTransport):
    """A server that knows nobody, or a proxy whose server is away."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        self._status, self._body = status, body

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(self._status, json=self._body)


@pytest.mark.behaviour("api:errors:upstream")
async def test_what_the_server_refuses_is_passed_on() -> None:
    told = {"error": {"type": "unauthorized", "message": "this token has expired", "details": {}}}
    async with FluxClient(IN_PROCESS_URL, transport=Refusing(401, told)) as client:
        app = create_api(client, "any")
        async with httpx.AsyncClient(base_url=IN_PROCESS_URL, transport=InProcessTransport(app)) as http:
            response = await http.post("/chat", json={"message": "hi"}, headers=TOKEN)
            assert message_of(response, 401) == "this token has expired"


@pytest.mark.behaviour("api:session:shown")
async def test_a_session_is_shown_as_an_execution(served: Served) -> None:
    async with api(served, says("hi")) as agent:
        id = (await agent.chat("hello"))[0]["id"]
        shown = (await agent.http.get(f"/session/{id}", headers=TOKEN)).json()
        assert shown == (await served.http.get(f"/executions/{id}")).json()
        assert (shown["execution_id"], shown["state"]) == (id, "PAUSED")
        for unknown in (str(uuid.uuid4()), "x", ".."):
            assert message_of(await agent.http.get(f"/session/{unknown}", headers=TOKEN), 404)


@pytest.mark.behaviour("api:session:unknown")
async def test_sessions_that_are_not_there_or_of_another_agent_are_not_found(served: Served) -> None:
    async with api(served, says("hi")) as agent, api(served, says("ho")) as other:
        id = (await other.chat("hello"))[0]["id"]
        assert await agent.refused(404, f"/chat?session={id}", {"message": "hi"})
        for unknown in (str(uuid.uuid4()), "x", "../configs"):
            assert await agent.refused(404, f"/chat?session={unknown}", {"message": "hi"})
        assert "?session=ID" in await agent.refused(400, "/chat?session=", {"message": "hi"})


@pytest.mark.behaviour("api:agent:unknown")
async def test_an_agent_that_is_not_there_is_not_found(served: Served) -> None:
    app = create_api(served.client, "nobody")
    async with httpx.AsyncClient(base_url=IN_PROCESS_URL, transport=InProcessTransport(app)) as http:
        assert "nobody" in message_of(await http.post("/chat", json={"message": "hi"}, headers=TOKEN), 404)


@pytest.mark.behaviour("api:errors:bodies")
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not JSON"), (b"{", "not JSON"), (b"\xff", "not JSON"), (b'{"message": "\xff"}', "not JSON"),
        (b"[]", "must be a JSON object"), (b"7", "must be a JSON object"), (b"{}", "missing field 'message'"),
        (b'{"message": 1}', "message: Expected `str`, got `int`"), (b'{"message": null}', "message: Expected `str`"),
        (b'{"message": ""}', "must not be empty"), (b'{"mesage": "hi"}', "did you mean 'message'?"),
        (b'{"message": "hi", "colour": "red"}', "unknown field 'colour'"),
        (b'{"message": "hi", "mode": "later"}', "mode must be queue, steer, interrupt or reject"),
        (b'{"message": "a\\u0000b"}', "NUL"),
        (b'{"message": "\\ud800"}', "not JSON"),
        (b'{"message": ' + b"[" * 50_000, "too deep"),
    ],
)  # fmt: skip
async def test_bodies_that_cannot_be_used(served: Served, content: bytes, words: str) -> None:
    async with api(served, says("hi")) as agent:
        headers = TOKEN | {"Content-Type": "application/json"}
        before = len([row async for row in served.client.pages("/sessions")])
        assert words in message_of(await agent.http.post("/chat", content=content, headers=headers), 400)
        assert len([row async for row in served.client.pages("/sessions")]) == before


@pytest.mark.behaviour("api:errors:bodies")
async def test_other_forms_methods_and_places(served: Served) -> None:
    async with api(served, says("hi")) as agent:
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
            headers = TOKEN | {"Content-Type": kind}
            refused = await agent.http.post("/chat", content=b'{"message": "hi"}', headers=headers)
            assert "application/json" in message_of(refused, 400)
        assert "no GET /nothing" in message_of(await agent.http.get("/nothing", headers=TOKEN), 404)
        refused = await agent.http.get("/chat", headers=TOKEN)
        assert "GET is not possible at /chat" in message_of(refused, 405)
        assert refused.headers["allow"] == "POST"
        assert "Idempotency-Key" in await agent.refused(400, "/chat", {"message": "hi"}, idempotency_key="k" * 257)


@pytest.mark.behaviour("api:errors:too-large")
async def test_too_much_is_refused(served: Served) -> None:
    async with api(served, says("hi")) as agent:
        body = {"message": "x" * MAX_BODY}
        assert f"{MAX_BODY:,}" in await agent.refused(413, "/chat", body)

        async def unannounced() -> Any:
            yield b'{"message": "'
            for _ in range(MAX_BODY // 1000 + 1):
                yield b"x" * 1000
            yield b'"}'

        headers = TOKEN | {"Content-Type": "application/json"}
        assert message_of(await agent.http.post("/chat", content=unannounced(), headers=headers), 413)


@pytest.mark.behaviour("api:guard:origin-and-host")
async def test_pages_of_other_sites_and_other_names_are_refused(served: Served) -> None:
    async with api(served, says("hi")) as agent:
        assert "may not call" in await agent.refused(403, "/chat", {"message": "hi"}, origin="http://evil.example")
        assert "host name" in await agent.refused(403, "/chat", {"message": "hi"}, host="evil.example")
        assert (await agent.http.get("/health", headers={"Host": "evil.example"})).status_code == 403
