"""Sealing of secrets: AES-GCM, bound to the tenant and the name, so that none can be put in another's place."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from flux.errors import SecretUnreadable, Unavailable
from flux.store.database import Scope

KEY_BYTES = 32
NONCE_BYTES = 12
FORMAT = "1"


class Sealer:
    """Seals with the first of some keys and opens with each of them; they are given in base64, comma or space between.

    :raises Unavailable: one is no such key
    """

    def __init__(self, keys: str, origin: str) -> None:
        raw = [_decode(key, origin) for key in split(keys) or [""]]
        self._ciphers = {hashlib.sha256(key).hexdigest()[:8]: AESGCM(key) for key in raw}
        self.id = next(iter(self._ciphers))
        self._origin = origin

    def knows(self, id: str) -> bool:
        """Whether the key of this id is among them."""
        return id in self._ciphers

    def seal(self, scope: Scope, name: str, value: str) -> str:
        """The sealed form: format, key and text, readable only with the key, tenant and name."""
        nonce = os.urandom(NONCE_BYTES)
        text = nonce + self._ciphers[self.id].encrypt(nonce, value.encode(), _place(scope, name))
        return f"{FORMAT}.{self.id}.{base64.b64encode(text).decode()}"

    def open(self, scope: Scope, name: str, sealed: str) -> str:
        """The value.

        :raises SecretUnreadable: it was sealed with another key, or it is not the secret of this name
        """
        form, key, text = sealed.split(".", 2)
        if form != FORMAT or key not in self._ciphers:
            raise unreadable(name, f"with another key than that of {self._origin}")
        raw = base64.b64decode(text)
        try:
            opened = self._ciphers[key].decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], _place(scope, name))
        except InvalidTag as error:
            raise unreadable(name, "for another name, or was changed") from error
        return opened.decode()


def split(keys: str) -> list[str]:
    """Keys one by one."""
    return keys.replace(",", " ").split()


def new_key() -> str:
    """A fresh key in base64."""
    return base64.b64encode(AESGCM.generate_key(KEY_BYTES * 8)).decode()


def unreadable(name: str, why: str) -> SecretUnreadable:
    """The error of a secret that cannot be opened."""
    return SecretUnreadable(
        f"the secret {name!r} was encrypted {why}; give every server and worker the key that it was set with, "
        "or forget what nobody can read: `flux secrets rotate-key --forget-unreadable`"
    )


def _place(scope: Scope, name: str) -> bytes:
    return msgspec.json.encode([scope.tenant, name])


def _decode(key: str, origin: str) -> bytes:
    try:
        raw = base64.b64decode(key.strip(), validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != KEY_BYTES:
        raise Unavailable(
            f"each key of {origin} must be {KEY_BYTES} random bytes in base64; "
            f"`openssl rand -base64 {KEY_BYTES}` makes them"
        )
    return raw
