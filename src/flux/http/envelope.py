"""The one form of an error over HTTP."""

from __future__ import annotations

from typing import Any

from flux.errors import FluxError


def error_body(error: FluxError) -> dict[str, Any]:
    """The one error envelope."""
    return {"error": {"type": error.type, "message": str(error), "details": error.details}}
