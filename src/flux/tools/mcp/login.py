"""A login as a question of a call: asked, answered by the way back from the authorisation server, and gone on from."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from flux.events import Elicited
from flux.tools.base import Answer, Done, Failed, NeedsInput, ToolContext, ToolOutcome
from flux.tools.mcp.config import check_url
from flux.tools.mcp.connection import Down
from flux.tools.mcp.oauth import LoginFailed, LoginNeeded, begin, finish, nonce
from flux.tools.mcp.outgoing import check_shown
from flux.tools.mcp.surroundings import Vault

if TYPE_CHECKING:
    from flux.tools.mcp.link import Link

#: Seconds in which a login that was begun can be finished.
LIFE_SECONDS = 7 * 86_400.0
#: Seconds between two looks whether another process has finished a login.
LOOK_SECONDS = 0.5


def pending(nonce: str) -> str:
    """The name under which a login is kept that nobody has finished."""
    return f"mcp-login.{nonce}"


async def ask(needed: LoginNeeded, server: str, vault: Vault, session: str) -> NeedsInput:
    """The question that sends a person to log in; what it needs later is kept.

    :raises Down: there is no address to send anybody to
    """
    one = nonce()
    url, kept = begin(needed.draft, await vault.state(session, one))
    try:
        check_url(url)
        check_shown(url, needed.draft["server"])
    except ValueError as error:
        raise Down(f"its login is no address of the web: {error}") from error
    await vault.save(pending(one), json.dumps(kept))
    await _remember(vault, needed.draft["tokens"], one)
    return NeedsInput(
        "elicitation",
        {
            "mode": "url",
            "message": f"Log in to {server}, so that this agent can use it for you",
            "server_name": server,
            "elicitation_id": f"login-{one}",
            "url": url,
            "state": {"shape": "login", "nonce": one},
        },
    )


async def _remember(vault: Vault, record: str, nonce: str) -> None:
    """Add a login to those at its server, and forget those that nobody will finish any more."""
    known = json.loads(await vault.load(record) or "{}")
    now = time.time()
    begun = known.get("begun", [])
    for old, _ in (one for one in begun if now - one[1] > LIFE_SECONDS):
        await vault.forget(pending(old))
    begun = [one for one in begun if now - one[1] <= LIFE_SECONDS]
    await vault.save(record, json.dumps(known | {"begun": [*begun, [nonce, now]]}))


async def complete(vault: Vault, nonce: str, code: str, iss: str | None) -> None:
    """Finish a login with the code that came back; it can be used once.

    :raises LoginFailed: it is not known, or comes to nothing
    """
    kept = await vault.load(pending(nonce))
    if kept is None:
        raise LoginFailed("this login is not known here, or was used already")
    try:
        await finish(json.loads(kept), code, iss, vault)
    finally:
        await vault.forget(pending(nonce))


async def resume(answer: Answer, asked: Elicited, vault: Vault, patience: float) -> ToolOutcome | None:
    """What an answered login makes of its call; None: it goes on."""
    if answer.decision != "accept":
        return Failed(f"[a person answered with {answer.decision}: {asked.message}]")
    one = asked.state["nonce"]
    code, iss = _came_back(answer.content)
    try:
        if code is not None:
            await complete(vault, one, code, iss)
        async with asyncio.timeout(patience):
            # Another process may be the one that finishes it.
            while await vault.load(pending(one)) is not None:  # noqa: ASYNC110
                await asyncio.sleep(LOOK_SECONDS)
    except LoginFailed as failed:
        return Failed(f"the login at {asked.server_name} failed: {failed}")
    except TimeoutError:
        message = asked.message.removeprefix(UNFINISHED)
        return NeedsInput(
            "elicitation",
            {
                "mode": "url",
                "message": f"{UNFINISHED}{message}",
                "server_name": asked.server_name,
                "elicitation_id": asked.elicitation_id,
                "url": asked.url,
                "state": asked.state,
            },
        )
    return None


UNFINISHED = "(the login is not finished yet) "


def _came_back(content: Any) -> tuple[str | None, str | None]:
    """Code and issuer of the address that a person was sent back to, where they gave it as their answer."""
    url = content.get("url") if isinstance(content, dict) else content
    if not isinstance(url, str):
        return None, None
    query = parse_qs(urlsplit(url).query)
    return query.get("code", [None])[0], query.get("iss", [None])[0]


class LoginTool:
    """Lets a model begin a login at a server, whose tools nobody sees before."""

    def __init__(self, link: Link, server: str, window: float) -> None:
        self._link = link
        self._server = server
        self._window = window

    async def __call__(self, args: dict[str, Any], context: ToolContext) -> ToolOutcome:
        """Log in, unless somebody has."""
        answer = context.answer
        if answer is not None and isinstance(answer.question, Elicited):
            outcome = await resume(answer, answer.question, self._link.vault, self._window)
            if outcome is not None:
                return outcome
        try:
            await self._link.ready()
        except LoginNeeded as needed:
            await self._link.expect_login()
            return await ask(needed, self._server, self._link.vault, context.session)
        except Down as down:
            return Failed(f"the MCP server {self._server} cannot be used: {down}")
        names = ", ".join(listed.name for listed in self._link.listing or ())
        return Done(f"Logged in to {self._server}. Its tools: {names or 'none'}.")
