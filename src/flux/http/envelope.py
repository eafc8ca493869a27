"""The one form of an error over HTTP."""

from __future__ import annotations

import math
from typing import Any

from flux.errors import FluxError
from flux.redaction import text, value


def error_body(error: FluxError) -> dict[str, Any]:
    """The one error envelope."""
    return {"error": {"type": error.type, "message": text(str(error)), "details": value(error.details)}}


def error_headers(error: FluxError) -> dict[str, str]:
    """The headers that go with an error: how to say who calls, or when to come again, in whole seconds."""
    if error.status == 401:
        return {"www-authenticate": "Bearer"}
    seconds = error.details.get("retry_after")
    return {"retry-after": str(max(1, math.ceil(seconds)))} if isinstance(seconds, int | float) else {}
