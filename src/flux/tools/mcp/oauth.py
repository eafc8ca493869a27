"""Logins at a server's authorisation server: the SDK's flow up to the point where a person is needed.

From there on it must not wait in memory: what is known so far becomes a draft, a call asks the person to visit
the address made of it, and whichever process gets the answer goes on.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode, urljoin

import httpx2
from mcp.client.auth import OAuthClientProvider, OAuthFlowError, PKCEParameters
from mcp.client.auth.utils import handle_token_response_scopes, validate_authorization_response_iss
from mcp.shared.auth import (
    OAuthClientInformationFull,
    OAuthClientMetadata,
    OAuthMetadata,
    OAuthToken,
    ProtectedResourceMetadata,
)
from pydantic import AnyUrl, ValidationError

from flux.tools.mcp.config import McpServer
from flux.tools.mcp.connection import Down
from flux.tools.mcp.http import CONNECT_SECONDS, LARGEST_REFUSAL, PLAIN, TRUSTED, Bounded
from flux.tools.mcp.outgoing import transport
from flux.tools.mcp.surroundings import Vault

#: Seconds before its end from which on a token is not used any more.
MARGIN = 30.0
EXCHANGE_SECONDS = 20.0
#: Seconds within which a token that was just renewed and is refused is not renewed again.
RENEW_SECONDS = 60.0


class LoginNeeded(Down):
    """A person has to log in; `draft` is the beginning of the login, as JSON."""

    def __init__(self, draft: dict[str, Any]) -> None:
        super().__init__("a person has to log in first")
        self.draft = draft


class LoginFailed(Exception):
    """A login came to nothing; the text says why, on one line."""


class Tokens:
    """What is kept of the logins of one person at one server; the SDK's storage."""

    def __init__(self, server: McpServer, vault: Vault, callback: str) -> None:
        self._server = server
        self._vault = vault
        self._callback = callback
        self.name = f"mcp.{server.key}"

    async def load(self) -> dict[str, Any]:
        """Everything."""
        found = await self._vault.load(self.name)
        kept: dict[str, Any] = json.loads(found) if found else {}
        return kept

    async def save(self, **changes: Any) -> None:
        """Change some of it."""
        await self._vault.save(self.name, json.dumps(await self.load() | changes))

    async def get_tokens(self) -> OAuthToken | None:
        """The tokens, if somebody is logged in."""
        tokens = (await self.load()).get("tokens")
        return OAuthToken.model_validate(tokens) if tokens else None

    async def set_tokens(self, tokens: OAuthToken) -> None:
        """Keep new tokens."""
        ends = time.time() + tokens.expires_in - MARGIN if tokens.expires_in else None
        await self.save(tokens=tokens.model_dump(mode="json"), ends=ends)

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        """Who we are at the authorisation server, if that is known."""
        if self._server.client_id is not None:
            secret = await self._vault.read(self._server.secret) if self._server.secret else None
            return OAuthClientInformationFull(
                client_id=self._server.client_id,
                client_secret=secret,
                redirect_uris=[AnyUrl(self._callback)],
                token_endpoint_auth_method="client_secret_basic" if secret else "none",
            )
        found = (await self.load()).get("client")
        client = OAuthClientInformationFull.model_validate(found) if found else None
        known = [str(uri) for uri in client.redirect_uris or ()] if client else []
        return client if self._callback in known else None

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        """Keep a registration."""
        await self.save(client=client_info.model_dump(mode="json", exclude_none=True))


class Login(OAuthClientProvider):
    """Puts a token on every request, renews it, and raises LoginNeeded where only a person can go on."""

    def __init__(
        self, server: McpServer, vault: Vault, callback: str, document: str | None = None, hosts: Sequence[str] = ()
    ) -> None:
        self._hosts = hosts
        self._tokens = Tokens(server, vault, callback)
        self._callback = callback
        self._renewed = -RENEW_SECONDS
        about = OAuthClientMetadata(redirect_uris=[AnyUrl(callback)], client_name="Flux", grant_types=[
            "authorization_code", "refresh_token",
        ])  # fmt: skip
        super().__init__(str(server.url), about, self._tokens, client_metadata_url=document)

    async def _initialize(self) -> None:
        await super()._initialize()
        kept = await self._tokens.load()
        self.context.token_expiry_time = kept.get("ends")
        if kept.get("metadata"):
            self.context.oauth_metadata = OAuthMetadata.model_validate(kept["metadata"])
        if kept.get("resource"):
            self.context.protected_resource_metadata = ProtectedResourceMetadata.model_validate(kept["resource"])
            self.context.auth_server_url = str(self.context.protected_resource_metadata.authorization_servers[0])

    async def _handle_refresh_response(self, response: httpx2.Response) -> bool:
        used = self.context.current_tokens
        if await super()._handle_refresh_response(response):
            return True
        # Another process may have been faster, and a token of this kind is good for one use.
        stored = await self._tokens.get_tokens()
        if stored is None or used is None or stored.access_token == used.access_token:
            return False
        self.context.current_tokens = stored
        self.context.token_expiry_time = (await self._tokens.load()).get("ends")
        return True

    async def _perform_authorization(self) -> httpx2.Request:
        granted = set(((self.context.current_tokens and self.context.current_tokens.scope) or "").split())
        wanted = set((self.context.client_metadata.scope or "").split())
        soon = time.monotonic() - self._renewed < RENEW_SECONDS
        if self.context.can_refresh_token() and not soon and wanted <= granted:
            self._renewed = time.monotonic()
            return await self._refresh_token()
        raise LoginNeeded(self._draft())

    async def _handle_token_response(self, response: httpx2.Response) -> None:
        if not await self._handle_refresh_response(response):
            raise LoginNeeded(self._draft())

    def _draft(self) -> dict[str, Any]:
        """What the login needs, in this process or in another."""
        context = self.context
        if context.client_info is None:
            raise OAuthFlowError("the client is not registered")
        base = context.get_authorization_base_url(context.server_url)
        metadata, resource = context.oauth_metadata, context.protected_resource_metadata
        asked = {
            "response_type": "code",
            "client_id": context.client_info.client_id,
            "redirect_uri": self._callback,
            "code_challenge_method": "S256",
        }
        if context.should_include_resource_param(context.protocol_version):
            asked["resource"] = context.get_resource_url()
        if context.client_metadata.scope:
            asked["scope"] = context.client_metadata.scope
            if "offline_access" in asked["scope"].split():
                asked["prompt"] = "consent"
        return {
            "server": context.server_url,
            "tokens": self._tokens.name,
            "hosts": list(self._hosts),
            "authorize": str(metadata.authorization_endpoint) if metadata else urljoin(base, "/authorize"),
            "asked": asked,
            "token": self._get_token_endpoint(),
            "client": context.client_info.model_dump(mode="json", exclude_none=True),
            "metadata": metadata.model_dump(mode="json", exclude_none=True) if metadata else None,
            "resource": resource.model_dump(mode="json", exclude_none=True) if resource else None,
        }


def begin(draft: dict[str, Any], state: str) -> tuple[str, dict[str, Any]]:
    """The address that a person has to visit, and what is to be kept until they come back."""
    pkce = PKCEParameters.generate()
    query = draft["asked"] | {"state": state, "code_challenge": pkce.code_challenge}
    joint = "&" if "?" in draft["authorize"] else "?"
    return f"{draft['authorize']}{joint}{urlencode(query)}", draft | {"verifier": pkce.code_verifier}


def nonce() -> str:
    """What makes a login itself and no other."""
    return secrets.token_urlsafe(24)


async def finish(kept: Mapping[str, Any], code: str, iss: str | None, vault: Vault) -> None:
    """Exchange the code that a person came back with for tokens, and keep them.

    :raises LoginFailed: the authorisation server does not give them
    """
    metadata = OAuthMetadata.model_validate(kept["metadata"]) if kept["metadata"] else None
    client = OAuthClientInformationFull.model_validate(kept["client"])
    asked = kept["asked"]
    data = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": asked["redirect_uri"],
        "client_id": client.client_id,
        "code_verifier": kept["verifier"],
    } | {name: asked[name] for name in ("resource",) if name in asked}  # fmt: skip
    try:
        validate_authorization_response_iss(iss, metadata)
        tokens = await _exchange(kept, client, data)
    except (OAuthFlowError, ValidationError, httpx2.HTTPError, httpx2.StreamError) as error:
        raise LoginFailed(" ".join(str(error).split())[:300] or type(error).__name__) from error
    if tokens.scope is None:
        tokens.scope = asked.get("scope")
    ends = time.time() + tokens.expires_in - MARGIN if tokens.expires_in else None
    found = await vault.load(kept["tokens"])
    record = json.loads(found) if found else {}
    record |= {"tokens": tokens.model_dump(mode="json"), "ends": ends, "client": kept["client"]}
    record |= {"metadata": kept["metadata"], "resource": kept["resource"]}
    await vault.save(kept["tokens"], json.dumps(record))


async def _exchange(kept: Mapping[str, Any], client: OAuthClientInformationFull, data: dict[str, str]) -> OAuthToken:
    # The SDK knows each way to prove who one is; it wants a context for that.
    provider = OAuthClientProvider(
        kept["server"], OAuthClientMetadata(redirect_uris=[AnyUrl(data["redirect_uri"])]), _Nothing()
    )
    provider.context.client_info = client
    data, headers = provider.context.prepare_token_auth(data, {"accept": "application/json"})
    async with httpx2.AsyncClient(
        timeout=httpx2.Timeout(EXCHANGE_SECONDS, connect=CONNECT_SECONDS),
        headers=PLAIN,
        transport=transport(kept["server"], TRUSTED, kept.get("hosts", ())),
    ) as http:
        request = http.build_request("POST", kept["token"], data=data, headers=headers)
        response = await http.send(request, stream=True)
        response.stream = Bounded(response.stream, LARGEST_REFUSAL)
        body = (await response.aread()).decode("utf-8", "replace")
        await response.aclose()
    if response.status_code not in (200, 201):
        raise OAuthFlowError(f"the authorisation server answered HTTP {response.status_code}: {body[:200]}")
    return await handle_token_response_scopes(response)


class _Nothing:
    """A storage without anything in it."""

    async def get_tokens(self) -> OAuthToken | None:
        return None

    async def set_tokens(self, tokens: OAuthToken) -> None:
        return None

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return None

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        return None


class _Expected(logging.Filter):
    """Leaves out what the SDK logs as an error when a person is needed."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is kept."""
        return not (record.exc_info and isinstance(record.exc_info[1], LoginNeeded))


logging.getLogger("mcp.client.auth.oauth2").addFilter(_Expected())
