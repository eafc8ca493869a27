"""Logging in at an identity provider: by a code on another device, or by a browser on this machine."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import msgspec
from msgspec import Struct

from flux.errors import InvalidInput, Unauthorized, Unavailable
from flux.http.provider import TIMEOUT_SECONDS, metadata

DEVICE = "urn:ietf:params:oauth:grant-type:device_code"
#: Seconds between two questions whether the code was entered, if the provider does not say.
PAUSE_SECONDS = 5.0
#: Seconds that a person gets to log in at most.
PATIENCE_SECONDS = 600.0
PAGE = b"""HTTP/1.1 %d %b\r\nContent-Type: text/html; charset=utf-8\r\nContent-Security-Policy: default-src 'none'\r
Connection: close\r\n\r\n<!doctype html><title>Flux</title><p>%b</p>"""


class Client(Struct, frozen=True):
    """Who we are at a provider, and for whom its tokens shall be."""

    issuer: str
    client_id: str
    audience: str
    scopes: str


class Login(Struct, frozen=True):
    """What a login gave; `expires_at` in seconds since the epoch."""

    client: Client
    token: str
    expires_at: float
    refresh_token: str | None = None


class Provider:
    """Talks to an identity provider, by `http`, which somebody else closes."""

    def __init__(self, http: httpx.AsyncClient, client: Client, about: dict[str, Any]) -> None:
        self._http = http
        self._client = client
        self._about = about

    @classmethod
    async def find(cls, http: httpx.AsyncClient, client: Client) -> Provider:
        """The provider, once it has told about itself.

        :raises Unavailable: it does not answer, or says something else
        """
        try:
            return cls(http, client, await metadata(http, client.issuer))
        except httpx.HTTPError as error:
            raise Unavailable(f"the identity provider {client.issuer} does not answer: {error}") from error

    async def by_device(self, show: Callable[[str, str], None]) -> Login:
        """Log in with a code that a person types into any browser; `show` is told the address and the code.

        :raises Unauthorized: the person refused, or took too long
        """
        began = await self._post("device_authorization_endpoint", {"scope": self._client.scopes, **self._for()})
        address = str(began.get("verification_uri_complete") or began.get("verification_uri"))
        show(address, str(began.get("user_code")))
        pause = float(began.get("interval", PAUSE_SECONDS))
        deadline = time.monotonic() + min(float(began.get("expires_in", PATIENCE_SECONDS)), PATIENCE_SECONDS)
        asked = {"grant_type": DEVICE, "device_code": str(began.get("device_code"))}
        while time.monotonic() < deadline:
            await asyncio.sleep(pause)
            given = await self._post("token_endpoint", asked, may_fail=True)
            if given.get("error") == "slow_down":
                pause += 5
            elif given.get("error") != "authorization_pending":
                return self._login(_successful(given))
        raise Unauthorized("nobody entered the code in time; run `flux auth login` again")

    async def by_browser(self, show: Callable[[str], None]) -> Login:
        """Log in with a browser of this machine, which comes back here; `show` is told the address to open.

        :raises Unauthorized: the person refused, or took too long
        """
        state, verifier = secrets.token_urlsafe(32), secrets.token_urlsafe(48)
        answer: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()
        server = await asyncio.start_server(_Callback(state, answer), "127.0.0.1", 0)
        async with server:
            back = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/callback"
            show(self._address(state, verifier, back))
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    came = await answer
            except TimeoutError as error:
                raise Unauthorized("nobody logged in in time; run `flux auth login` again") from error
        if came.get("iss", self._client.issuer) != self._client.issuer:
            raise Unauthorized("the answer came from another provider; nothing was kept")
        code = str(_successful(came).get("code"))
        said = {"grant_type": "authorization_code", "code": code, "redirect_uri": back, "code_verifier": verifier}
        return self._login(await self._post("token_endpoint", said | self._for()))

    async def again(self, login: Login) -> Login:
        """The same login with a fresh token.

        :raises Unauthorized: it is over; the person has to log in again
        """
        if login.refresh_token is None:
            raise Unauthorized("the login has expired; run `flux auth login`")
        said = {"grant_type": "refresh_token", "refresh_token": login.refresh_token, **self._for()}
        given = await self._post("token_endpoint", said)
        return self._login({"refresh_token": login.refresh_token} | given)

    async def leave(self, login: Login) -> None:
        """Tell the provider that the login is over, if it wants to know."""
        if login.refresh_token is not None and "revocation_endpoint" in self._about:
            await self._post("revocation_endpoint", {"token": login.refresh_token}, may_fail=True)

    def _address(self, state: str, verifier: str, back: str) -> str:
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        query = {
            "response_type": "code",
            "client_id": self._client.client_id,
            "redirect_uri": back,
            "scope": self._client.scopes,
            "state": state,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            "prompt": "consent",  # without it some give no token to refresh by
            **self._for(),
        }
        return f"{self._endpoint('authorization_endpoint')}?{urlencode(query)}"

    def _for(self) -> dict[str, str]:
        """For whom a token is asked: some providers read `resource`, some `audience`."""
        audience = self._client.audience
        return {"audience": audience} | ({"resource": audience} if "://" in audience else {})

    def _endpoint(self, name: str) -> str:
        if name not in self._about:
            other = "try `flux auth login --browser`" if "device" in name else "it cannot be used"
            raise InvalidInput(f"the identity provider has no {name}; {other}")
        return str(self._about[name])

    async def _post(self, endpoint: str, fields: Mapping[str, str], *, may_fail: bool = False) -> dict[str, Any]:
        url = self._endpoint(endpoint)
        try:
            answer = await self._http.post(url, data={"client_id": self._client.client_id, **fields})
        except httpx.HTTPError as error:
            raise Unavailable(f"the identity provider does not answer at {url}: {error}") from error
        try:
            given = msgspec.json.decode(answer.content or b"{}", type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise Unavailable(f"{url} answered {answer.status_code}, and no JSON") from error
        return given if may_fail else _successful(given)

    def _login(self, given: dict[str, Any]) -> Login:
        for name in ("access_token", "id_token"):
            token = given.get(name)
            claims = claims_of(token) if isinstance(token, str) else {}
            audience = claims.get("aud")
            if self._client.audience in (audience if isinstance(audience, list) else [audience]):
                refresh = given.get("refresh_token")
                return Login(self._client, str(token), float(claims.get("exp", 0)), refresh)
        raise Unauthorized(
            f"the identity provider gave no token for {self._client.audience}; allow that audience to this client"
        )


class _Callback:
    """Where the browser comes back to: takes the first answer that knows the state."""

    def __init__(self, state: str, answer: asyncio.Future[dict[str, str]]) -> None:
        self._state = state
        self._answer = answer

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                line = await reader.readline()
            writer.write(self._page(line.decode("latin-1")))
            await writer.drain()
        except (TimeoutError, ValueError, OSError):
            pass
        finally:
            writer.close()

    def _page(self, line: str) -> bytes:
        method, _, rest = line.partition(" ")
        place = urlsplit(rest.partition(" ")[0])
        given = {name: values[0] for name, values in parse_qs(place.query).items()}
        known = secrets.compare_digest(given.get("state", "").encode(), self._state.encode())
        if method != "GET" or place.path != "/callback" or not known or self._answer.done():
            return PAGE % (400, b"Bad Request", b"This is not the answer that Flux waits for.")
        self._answer.set_result(given)
        return PAGE % (200, b"OK", b"You can close this page and go back to the terminal.")


def provider_client() -> httpx.AsyncClient:
    """A connection for talking to providers: no redirects, no proxies."""
    return httpx.AsyncClient(timeout=TIMEOUT_SECONDS, trust_env=False, follow_redirects=False)


def claims_of(token: str) -> dict[str, Any]:
    """What a token says of itself; nothing where it is sealed. The server checks it, we only read."""
    try:
        body = token.split(".")[1]
        return msgspec.json.decode(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)), type=dict[str, Any])
    except (IndexError, ValueError, msgspec.DecodeError):
        return {}


def _successful(given: dict[str, Any]) -> dict[str, Any]:
    if "error" in given:
        said = str(given.get("error_description") or given["error"])
        raise Unauthorized(f"the identity provider refused: {said[:300]}")
    return given
