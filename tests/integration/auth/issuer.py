"""An identity provider in memory: its keys, its tokens, and what it answers."""

import base64
import hmac
import json
import time
from typing import Any

import httpx
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from joserfc.jwk import ECKey, OKPKey, RSAKey

ISSUER = "https://id.example.com/realm"
AUDIENCE = "flux-api"
JWKS = f"{ISSUER}/keys"


class Issuer:
    """Signs with the newest of its keys; `asked` counts how often it was asked for them."""

    def __init__(self) -> None:
        self.keys: list[Any] = [RSAKey.generate_key(2048, {"kid": "one", "use": "sig", "alg": "RS256"})]
        self.asked = 0
        self.away = False
        self.about: dict[str, Any] = {"issuer": ISSUER, "jwks_uri": JWKS}
        self.more_keys: list[dict[str, Any]] = []

    def transport(self) -> httpx.AsyncBaseTransport:
        """The way to it."""
        return httpx.MockTransport(self._answer)

    def rotate(self, kind: str = "RSA") -> None:
        """A new key, and the old one is gone."""
        key_id: Any = {"kid": f"key{time.monotonic_ns()}", "use": "sig"}
        if kind == "EC":
            self.keys = [ECKey.generate_key("P-256", key_id)]
        elif kind == "OKP":
            self.keys = [OKPKey.generate_key("Ed25519", key_id)]
        else:
            self.keys = [RSAKey.generate_key(2048, key_id)]

    def token(self, sub: Any = "ann", *, header: dict[str, Any] | None = None, key: Any = None, **claims: Any) -> str:
        """A token; claims that are None are left out."""
        now = time.time()
        said = {"iss": ISSUER, "aud": AUDIENCE, "sub": sub, "iat": now, "exp": now + 300} | claims
        head = {"alg": "RS256", "kid": self.keys[0].kid} | (header or {})
        said = {name: value for name, value in said.items() if value is not None}
        head = {name: value for name, value in head.items() if value is not None}
        text = b".".join(_base64(json.dumps(part).encode()) for part in (head, said))
        signed = _sign(head["alg"], key or self.keys[0], text)
        return b".".join([text, _base64(signed)]).decode()

    def as_secret(self) -> bytes:
        """Its public key, taken for a shared secret."""
        return bytes(self.keys[0].as_pem(private=False))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        if self.away:
            raise httpx.ConnectError("away")
        if str(request.url) == f"{ISSUER}/.well-known/openid-configuration":
            return httpx.Response(200, json=self.about)
        assert str(request.url) == JWKS
        self.asked += 1
        keys = [key.as_dict(private=False) for key in self.keys]
        return httpx.Response(200, text=json.dumps({"keys": [*keys, *self.more_keys]}))


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _sign(alg: str, key: Any, text: bytes) -> bytes:
    """By hand: a library refuses to make what it would refuse to take."""
    match alg:
        case "none":
            return b""
        case "HS256":
            return hmac.digest(key if isinstance(key, bytes) else key.raw_value, text, "sha256")
        case "EdDSA":
            return bytes(key.private_key.sign(text))
        case "ES256":
            r, s = decode_dss_signature(key.private_key.sign(text, ec.ECDSA(hashes.SHA256())))
            return r.to_bytes(32, "big") + s.to_bytes(32, "big")
        case "PS256":
            pss = padding.PSS(padding.MGF1(hashes.SHA256()), hashes.SHA256.digest_size)
            return bytes(key.private_key.sign(text, pss, hashes.SHA256()))
        case _:
            return bytes(key.private_key.sign(text, padding.PKCS1v15(), hashes.SHA256()))
