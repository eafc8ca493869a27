"""The one form of an error over HTTP."""

from __future__ import annotations

from typing import Any

from flux.errors import FluxError
from flux.redaction import text, value


def error_body(error: FluxError) -> dict[str, Any]:
    """The one error envelope."""
    return {"error": {"type": error.type, "message": text(str(error)), "details": value(error.details)}}
