"""Tokens of an identity provider: whose are taken, and which never are."""

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from joserfc.jwk import OctKey, RSAKey
from msgspec.structs import replace

from flux.engine.service.identity import Identities
from flux.engine.service.principals import Principals
from flux.errors import Unavailable
from flux.server import oidc
from flux.server.oidc import TokenRefused, Tokens
from flux.settings import Oidc
from flux.store.database import LOCAL, Database
from flux.store.opening import open_database
from tests.integration.auth.issuer import AUDIENCE, ISSUER, Issuer

SETTINGS = Oidc(enabled=True, issuer=ISSUER, audience=AUDIENCE, clock_skew=30.0)


@pytest.fixture
async def database(sqlite_url: str) -> AsyncIterator[Database]:
    opened = await open_database(sqlite_url, synchronous="normal")
    yield opened
    await opened.close()


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
def tokens(database: Database, issuer: Issuer) -> Tokens:
    return Tokens(Identities(database, enabled=True), SETTINGS, issuer.transport())


@pytest.mark.behaviour("auth:oidc:taken")
async def test_a_token_brings_the_roles_of_its_subject(database: Database, tokens: Tokens, issuer: Issuer) -> None:
    principals = Principals(database, Identities(database, enabled=True))
    await principals.create(LOCAL, "ann", "user", ["viewer"])
    found = await tokens.caller(issuer.token(exp=time.time() + 60))
    assert found is not None
    assert (found.scope.principal, found.roles) == ("ann", ("viewer",))
    assert found.expires_at == pytest.approx(time.time() + 90, abs=5)
    assert issuer.asked == 1


@pytest.mark.behaviour("auth:oidc:taken")
@pytest.mark.parametrize("kind", ["EC", "OKP", "RSA"])
async def test_keys_of_each_kind_are_taken(tokens: Tokens, issuer: Issuer, kind: str) -> None:
    issuer.rotate(kind)
    alg = {"EC": "ES256", "OKP": "EdDSA", "RSA": "PS256"}[kind]
    assert (await tokens.claims(issuer.token(header={"alg": alg}, aud=["other", AUDIENCE])))["sub"] == "ann"


REFUSED: dict[str, dict[str, Any]] = {
    "expired": {"exp": time.time() - 60},
    "never expires": {"exp": None},
    "expires at no time": {"exp": "tomorrow"},
    "not yet valid": {"nbf": time.time() + 3600},
    "made in the future": {"iat": time.time() + 3600},
    "of another issuer": {"iss": f"{ISSUER}/"},
    "of no issuer": {"iss": None},
    "for others": {"aud": "another-api"},
    "for many others": {"aud": ["another-api", f"{AUDIENCE}2"]},
    "for nobody": {"aud": None},
    "of nobody": {"sub": None},
    "of the operator here": {"sub": "local"},
    "of a name that is none": {"sub": "a b\n"},
    "signed by nobody": {"header": {"alg": "none"}, "key": OctKey.import_key("x" * 32)},
    "signed with a shared secret": {"header": {"alg": "HS256"}, "key": "public"},
    "signed by somebody else": {"key": RSAKey.generate_key(2048)},
    "for another algorithm of the key": {"header": {"alg": "PS256"}},
    "with a key that is not known": {"header": {"kid": "other"}},
    "with the key in it": {"header": {"jwk": {"kty": "oct", "k": "eA"}, "kid": "other"}},
    "of another type": {"header": {"typ": "logout+jwt"}},
    "with a demand we do not know": {"header": {"crit": ["exp"], "exp": 1}},
}


@pytest.mark.behaviour("auth:oidc:refused")
@pytest.mark.parametrize("what", REFUSED)
async def test_a_token_is_refused(tokens: Tokens, issuer: Issuer, what: str) -> None:
    made = dict(REFUSED[what])
    if made.get("key") == "public":
        made["key"] = issuer.as_secret()
    token = issuer.token(**made)
    with pytest.raises(TokenRefused):
        await tokens.claims(token)
    assert await tokens.caller(token) is None


@pytest.mark.behaviour("auth:oidc:refused")
async def test_a_token_that_was_changed_is_refused(tokens: Tokens, issuer: Issuer) -> None:
    head, body, signature = issuer.token().split(".")
    other = issuer.token("eve").split(".")[1]
    for token in (
        f"{head}.{other}.{signature}",
        f"{head}.{body}.",
        f"{head}.{body}",
        "a.b.c",
        "..",
        f"{head}.{body}.x",
    ):
        assert await tokens.caller(token) is None


@pytest.mark.behaviour("auth:oidc:refused")
async def test_shared_secrets_among_the_keys_are_not_used(tokens: Tokens, issuer: Issuer) -> None:
    secret = OctKey.import_key("x" * 32, {"kid": "shared"})
    issuer.more_keys = [secret.as_dict()]
    assert await tokens.caller(issuer.token(header={"alg": "HS256", "kid": "shared"}, key=secret)) is None


@pytest.mark.behaviour("auth:oidc:keys")
async def test_a_new_key_is_fetched_once_and_the_old_one_is_forgotten(
    tokens: Tokens, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = issuer.token()
    assert await tokens.caller(old) is not None
    issuer.rotate()
    fresh = issuer.token()
    assert await tokens.caller(fresh) is None  # it was asked just now
    monkeypatch.setattr(oidc, "REFETCH_SECONDS", 0.0)
    assert await tokens.caller(fresh) is not None
    assert issuer.asked == 2
    assert await tokens.caller(old) is None
    monkeypatch.setattr(oidc, "REFETCH_SECONDS", 10.0)
    for n in range(20):
        assert await tokens.caller(issuer.token(header={"kid": f"made-up{n}"})) is None
    assert issuer.asked <= 3


@pytest.mark.behaviour("auth:oidc:keys")
async def test_a_provider_that_is_away_is_told_and_its_keys_stay(
    database: Database, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = Tokens(Identities(database, enabled=True), replace(SETTINGS, jwks_cache_ttl=1e-9), issuer.transport())
    issuer.away = True
    with pytest.raises(Unavailable, match="does not answer"):
        await tokens.caller(issuer.token())
    issuer.away = False
    assert await tokens.caller(issuer.token()) is not None
    issuer.away = True
    assert await tokens.caller(issuer.token("bob")) is not None


@pytest.mark.behaviour("auth:oidc:keys")
@pytest.mark.parametrize("about", [
    {"issuer": "https://other.example.com", "jwks_uri": f"{ISSUER}/keys"},
    {"issuer": ISSUER, "jwks_uri": "http://id.example.com/keys"},
    {"issuer": ISSUER, "jwks_uri": "file:///etc/passwd"},
    {"issuer": ISSUER},
])  # fmt: skip
async def test_a_provider_that_is_not_what_it_says_is_not_believed(
    tokens: Tokens, issuer: Issuer, about: dict[str, Any]
) -> None:
    issuer.about = about
    with pytest.raises(Unavailable):
        await tokens.caller(issuer.token())
    assert issuer.asked == 0


@pytest.mark.behaviour("auth:oidc:newcomers")
async def test_somebody_new_may_do_nothing_unless_new_people_have_roles(database: Database, issuer: Issuer) -> None:
    closed = Tokens(Identities(database, enabled=True), SETTINGS, issuer.transport())
    found = await closed.caller(issuer.token())
    assert found is not None
    assert found.permissions.patterns == frozenset()
    identities = Identities(database, enabled=True, default_roles=("viewer",))
    opened = Tokens(identities, SETTINGS, issuer.transport())
    welcomed = await opened.caller(issuer.token())
    assert welcomed is not None
    assert welcomed.roles == ("viewer",)
    principals = Principals(database, identities)
    await principals.revoke(LOCAL, "ann", "viewer")
    again = await opened.caller(issuer.token())
    assert again is not None
    assert again.roles == ()


@pytest.mark.behaviour("auth:oidc:refused")
async def test_a_name_at_the_provider_is_not_an_account_of_a_program(database: Database, issuer: Issuer) -> None:
    identities = Identities(database, enabled=True)
    principals = Principals(database, identities)
    tokens = Tokens(identities, SETTINGS, issuer.transport())
    await principals.admin_key("first")
    assert await tokens.caller(issuer.token("admin")) is None
    await principals.create(LOCAL, "ann", "user", ["admin"])
    await principals.set_state(LOCAL, "ann", "disabled")
    assert await tokens.caller(issuer.token("ann")) is None


@pytest.mark.behaviour("auth:speed:token")
async def test_a_token_is_verified_once_and_then_known(tokens: Tokens, issuer: Issuer) -> None:
    token = issuer.token()
    await tokens.caller(token)
    began = time.process_time()
    for _ in range(100):
        assert await tokens.caller(token) is not None
    assert (time.process_time() - began) / 100 < 0.001
