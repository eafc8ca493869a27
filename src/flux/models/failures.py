"""What went wrong with a model call, as data: one line, no keys, no stack."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from pydantic_ai import exceptions as pai

from flux.messages import FailureKind, ModelFailure
from flux.models.endpoint import Endpoint
from flux.models.limits import replacement

_TRANSIENT = (
    pai.ModelRateLimitError,
    pai.ModelUnavailableError,
    pai.ModelServerError,
    pai.ModelConnectionError,
    pai.UnexpectedModelBehavior,
)
_TRANSIENT_STATUS = frozenset({408, 409, 425, 429})
_OVERFLOW = re.compile(
    r"""(prompt|input|request|conversation)\ is\ too\ (long|large) | exceeds?\ (the|this\ model's)\ context
    | maximum\ (context|prompt)\ length | context[_ ]length[_ ]exceeded | context\ window\ exceeds
    | exceeds\ the\ available\ context | greater\ than\ the\ context\ length | reduce\ the\ length\ of\ the
    | exceeded\ model\ token\ limit | input\ token\ count .* exceeds""",
    re.IGNORECASE | re.VERBOSE,
)
_UNKNOWN_MODEL = re.compile(
    r"not a valid model|model\S* .*(not found|does not exist|not supported)|unknown model", re.I
)
_LONGEST = 300
_SHORTEST_KEY = 8


def cut_off(endpoint: Endpoint) -> ModelFailure:
    """The answer ended without saying that it was complete."""
    return ModelFailure(f"{endpoint.provider} cut the connection in the middle of the answer", "transient")


def failure(error: Exception, endpoint: Endpoint, model: str, stalled_after: float) -> ModelFailure:
    """Whatever was raised during a call of `model`, classified."""
    kind = _kind(error)
    retry_after = getattr(error, "retry_after", None)
    return ModelFailure(_text(kind, error, endpoint, model, stalled_after), kind, retry_after)


def _kind(error: Exception) -> FailureKind:
    said = _said(error)
    if isinstance(error, pai.ModelContextWindowExceededError) or _OVERFLOW.search(said):
        return "overflow"
    if isinstance(error, pai.ModelAuthenticationError):
        return "auth"
    if isinstance(error, pai.ModelNotFoundError) or (
        isinstance(error, pai.ModelRequestRejectedError) and _UNKNOWN_MODEL.search(said)
    ):
        return "unknown_model"
    if isinstance(error, pai.ModelQuotaExceededError):
        return "rejected"
    if isinstance(error, pai.ModelTimeoutError) and error.phase == "read":
        return "stalled"
    return _kind_of_status(error)


def _kind_of_status(error: Exception) -> FailureKind:
    if isinstance(error, pai.ModelHTTPError):
        if error.status_code == 413:
            return "overflow"
        if error.status_code in _TRANSIENT_STATUS or error.status_code >= 500:
            return "transient"
    return "transient" if isinstance(error, _TRANSIENT) else "rejected"


def _text(kind: FailureKind, error: Exception, endpoint: Endpoint, model: str, stalled_after: float) -> str:
    provider = endpoint.provider
    if kind == "auth":
        return _auth_text(error, endpoint)
    if kind == "stalled":
        return f"{provider} sent nothing for {stalled_after:g} seconds"
    if kind == "unknown_model":
        other = replacement(provider, model)
        return f"model {model} is not served by {provider}" + (f"; try {provider}/{other}" if other else "")
    if isinstance(error, pai.ModelConnectionError) and error.phase in ("connect", "pool", None):
        return f"{provider} cannot be reached at {_public(endpoint.base_url)}"
    if isinstance(error, pai.ModelConnectionError):
        return cut_off(endpoint).message
    status = f" ({error.status_code})" if isinstance(error, pai.ModelHTTPError) else ""
    return _line(f"{provider}{status}: {_said(error) or type(error).__name__}", endpoint.key)


def _auth_text(error: Exception, endpoint: Endpoint) -> str:
    status = f" ({error.status_code})" if isinstance(error, pai.ModelHTTPError) else ""
    if endpoint.secret is not None:
        return f"{endpoint.provider} refused the key in the secret {endpoint.secret}{status}: check it and its rights"
    if endpoint.variable is None:
        return f"{endpoint.provider} asks for a key{status}: name its variable in api_key_env"
    return f"{endpoint.provider} refused the key in {endpoint.variable}{status}: check the key and its rights"


def _said(error: Exception) -> str:
    """What the provider said, without the wrapping of the SDK."""
    body = getattr(error, "body", None)
    found = _message(body)
    if found:
        return found
    if isinstance(error, pai.ModelHTTPError):
        return str(body) if isinstance(body, str) else ""
    return str(error)


def _message(body: Any) -> str:
    """The message in an error body of any provider."""
    if isinstance(body, list) and body:
        body = body[0]
    if not isinstance(body, dict):
        return ""
    inner = body.get("error")
    if isinstance(inner, str):
        return inner
    return _message(inner) or str(body.get("message") or body.get("detail") or "")


def _line(text: str, key: str | None) -> str:
    if key and len(key) >= _SHORTEST_KEY:
        text = text.replace(key, "***")
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _public(url: str) -> str:
    """The address without a user name or password."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
