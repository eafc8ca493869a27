"""Logins of people at MCP servers, when they come back from the authorisation server."""

from __future__ import annotations

import importlib
from typing import Any

import msgspec

from flux.agents.service.sessions import Sessions
from flux.engine.configuration.secrets import Secrets
from flux.engine.intake.answers import Decision
from flux.errors import Conflict, InvalidInput, NotFound
from flux.store.database import Scope


class PersonVault:
    """The secrets that one person's connections use."""

    def __init__(self, secrets: Secrets, scope: Scope) -> None:
        self._secrets = secrets
        self._scope = scope

    async def read(self, name: str) -> str:
        """A secret that was set by name.

        :raises SecretNotFound: there is none
        """
        return await self._secrets.get(self._scope, name)

    async def load(self, name: str) -> str | None:
        """What was kept under a name of our own, None when nothing was."""
        return await self._secrets.kept(self._scope, name)

    async def save(self, name: str, value: str) -> None:
        """Keep something, readable by nobody else."""
        await self._secrets.keep(self._scope, name, value)

    async def forget(self, name: str) -> None:
        """Keep it no longer."""
        await self._secrets.unkeep(self._scope, name)

    async def state(self, session: str, nonce: str) -> str:
        """What a login carries through the browser, so that any process knows whose it is."""
        about = [self._scope.tenant, self._scope.principal, session, nonce]
        return await self._secrets.seal(msgspec.json.encode(about).decode())


class Logins:
    """Finishes logins, whichever process began them."""

    def __init__(self, secrets: Secrets, sessions: Sessions) -> None:
        self._secrets = secrets
        self._sessions = sessions

    async def came_back(self, state: str, code: str | None, iss: str | None, error: str | None) -> None:
        """Take what the authorisation server sent a browser back with, and answer the question that waits for it.

        :raises InvalidInput: it belongs to no login, or the login failed
        """
        sealed = await self._secrets.unseal(state)
        if sealed is None:
            raise InvalidInput("this login was not begun here; ask the agent again")
        module: Any = importlib.import_module("flux.tools.mcp.login")
        tenant, principal, session, nonce = msgspec.json.decode(sealed)
        scope = Scope(tenant, principal)
        vault = PersonVault(self._secrets, scope)
        if code is None:
            await vault.forget(module.pending(nonce))
            await self._answer(scope, session, nonce, Decision("decline", reason=(error or "no code")[:200]))
            raise InvalidInput(f"the login was refused: {(error or 'no code')[:200]}")
        try:
            await module.complete(vault, nonce, code, iss)
        except module.LoginFailed as failed:
            raise InvalidInput(f"the login failed: {failed}; ask the agent again") from failed
        await self._answer(scope, session, nonce, Decision("accept"))

    async def _answer(self, scope: Scope, session: str, nonce: str, decision: Decision) -> None:
        """Answer the question, if it still waits: the person may have answered it already."""
        try:
            for asked in await self._sessions.interrupts(scope, session):
                if msgspec.json.decode(asked.payload).get("elicitation_id") == f"login-{nonce}":
                    await self._sessions.answer(scope, session, asked.id, decision)
        except (Conflict, NotFound):
            return
