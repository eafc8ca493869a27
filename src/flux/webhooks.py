"""Signatures of webhooks, by the convention of Standard Webhooks: made here, and checked by who receives them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import time
from collections.abc import Mapping

from flux.errors import Unauthorized

PREFIX = "whsec_"
SECRET_BYTES = 32
#: Seconds by which the time of a delivery may differ from the receiver's clock.
TOLERANCE = 300.0


def new_secret() -> str:
    """A fresh secret in the form that libraries of Standard Webhooks take."""
    return PREFIX + base64.b64encode(os.urandom(SECRET_BYTES)).decode()


def sign(secret: str, id: str, timestamp: int, body: bytes) -> str:
    """The value of the header `webhook-signature`; `timestamp` in seconds since the epoch."""
    key = base64.b64decode(secret.removeprefix(PREFIX))
    digest = hmac.new(key, b"%b.%d.%b" % (id.encode(), timestamp, body), hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def verify(secret: str, headers: Mapping[str, str], body: bytes, *, now: float | None = None) -> None:
    """See that a request comes from whoever has the secret, and has come now. `headers` may have names in any case.

    :raises Unauthorized: it does not
    """
    given = {name.lower(): value for name, value in headers.items()}
    id, timestamp, signatures = (given.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature"))
    if not (timestamp.isascii() and timestamp.isdecimal()):
        raise Unauthorized("this is no signed webhook")
    if abs(int(timestamp) - (time.time() if now is None else now)) > TOLERANCE:
        raise Unauthorized("this webhook was signed at another time")
    try:
        wanted = sign(secret, id, int(timestamp), body)
    except binascii.Error as error:
        raise Unauthorized("the secret is none of a webhook") from error
    if not any(hmac.compare_digest(wanted.encode(), one.encode()) for one in signatures.split(" ")):
        raise Unauthorized("the signature of this webhook does not fit")
