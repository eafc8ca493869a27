"""Logging in at a real identity provider, and calling a server with what it gives."""

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from flux.client import FluxClient
from flux.client.credentials import Credentials, StoredLogin
from flux.client.login import Client, Login, Provider, claims_of, provider_client
from flux.errors import Forbidden, InvalidInput, Unauthorized
from flux.settings import Auth, Oidc
from flux.store.database import LOCAL
from tests.integration.auth.serving import Guarded, guarded
from tests.provider import AUDIENCE, CLIENT, identity_provider, visit

SCOPES = "openid offline_access"


@pytest.fixture(scope="module")
def issuer(require_tool: Callable[[str], str], require_package: Callable[[str], None]) -> Iterator[str]:
    node = require_tool("node")
    require_package("oidc-provider")
    with identity_provider(node) as url:
        yield url


@pytest.fixture
def client(issuer: str) -> Client:
    return Client(issuer, CLIENT, AUDIENCE, SCOPES)


@pytest.fixture
async def world(issuer: str, tmp_path: Path) -> AsyncIterator[Guarded]:
    oidc = Oidc(enabled=True, issuer=issuer, audience=AUDIENCE)
    async with guarded(tmp_path, in_process=False, auth=Auth(oidc=oidc)) as running:
        await running.served.process.principals.create(LOCAL, "ann", "user", ["viewer"])
        yield running


async def by_browser(client: Client, person: str = "") -> Login:
    visits = set()
    async with provider_client() as http:
        provider = await Provider.find(http, client)
        more = f"&login_hint={person}" if person else ""
        return await provider.by_browser(lambda url: visits.add(asyncio.ensure_future(visit(url + more))))


@pytest.mark.behaviour("auth:login:browser")
async def test_a_login_by_browser_calls_the_server(world: Guarded, client: Client) -> None:
    login = await by_browser(client)
    assert claims_of(login.token)["aud"] == AUDIENCE
    async with FluxClient(world.served.url, login.token) as ann:
        found = await ann.get("/auth/me")
        assert (found["subject"], found["roles"]) == ("ann", ["viewer"])
        with pytest.raises(Forbidden):
            await ann.put("/configs/city", {"value": 1})
    other = await by_browser(client, "bob")
    async with FluxClient(world.served.url, other.token) as bob:
        assert (await bob.get("/auth/me"))["permissions"] == []


@pytest.mark.behaviour("auth:login:device")
async def test_a_login_by_device_calls_the_server(
    world: Guarded, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    visits: list[asyncio.Future[str]] = []

    def show(url: str, code: str) -> None:
        shown.append(code)
        visits.append(asyncio.ensure_future(visit(url)))

    monkeypatch.setattr("flux.client.login.PAUSE_SECONDS", 0.05)
    async with provider_client() as http:
        login = await (await Provider.find(http, client)).by_device(show)
    assert len(shown[0]) >= 8
    async with FluxClient(world.served.url, login.token) as ann:
        assert (await ann.get("/auth/me"))["subject"] == "ann"


@pytest.mark.behaviour("auth:login:kept")
async def test_a_kept_login_is_refreshed_once_for_all(world: Guarded, client: Client, tmp_path: Path) -> None:
    url, kept = world.served.url, Credentials(tmp_path / "user")
    login = await by_browser(client)
    kept.put(url + "/", replace(login, expires_at=0.0))
    (file,) = (tmp_path / "user").glob("*.json")
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600
    # Were it refreshed twice, the second time would be with a token that is used up, and end the login.
    clients = [FluxClient(url, StoredLogin(Credentials(tmp_path / "user"), url)) for _ in range(5)]
    found = await asyncio.gather(*(one.get("/auth/me") for one in clients))
    assert {one["subject"] for one in found} == {"ann"}
    fresh = kept.get(url)
    assert fresh is not None
    assert fresh.token != login.token
    assert fresh.refresh_token != login.refresh_token
    assert (await clients[0].get("/auth/me"))["subject"] == "ann"
    for one in clients:
        await one.aclose()


@pytest.mark.behaviour("auth:login:kept")
async def test_a_token_that_the_server_refuses_is_refreshed(world: Guarded, client: Client, tmp_path: Path) -> None:
    url, kept = world.served.url, Credentials(tmp_path / "user")
    login = await by_browser(client)
    kept.put(url, replace(login, token=login.token[:-8] + "AAAAAAAA"))
    async with FluxClient(url, StoredLogin(kept, url)) as ann:
        assert (await ann.get("/auth/me"))["subject"] == "ann"


@pytest.mark.behaviour("auth:login:over")
async def test_a_login_that_is_over_says_so(client: Client, tmp_path: Path) -> None:
    kept = Credentials(tmp_path / "user")
    login = await by_browser(client)
    async with provider_client() as http:
        await (await Provider.find(http, client)).leave(login)
    kept.put("http://x", replace(login, expires_at=0.0))
    with pytest.raises(Unauthorized, match="refused"):
        await kept.fresh("http://x")
    kept.put("http://y", replace(login, expires_at=0.0, refresh_token=None))
    with pytest.raises(Unauthorized, match="flux auth login"):
        await kept.fresh("http://y")
    (tmp_path / "user" / "credentials.json").write_text("{")
    with pytest.raises(InvalidInput, match="remove it"):
        kept.get("http://x")


@pytest.mark.behaviour("auth:login:browser")
async def test_an_answer_that_nobody_asked_for_changes_nothing(client: Client) -> None:
    pages: list[str] = []

    async def both(url: str) -> None:
        back = url.split("redirect_uri=")[1].split("&", maxsplit=1)[0].replace("%3A", ":").replace("%2F", "/")
        pages.append(await visit(f"{back}?code=stolen&state=made-up"))
        pages.append(await visit(f"{back}/../other?code=x"))
        pages.append(await visit(url))

    visits = set()
    async with provider_client() as http:
        provider = await Provider.find(http, client)
        login = await provider.by_browser(lambda url: visits.add(asyncio.ensure_future(both(url))))
    assert "not the answer" in pages[0]
    assert "not the answer" in pages[1]
    assert claims_of(login.token)["sub"] == "ann"


@pytest.mark.behaviour("auth:login:over")
async def test_a_provider_that_gives_no_token_for_us_is_told(client: Client) -> None:
    with pytest.raises(Unauthorized, match="no token for another-api"):
        await by_browser(replace(client, audience="another-api"))
