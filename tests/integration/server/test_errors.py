"""Every refusal has the same envelope, names what was wrong, and gives nothing away."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from flux.client.transport import InProcessTransport
from flux.server.app import create_app
from tests.integration.server.models import says
from tests.integration.server.serving import Served, listening

JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
SHAPE = "the body must be a JSON object, sent as application/json"


def error_of(response: httpx.Response, status: int) -> dict[str, Any]:
    """The error in an envelope; there must be nothing beside it."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    envelope = response.json()
    assert set(envelope) == {"error"}
    assert set(envelope["error"]) == {"type", "message", "details"}
    error: dict[str, Any] = envelope["error"]
    return error


@pytest.mark.behaviour("server:errors:envelope")
@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/nowhere", 404, "there is no GET /nowhere"),
        ("GET", "/sessions/", 404, "there is no GET /sessions/"),
        ("GET", "/sessions/x/nowhere", 404, "there is no GET /sessions/x/nowhere"),
        ("DELETE", "/health", 405, "DELETE is not possible at /health"),
        ("PATCH", "/sessions/x", 405, "PATCH is not possible at /sessions/x"),
        ("GET", "/sessions?limit=0", 400, "limit: Input should be greater than or equal to 1"),
        (
            "GET",
            "/sessions?limit=x",
            400,
            "limit: Input should be a valid integer, unable to parse string as an integer",
        ),
        ("GET", "/sessions?limit=201", 400, "limit: Input should be less than or equal to 200"),
    ],
)
async def test_what_is_not_there_or_not_possible_is_told(
    in_memory: Served, method: str, path: str, status: int, message: str
) -> None:
    assert error_of(await in_memory.http.request(method, path), status)["message"] == message


@pytest.mark.behaviour("server:errors:method")
async def test_a_wrong_method_is_told_the_right_ones(served: Served) -> None:
    response = await served.http.delete("/health")
    assert response.headers["allow"] == "GET"
    assert error_of(response, 405)["type"] == "invalid_input"


@pytest.mark.behaviour("server:errors:body")
@pytest.mark.parametrize(
    ("content", "headers", "message"),
    [
        (b"{", JSON, "the body is not JSON: Expecting property name enclosed in double quotes at character 1"),
        (b"", JSON, "missing body"),
        (b"[]", JSON, SHAPE),
        (b'"x"', JSON, SHAPE),
        (b"null", JSON, SHAPE),
        (b'{"agent": "x"}', {}, SHAPE),
        (b'{"agent": "x"}', {"Content-Type": "text/plain"}, SHAPE),
        (b"agent=x", FORM, SHAPE),
        (b"\xff\xfe", JSON, "the body is not JSON: Expecting value at character 0"),
        (b"[" * 100_000, JSON, "the body is not JSON"),
        (b"{}", JSON, "missing field 'agent'"),
        (b'{"agent": 1}', JSON, "agent: Input should be a valid string"),
        (b'{"agent": "x", "mesage": "y"}', JSON, "unknown field 'mesage'; did you mean 'message'?"),
        (b'{"agent": "x", "zzz": "y"}', JSON, "unknown field 'zzz'"),
        (b'{"zzz": "y"}', JSON, "missing field 'agent'; unknown field 'zzz'"),
        (b'{"agent": "x\\u0000"}', JSON, "agent: must not contain the character NUL"),
        (b'{"agent": "\\ud800"}', JSON, "the request holds text that is not Unicode: half of a surrogate pair"),
    ],
)  # fmt: skip
async def test_a_body_that_cannot_be_used_is_refused_with_the_reason(
    in_memory: Served, content: bytes, headers: dict[str, str], message: str
) -> None:
    response = await in_memory.http.post("/sessions", content=content, headers=headers)
    assert error_of(response, 400) == {"type": "invalid_input", "message": message, "details": {}}


@pytest.mark.behaviour("server:errors:body")
@pytest.mark.parametrize(
    ("path", "wrong", "right"),
    [
        ("/sessions/x/messages", "mood", "mode"),
        ("/sessions/x/interrupts/y", "descision", "decision"),
        ("/sessions/x/interrupts/y", "contents", "content"),
    ],
)
async def test_the_nearest_field_of_the_same_body_is_named(
    in_memory: Served, path: str, wrong: str, right: str
) -> None:
    message = error_of(await in_memory.http.post(path, json={wrong: "x"}), 400)["message"]
    assert f"unknown field {wrong!r}; did you mean {right!r}?" in message


@pytest.mark.behaviour("server:errors:body")
async def test_a_field_of_another_body_is_not_suggested(in_memory: Served) -> None:
    message = error_of(await in_memory.http.put("/sessions/x/name", json={"decision": "x"}), 400)["message"]
    assert message == "missing field 'name'; unknown field 'decision'"


SURROGATE = b'{"decision": "answer", "content": "\\ud800"}'
HUGE = b'{"decision": "answer", "content": %d}' % 10**400
DEEP = b'{"decision": "answer", "content": %b1%b}' % (b"[" * 900, b"]" * 900)


@pytest.mark.behaviour("server:errors:body")
@pytest.mark.parametrize("content", [SURROGATE, HUGE, DEEP], ids=["surrogate", "huge", "deep"])
async def test_content_that_cannot_be_kept_is_refused(in_memory: Served, content: bytes) -> None:
    session = await in_memory.client.start_session(await in_memory.agent(says("hi")))
    response = await in_memory.http.post(f"/sessions/{session.id}/interrupts/x", content=content, headers=JSON)
    assert error_of(response, 404 if content == HUGE else response.status_code)["type"] != "internal"


@pytest.mark.behaviour("server:errors:body")
@pytest.mark.parametrize("tool", ["\\ud800", "\\u0000", "[" * 500 + "]" * 500])
async def test_a_definition_that_cannot_be_kept_is_refused(in_memory: Served, tool: str) -> None:
    value = tool if tool.startswith("[") else f'"{tool}"'
    content = f'{{"name": "odd", "model": "scripted/echo", "tools": [{{"files": {{"x": {value}}}}}]}}'
    error = error_of(await in_memory.http.post("/agents", content=content.encode(), headers=JSON), 400)
    assert error["type"] in ("definition_invalid", "invalid_input")


@pytest.mark.behaviour("server:limits:message")
async def test_a_message_over_the_limit_is_refused_with_the_limit(served: Served) -> None:
    session = await served.client.start_session(await served.agent(says("hi")))
    for path, body in (("/sessions", {"agent": "agent0"}), (f"/sessions/{session.id}/messages", {})):
        response = await served.http.post(path, json={**body, "message": "x" * 2_000_000})
        error = error_of(response, 413)
        assert error["type"] == "too_large"
        assert "2,000,000 bytes, the limit is 1,000,000" in error["message"]
    most = await served.http.post(f"/sessions/{session.id}/messages", json={"message": "x" * 1_000_000})
    assert most.status_code == 202


@pytest.mark.behaviour("server:limits:body")
@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_over_the_limit_is_refused_announced_or_not(served: Served, announced: bool) -> None:
    body = json.dumps({"agent": "x", "message": "x" * 10_000_000}).encode()

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 100_000):
            yield body[start : start + 100_000]

    response = await served.http.post("/sessions", content=body if announced else pieces(), headers=JSON)
    assert error_of(response, 413)["message"] == "the request body is larger than 6,100,000 bytes"
    assert (await served.http.get("/health")).status_code == 200


@pytest.mark.behaviour("server:errors:nul")
@pytest.mark.parametrize("path", ["/sessions/a%00b", "/agents/%00", "/sessions?q=a%00", "/sessions?agent=%00"])
async def test_an_address_with_nul_is_refused(served: Served, path: str) -> None:
    assert error_of(await served.http.get(path), 400)["message"] == "the address must not contain the character NUL"


@pytest.mark.behaviour("server:errors:unexpected")
@pytest.mark.parametrize("in_process", [True, False])
async def test_an_unexpected_failure_gives_nothing_away(on_socket: Served, in_process: bool) -> None:
    app = create_app(on_socket.process)

    async def broken() -> None:
        raise RuntimeError("password=hunter2")

    app.add_api_route("/broken", broken)
    if in_process:
        async with httpx.AsyncClient(base_url="http://localhost", transport=InProcessTransport(app)) as http:
            response = await http.get("/broken")
    else:
        async with listening(app) as url, httpx.AsyncClient(base_url=url, trust_env=False) as http:
            response = await http.get("/broken")
    error = error_of(response, 500)
    assert error["type"] == "internal"
    for secret in ("hunter2", "RuntimeError", "Traceback", "broken", ".py"):
        assert secret not in response.text
