"""Temporary."""

from __future__ import annotations

from typing import Any

from flux.engine.values import decode_value, encode_value

OutputStorage = Any


async def keep(reference: str, value: Any, storage: Any) -> Any:
    return encode_value(value)


async def load(value: Any, storage: Any) -> Any:
    return decode_value(value)
