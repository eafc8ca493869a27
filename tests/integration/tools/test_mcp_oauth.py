"""Logins at MCP servers: begun by a call, finished in a browser, kept for the person."""

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from flux.agents.process import Process
from flux.errors import InvalidInput, SecretNotFound
from flux.events import ContextFrozen, Elicited, ToolDone
from flux.server.app import create_app
from flux.store.database import LOCAL
from flux.store.interrupts import payload_of
from flux.testing import Call, Reply
from tests.integration.agents.world import World, of, opened
from tests.integration.tools.mcp_auth import Authority, free_port, guarded, query_of, visit


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
async def server(authority: Authority) -> AsyncIterator[dict[str, Any]]:
    async with guarded(authority) as url:
        yield {"url": url, "name": "safe", "auth": "oauth"}


PORT = free_port()
LOGS_IN = [Reply(calls=(Call("mcp__safe__log_in"),)), Reply(calls=(Call("mcp__safe__secret"),)), Reply("ok")]


async def come_back(process: Process, target: str) -> httpx.Response:
    """What the browser is shown that comes back from a login."""
    transport = httpx.ASGITransport(create_app(process))
    async with httpx.AsyncClient(transport=transport, base_url=f"http://localhost:{PORT}") as browser:
        return await browser.get(target)


async def asked(world: World) -> dict[str, Any]:
    """The one question."""
    await world.rest("waiting")
    (question,) = await world.questions()
    return payload_of(question)


@pytest.mark.behaviour("mcp:oauth:login")
async def test_a_login_is_a_question_that_its_callback_answers(
    tmp_path: Path, server: dict[str, Any], authority: Authority
) -> None:
    async with opened(tmp_path, server_port=PORT) as world:
        await world.agent(LOGS_IN, mcp_servers=[server])
        await world.start("go")
        login = await asked(world)
        assert (login["mode"], login["server_name"]) == ("url", "safe")
        query = query_of(login["url"])
        assert query["code_challenge_method"] == "S256"
        assert query["redirect_uri"] == f"http://localhost:{PORT}/oauth/callback"
        answer = await come_back(world.process, await visit(login["url"]))
        assert (answer.status_code, "You are logged in" in answer.text) == (200, True)
        await world.rest("idle")
        results = [done.content for done in of(await world.log(), ToolDone)]
        assert results == ["Logged in to safe. Its tools: secret.", "42"]
        # The tools that nobody could know before are in the prompt from then on.
        contexts = of(await world.log(), ContextFrozen)
        assert [len(context.tools) for context in contexts] == [1, 2]
        assert "mcp__safe__log_in asks for that" in contexts[0].system
        assert await world.faults() == []
    assert len(authority.clients) == 1


@pytest.mark.behaviour("mcp:oauth:another-process")
async def test_another_process_finishes_a_login_and_nobody_logs_in_twice(
    tmp_path: Path, server: dict[str, Any], authority: Authority, database_url: str
) -> None:
    def opening() -> Any:
        return opened(tmp_path, server_port=PORT, database_url=database_url)

    async with opening() as world:
        await world.agent(LOGS_IN, mcp_servers=[server])
        id = await world.start("go")
        login = await asked(world)
    async with opening() as later:
        await later.agent(LOGS_IN, mcp_servers=[server])
        later.id = id
        await come_back(later.process, await visit(login["url"]))
        await later.rest("idle")
        assert of(await later.log(), ToolDone)[-1].content == "42"
    async with opening() as again:
        await again.agent([Reply(calls=(Call("mcp__safe__secret"),)), Reply("ok")], mcp_servers=[server])
        log = await again.ask("go")
        assert [done.content for done in of(log, ToolDone)] == ["42"]
        assert of(log, Elicited) == []
    assert len(authority.clients) == 1


@pytest.mark.behaviour("mcp:oauth:refresh")
async def test_a_token_that_ended_is_renewed_and_one_that_was_taken_back_is_asked_for(
    tmp_path: Path, server: dict[str, Any], authority: Authority
) -> None:
    authority.seconds = 1  # over before it is used again
    async with opened(tmp_path, server_port=PORT) as world:
        await world.agent(LOGS_IN, mcp_servers=[server])
        await world.start("go")
        await come_back(world.process, await visit((await asked(world))["url"]))
        await world.rest("idle")
        assert of(await world.log(), ToolDone)[-1].content == "42"
        assert authority.renewed > 0
        authority.forget_everybody()
        world.models["main"]._script = [*LOGS_IN, Reply(calls=(Call("mcp__safe__secret"),)), Reply("ok")]
        await world.say("again")
        login = await asked(world)
        await come_back(world.process, await visit(login["url"]))
        await world.rest("idle")
        assert of(await world.log(), ToolDone)[-1].content == "42"
        assert await world.faults() == []


@pytest.mark.behaviour("mcp:oauth:refused")
async def test_a_refused_login_is_a_result_and_a_strange_one_is_refused(tmp_path: Path, server: dict[str, Any]) -> None:
    async with opened(tmp_path, server_port=PORT) as world:
        await world.agent([LOGS_IN[0], Reply("ok")], mcp_servers=[server])
        await world.start("go")
        login = await asked(world)
        for state, code in (("nonsense", "1"), ("", "1"), (query_of(login["url"])["state"], "wrong")):
            with pytest.raises(InvalidInput, match="login"):
                await world.process.logins.came_back(state, code, None, None)
        state = query_of(login["url"])["state"]
        target = f"/oauth/callback?{urlencode({'state': state, 'error': 'access_denied'})}"
        answer = await come_back(world.process, target)
        assert answer.status_code == 400
        await world.rest("idle")
        assert "answered with decline" in of(await world.log(), ToolDone)[-1].content


@pytest.mark.behaviour("mcp:oauth:sealed")
async def test_tokens_are_kept_encrypted_and_shown_to_nobody(
    tmp_path: Path, server: dict[str, Any], authority: Authority
) -> None:
    async with opened(tmp_path, server_port=PORT) as world:
        await world.agent(LOGS_IN, mcp_servers=[server])
        await world.start("go")
        await come_back(world.process, await visit((await asked(world))["url"]))
        await world.rest("idle")
        secrets = world.process.secrets
        assert await secrets.names(LOCAL) == []
        with sqlite3.connect(tmp_path / "flux.db") as database:
            rows = database.execute("select name, sealed from secrets").fetchall()
        names = [name for name, _ in rows]
        assert len(names) == 1
        with pytest.raises(SecretNotFound):
            await secrets.get(LOCAL, names[0])
        for token in (*authority.access, *authority.refresh):
            assert not any(token in sealed for _, sealed in rows)
        database.close()


@pytest.mark.behaviour("mcp:oauth:embedded")
async def test_without_a_server_the_process_itself_waits_for_the_browser(
    tmp_path: Path, server: dict[str, Any]
) -> None:
    async with opened(tmp_path, server_port=PORT) as world:
        await world.agent(LOGS_IN, mcp_servers=[server])
        await world.start("go")
        login = await asked(world)
        async with httpx.AsyncClient() as browser:
            answer = await browser.get(login["url"], follow_redirects=True)
            assert (answer.status_code, "You are logged in" in answer.text) == (200, True)
            elsewhere = str(answer.url.copy_with(path="/x", query=None))
            assert (await browser.get(elsewhere)).status_code == 404
        await world.rest("idle")
        assert of(await world.log(), ToolDone)[-1].content == "42"


@pytest.mark.behaviour("mcp:oauth:pasted")
async def test_where_no_browser_comes_back_the_address_is_an_answer_too(tmp_path: Path, server: dict[str, Any]) -> None:
    async with opened(tmp_path, server_port=PORT) as world:
        await world.agent(LOGS_IN, mcp_servers=[server])
        await world.start("go")
        login = await asked(world)
        target = await visit(login["url"])
        (question,) = await world.questions()
        await world.answer(question, "accept", content={"url": f"http://localhost:{PORT}{target}"})
        await world.rest("idle")
        assert of(await world.log(), ToolDone)[-1].content == "42"
