"""Odd tokens and headers: nobody gets in by them, and nothing breaks."""

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flux.engine.service.identity import Identities
from flux.server.auth import Authentication
from flux.server.oidc import Tokens
from flux.settings import Oidc
from flux.store.database import LOCAL, Database
from flux.store.opening import open_database
from tests.integration.auth.issuer import AUDIENCE, ISSUER, Issuer

PARTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from([ISSUER, AUDIENCE]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)
HEADER = st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "jwk", "b64", "x5c", "zip"]), PARTS, max_size=5)
CLAIMS = st.dictionaries(st.sampled_from(["iss", "aud", "sub", "exp", "nbf", "iat", "x"]), PARTS, max_size=7)


def encoded(value: Any) -> bytes:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")


TOKEN = st.one_of(
    st.binary(max_size=60),
    st.text(alphabet="abcAB01-_.=", max_size=80).map(str.encode),
    st.text(max_size=20).map(lambda text: b"flux_" + text.encode(errors="replace")),
    st.tuples(HEADER, CLAIMS, st.binary(max_size=16)).map(
        lambda made: b".".join([encoded(made[0]), encoded(made[1]), base64.urlsafe_b64encode(made[2]).rstrip(b"=")])
    ),
    HEADER.map(
        lambda made: b".".join([encoded(made | {"alg": "RS256", "kid": "one"}), encoded({"sub": "ann"}), b"AA"])
    ),
)
LINE = st.one_of(TOKEN.map(lambda token: b"Bearer " + token), TOKEN, TOKEN.map(lambda token: b"Basic " + token))


@pytest.fixture
async def database(sqlite_url: str) -> AsyncIterator[Database]:
    opened = await open_database(sqlite_url, synchronous="normal")
    yield opened
    await opened.close()


async def _within(*_: object) -> Any:
    raise AssertionError("somebody got in")


@pytest.mark.behaviour("auth:tokens:odd")
async def test_odd_tokens_let_nobody_in(database: Database) -> None:
    identities = Identities(database, enabled=True, default_roles=("admin",))
    tokens = Tokens(identities, Oidc(enabled=True, issuer=ISSUER, audience=AUDIENCE), Issuer().transport())
    guard = Authentication(_within, identities, tenant=LOCAL.tenant, keys=True, tokens=tokens)

    async def status(*lines: bytes) -> int:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"authorization", line) for line in lines]
        await guard({"type": "http", "path": "/agents", "headers": headers}, _within, send)
        return int(sent[0]["status"])

    @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), database=None, derandomize=True)
    @given(st.lists(LINE, max_size=2))
    def tried(lines: list[bytes]) -> None:
        found.append(lines)

    found: list[list[bytes]] = []
    tried()
    for lines in found:
        assert await status(*lines) == 401, lines
    good = Issuer().token().encode()
    assert await status(b"Bearer " + good, b"Bearer " + good) == 401
    assert await status(b"Bearer " + b"x" * 20_000) == 401
