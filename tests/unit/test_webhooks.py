"""Signatures of webhooks."""

import pytest

from flux.errors import Unauthorized
from flux.webhooks import new_secret, sign, verify

#: The example that the libraries of Standard Webhooks are tested with.
SECRET, ID, AT = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330
BODY, SIGNATURE = b'{"test": 2432232314}', "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
HEADERS = {"Webhook-Id": ID, "webhook-timestamp": str(AT), "WEBHOOK-SIGNATURE": f"v1,b3RoZXI= {SIGNATURE}"}


@pytest.mark.behaviour("webhooks:signature")
def test_a_signature_is_that_of_standard_webhooks() -> None:
    assert sign(SECRET, ID, AT, BODY) == SIGNATURE
    verify(SECRET, HEADERS, BODY, now=AT + 200)
    assert new_secret() != new_secret()
    assert sign(new_secret(), ID, AT, BODY).startswith("v1,")


@pytest.mark.behaviour("webhooks:signature")
@pytest.mark.parametrize(
    ("secret", "headers", "body", "now", "words"),
    [
        (SECRET, HEADERS, BODY + b" ", AT, "does not fit"),
        ("whsec_gfWYAhHUhUESu2c+/NjSoKwoogaSWF+o0ofEpTpBids=", HEADERS, BODY, AT, "does not fit"),
        (SECRET, HEADERS, BODY, AT + 301, "another time"),
        (SECRET, HEADERS, BODY, AT - 301, "another time"),
        (SECRET, HEADERS | {"Webhook-Id": "msg_other"}, BODY, AT, "does not fit"),
        (SECRET, {}, BODY, AT, "no signed webhook"),
        (SECRET, HEADERS | {"webhook-timestamp": "²"}, BODY, AT, "no signed webhook"),
        (SECRET, HEADERS | {"WEBHOOK-SIGNATURE": "v1,ünï"}, BODY, AT, "does not fit"),
        ("whsec_x", HEADERS, BODY, AT, "none of a webhook"),
    ],
)
def test_what_does_not_fit_is_refused(
    secret: str, headers: dict[str, str], body: bytes, now: float, words: str
) -> None:
    with pytest.raises(Unauthorized, match=words):
        verify(secret, headers, body, now=now)
