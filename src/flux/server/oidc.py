"""Tokens of an identity provider: signed by one of its keys, for us, and not expired."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import time
import warnings
from typing import Any

import httpx
import msgspec
from joserfc import jws
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import KeySet
from msgspec.structs import replace

from flux.engine.service.identity import Caller, Identities
from flux.engine.service.principals import check_subject
from flux.errors import InvalidInput, Unavailable
from flux.http.provider import TIMEOUT_SECONDS, fetch_json, metadata
from flux.settings import Oidc
from flux.store.database import LOCAL, Scope

logger = logging.getLogger(__name__)

#: Made with a key of which only the public half is known here. With "none", or a shared key, anybody could sign.
ALGORITHMS = [
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519",
]  # fmt: skip
TYPES = frozenset({"jwt", "at+jwt", "application/at+jwt"})
SHAPE = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)
#: Seconds between two fetches of keys at least: tokens with made-up key ids are no reason to ask again and again.
REFETCH_SECONDS = 10.0
#: A token that was found good is not verified again for so long. Seconds.
VERIFIED_SECONDS = 60.0
MOST_VERIFIED = 10_000


class TokenRefused(Exception):
    """The token is not one of ours; the text says why, for developers."""


class Keys:
    """The public keys of a provider, fetched when needed: again when old, and when a token names one not known."""

    def __init__(self, oidc: Oidc, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._oidc = oidc
        self._transport = transport
        self._keys = KeySet([])
        self._fetched = float("-inf")
        self._tried = float("-inf")
        self._fetching = asyncio.Lock()
        #: Grows with each fetch that brought other keys.
        self.generation = 0

    async def find(self, key_id: str | None) -> Any:
        """The key of this id; without an id the only one there is.

        :raises TokenRefused: there is none
        :raises Unavailable: the provider does not answer, and never has
        """
        now = time.monotonic()
        if now - self._fetched > self._oidc.jwks_cache_ttl:
            await self._fetch()
        found = self._of(key_id)
        if found is None and now - self._tried > REFETCH_SECONDS:
            await self._fetch()
            found = self._of(key_id)
        if found is None:
            raise TokenRefused(f"no key {key_id!r}")
        return found

    def _of(self, key_id: str | None) -> Any:
        fitting = [key for key in self._keys.keys if key_id in (None, key.kid)]
        return fitting[0] if len(fitting) == 1 else None

    async def _fetch(self) -> None:
        began = time.monotonic()
        async with self._fetching:
            if self._tried >= began:  # somebody else did, while this waited
                return
            self._tried = time.monotonic()
            try:
                found = await self._ask()
            except (httpx.HTTPError, Unavailable, ValueError, JoseError) as error:
                logger.warning("the keys of %s cannot be fetched: %s", self._oidc.issuer, error)
                if self._fetched == float("-inf"):
                    raise Unavailable("the identity provider does not answer; try again later") from error
                return
            self._fetched = time.monotonic()
            if found.as_dict() != self._keys.as_dict():
                self.generation += 1
            self._keys = found

    async def _ask(self) -> KeySet:
        async with httpx.AsyncClient(
            transport=self._transport, timeout=TIMEOUT_SECONDS, trust_env=False, follow_redirects=False
        ) as http:
            about = await metadata(http, self._oidc.issuer)
            found = await fetch_json(http, str(about.get("jwks_uri")))
        signing = [key for key in found.get("keys", []) if key.get("kty") != "oct" and key.get("use", "sig") == "sig"]
        return KeySet.import_key_set({"keys": signing})


class Tokens:
    """Finds the caller of a token, who is of the server's own tenant."""

    def __init__(
        self,
        identities: Identities,
        oidc: Oidc,
        transport: httpx.AsyncBaseTransport | None = None,
        *,
        tenant: str = LOCAL.tenant,
    ) -> None:
        self._identities = identities
        self._tenant = tenant
        self._oidc = oidc
        self._keys = Keys(oidc, transport)
        self._verified: dict[bytes, tuple[float, int, dict[str, Any]]] = {}

    async def caller(self, token: str) -> Caller | None:
        """Whose token it is; None: nobody's who may call.

        :raises Unavailable: the provider does not answer
        """
        try:
            claims = await self.claims(token)
        except TokenRefused as error:
            logger.info("a token was refused: %s", error)
            return None
        found = await self._identities.by_name(Scope(self._tenant, claims["sub"]))
        return replace(found, expires_at=claims["exp"] + self._oidc.clock_skew) if found else None

    async def claims(self, token: str) -> dict[str, Any]:
        """What a token says.

        :raises TokenRefused: it is not one for us
        :raises Unavailable: the provider does not answer
        """
        digest = hashlib.sha256(token.encode()).digest()
        known = self._verified.get(digest)
        if known is None or known[0] < time.monotonic() or known[1] != self._keys.generation:
            claims = await self._verify(token)
            if len(self._verified) >= MOST_VERIFIED:
                self._verified.clear()
            self._verified[digest] = (time.monotonic() + VERIFIED_SECONDS, self._keys.generation, claims)
        else:
            claims = known[2]
        _check_times(claims, self._oidc.clock_skew)
        return claims

    async def _verify(self, token: str) -> dict[str, Any]:
        if not SHAPE.fullmatch(token):
            raise TokenRefused("no signed token")
        try:
            header = jws.extract_compact(token.encode()).headers()
            if header.get("alg") not in ALGORITHMS or str(header.get("typ", "jwt")).lower() not in TYPES:
                raise TokenRefused(f"alg {header.get('alg')!r}, typ {header.get('typ')!r}")
            key_id = header.get("kid")
            key = await self._keys.find(key_id if isinstance(key_id, str) else None)
            if key.get("alg") not in (None, header["alg"]):
                raise TokenRefused(f"a key for {key.get('alg')} was used with {header['alg']}")
            with warnings.catch_warnings():  # of the older name of Ed25519
                warnings.simplefilter("ignore", SecurityWarning)
                found = jws.deserialize_compact(token, key, algorithms=ALGORITHMS)
            claims = msgspec.json.decode(found.payload, type=dict[str, Any])
        except (JoseError, ValueError, TypeError, RecursionError, msgspec.DecodeError) as error:
            raise TokenRefused(f"{type(error).__name__}: {error}") from error
        _check_claims(claims, self._oidc)
        return claims


def _check_claims(claims: dict[str, Any], oidc: Oidc) -> None:
    if claims.get("iss") != oidc.issuer:
        raise TokenRefused(f"issued by {claims.get('iss')!r}")
    audience = claims.get("aud")
    if oidc.audience not in (audience if isinstance(audience, list) else [audience]):
        raise TokenRefused(f"for {audience!r}")
    for name in ("exp", "nbf", "iat"):
        if name in claims and (isinstance(claims[name], bool) or not isinstance(claims[name], int | float)):
            raise TokenRefused(f"{name} is no time")
    if "exp" not in claims:
        raise TokenRefused("it never expires")
    try:
        check_subject(str(claims.get("sub", "")))
    except InvalidInput as error:
        raise TokenRefused(str(error)) from error
    claims["sub"] = str(claims["sub"])


def _check_times(claims: dict[str, Any], leeway: float) -> None:
    now = time.time()
    if not now < claims["exp"] + leeway:
        raise TokenRefused("it has expired")
    if any(claims.get(name, 0) > now + leeway for name in ("nbf", "iat")):
        raise TokenRefused("it is not valid yet")
