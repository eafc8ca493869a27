"""What stands behind the page: what it refuses, what it passes on, what it sends along."""

import hashlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from flux.client import FluxClient
from flux.client.transport import InProcessTransport
from flux.events import ChatResponse
from flux.models.scripted import Reply, ScriptedModel, echo
from flux.surfaces.web.app import MAX_BODY, STATIC, create_page, end_streams
from tests.integration.server.serving import serving

Refused = tuple[int, str]


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(tmp_path, in_process=True) as served:
        agent = await served.agent(ScriptedModel(echo))
        transport = InProcessTransport(create_page(served.client, agent))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as http:
            yield http


async def refused(page: httpx.AsyncClient, method: str, path: str, **request: Any) -> Refused:
    response = await page.request(method, path, **request)
    told = response.json()["error"]
    assert told["message"]
    assert set(told) == {"type", "message", "details"}
    return response.status_code, told["type"]


@pytest.mark.behaviour("web:guard:origin")
@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example:8080"},
        {"Host": "["},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
async def test_pages_of_others_are_refused(page: httpx.AsyncClient, headers: dict[str, str]) -> None:
    for method, path in [("GET", "/api/sessions"), ("POST", "/api/sessions"), ("GET", "/api/sessions/x/events")]:
        assert await refused(page, method, path, headers=headers) == (403, "forbidden")
    if "Sec-Fetch-Site" not in headers:
        assert (await page.get("/", headers=headers)).status_code == 403


@pytest.mark.behaviour("web:guard:headers")
@pytest.mark.parametrize("path", ["/", "/static/main.js", "/static/vendor/purify.js", "/api/page", "/nothing"])
async def test_every_answer_says_what_a_browser_may_do(page: httpx.AsyncClient, path: str) -> None:
    headers = (await page.get(path)).headers
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert "require-trusted-types-for 'script'" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-opener-policy"] == "same-origin"


@pytest.mark.behaviour("web:guard:headers")
def test_the_page_has_no_script_or_style_inside() -> None:
    index = (STATIC / "index.html").read_text()
    assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\bon\w+=|\bstyle=|https?://", index) == []


@pytest.mark.behaviour("web:proxy:refuses")
async def test_bad_requests_get_one_clear_line(page: httpx.AsyncClient) -> None:
    json = {"Content-Type": "application/json"}
    assert await refused(page, "POST", "/api/sessions", content=b"{", headers=json) == (400, "invalid_input")
    assert await refused(page, "POST", "/api/sessions", content=b"[1]", headers=json) == (400, "invalid_input")
    assert await refused(page, "POST", "/api/sessions", content=b"\xff", headers=json) == (400, "invalid_input")
    assert await refused(page, "POST", "/api/sessions", content=b"message=x") == (400, "invalid_input")
    assert await refused(page, "POST", "/api/sessions", json={"message": "x", "agent": "y"}) == (400, "invalid_input")
    assert await refused(page, "POST", "/api/sessions", content=b" " * (MAX_BODY + 1)) == (413, "too_large")
    chunks = (b" " * 1_000_000 for _ in range(9))
    assert await refused(page, "POST", "/api/sessions", content=_async(chunks)) == (413, "too_large")
    for path in ("/api/sessions/none", "/api/sessions/none/events", "/api/sessions/.%2e/events", "/api/nothing"):
        assert (await refused(page, "GET", path))[0] == 404
    stream = {"Accept": "text/event-stream"}
    assert await refused(page, "GET", "/api/sessions/none/events", headers=stream) == (404, "session_not_found")
    assert (await refused(page, "DELETE", "/api/sessions/none"))[0] == 405
    assert (await refused(page, "GET", "/static/../app.py"))[0] == 404
    assert (await refused(page, "GET", "/static/%2e%2e/app.py"))[0] == 404


async def _async(chunks: Any) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


@pytest.mark.behaviour("web:proxy:passes-on")
async def test_a_session_is_begun_sent_to_and_read(page: httpx.AsyncClient) -> None:
    about = (await page.get("/api/page")).json()
    assert (about["agent"], about["problems"]) == ("agent0", [])
    begun = [await page.post("/api/sessions", json={"message": "one"}, headers={"Idempotency-Key": "k"}) for _ in "ab"]
    assert begun[0].status_code == 201
    assert begun[0].json() == begun[1].json()
    id = begun[0].json()["id"]
    sent = await page.post(f"/api/sessions/{id}/messages", json={"message": "two", "mode": "queue"})
    assert sent.status_code == 202
    seen = ""
    headers = {"Accept": "text/event-stream", "Last-Event-ID": "0"}
    async with page.stream("GET", f"/api/sessions/{id}/events", headers=headers) as stream:
        assert stream.headers["x-accel-buffering"] == "no"
        async for text in stream.aiter_text():
            seen += text
            if seen.count("event: chat_response") == 2:
                break
    log = (await page.get(f"/api/sessions/{id}/events?after=0&limit=200")).json()["items"]
    assert [entry["content"] for entry in log if entry["type"] == "chat_response"] == ["one", "two"]
    assert (await page.put(f"/api/sessions/{id}/name", json={"name": "Named"})).json()["title"] == "Named"
    assert [row["title"] for row in (await page.get("/api/sessions?q=Named")).json()["items"]] == ["Named"]
    assert (await page.post(f"/api/sessions/{id}/cancel")).json() == {"id": id, "cancelled": False}


@pytest.mark.behaviour("web:proxy:model")
async def test_another_model_answers_where_it_is_asked_for(tmp_path: Path) -> None:
    async with serving(tmp_path, in_process=True) as served:
        other = await served.agent(ScriptedModel([Reply(text="from the other")]))
        agent = await served.agent(ScriptedModel(echo))
        app = create_page(served.client, agent, model=f"test/{other}")
        async with httpx.AsyncClient(transport=InProcessTransport(app), base_url="http://localhost") as page:
            key = {"Idempotency-Key": "k"}
            begun = [(await page.post("/api/sessions", json={"message": "one"}, headers=key)).json() for _ in "ab"]
            assert begun[0] == begun[1]
            handle = served.client.session(begun[0]["id"], "0")
            said = [event.event async for event in handle.until_rest()]
            assert [event.content for event in said if isinstance(event, ChatResponse)] == ["from the other"]
            await page.post(f"/api/sessions/{handle.id}/messages", json={"message": "two"})
            said = [event.event async for event in handle.until_rest()]
            assert [event.content for event in said if isinstance(event, ChatResponse)] == ["from the other"]


@pytest.mark.behaviour("web:proxy:away")
async def test_a_server_that_is_away_is_said_to_be() -> None:
    async with FluxClient("http://127.0.0.1:9") as client:
        transport = InProcessTransport(create_page(client, "helper"))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as page:
            assert await refused(page, "GET", "/api/page") == (503, "server_unreachable")
            stream = {"Accept": "text/event-stream"}
            assert await refused(page, "GET", "/api/sessions/x/events", headers=stream) == (503, "server_unreachable")


@pytest.mark.behaviour("web:proxy:stops")
async def test_open_streams_end_when_the_page_stops(tmp_path: Path) -> None:
    async with serving(tmp_path, in_process=True) as served:
        app = create_page(served.client, await served.agent(ScriptedModel(echo)))
        async with httpx.AsyncClient(transport=InProcessTransport(app), base_url="http://localhost") as page:
            id = (await page.post("/api/sessions", json={"message": "one"})).json()["id"]
            headers = {"Accept": "text/event-stream"}
            async with page.stream("GET", f"/api/sessions/{id}/events", headers=headers) as stream:
                async for text in stream.aiter_text():
                    if "chat_response" in text:
                        end_streams(app)
            assert served.exchanges.open == 0


@pytest.mark.behaviour("web:vendor:digests")
def test_the_code_of_others_is_as_written_down() -> None:
    folder = STATIC / "vendor"
    listed = re.findall(r"^\| `([\w.-]+)` \|.*`([0-9a-f]{64})` \|$", (folder / "VENDOR.md").read_text(), re.MULTILINE)
    assert {name for name, _ in listed} == {path.name for path in folder.glob("*.js")}
    for name, digest in listed:
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
