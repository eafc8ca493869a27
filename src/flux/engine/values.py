"""Temporary."""

from __future__ import annotations

from typing import Any

import msgspec


def encode_value(value: Any) -> Any:
    if isinstance(value, BaseException):
        return {"$exc": str(value)}
    return msgspec.to_builtins(value)


def decode_value(value: Any) -> Any:
    if isinstance(value, dict) and "$exc" in value:
        return RuntimeError(value["$exc"])
    return value


def json_value(value: Any) -> Any:
    return encode_value(value)
