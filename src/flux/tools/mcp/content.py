"""What a server's tool returned, as text for a model."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Awaitable, Callable
from typing import Any

from flux.errors import TooLarge

Keep = Callable[[bytes, str], Awaitable[str]]


async def text_of(result: Any, keep: Keep) -> str:
    """The content of a CallToolResult: text as it is, other things named and kept, structure as JSON."""
    parts = [await _block(block, keep) for block in result.content]
    if result.structured_content is not None and not _told(parts, result.structured_content):
        parts.append(json.dumps(result.structured_content, ensure_ascii=False))
    return "\n".join(part for part in parts if part)


def _told(parts: list[str], structured: Any) -> bool:
    """Whether a text says the same as the structure, or as the one value in it, as servers do for old clients."""
    value = structured.get("result") if isinstance(structured, dict) and len(structured) == 1 else structured
    for part in parts:
        if part == value:
            return True
        try:
            if json.loads(part) in (structured, value):
                return True
        except (ValueError, RecursionError):
            continue
    return False


async def _block(block: Any, keep: Keep) -> str:
    match block.type:
        case "text":
            return str(block.text)
        case "image" | "audio":
            return await _kept(block.type, block.data, block.mime_type, keep)
        case "resource_link":
            about = f" ({block.mime_type})" if block.mime_type else ""
            return f"[resource {block.name}{about}: {block.uri}]" + (
                f" {block.description}" if block.description else ""
            )
        case "resource":
            resource = block.resource
            if hasattr(resource, "text"):
                return f"[resource {resource.uri}]\n{resource.text}"
            return await _kept(f"resource {resource.uri}", resource.blob, resource.mime_type, keep)
    return f"[content of type {block.type}, which cannot be shown]"


async def _kept(what: str, data: str, media_type: str | None, keep: Keep) -> str:
    media_type = media_type or "application/octet-stream"
    try:
        content = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        return f"[{what} of type {media_type} that cannot be read: it is not base64]"
    about = f"{what}, {media_type}, {len(content):,} bytes"
    try:
        return f"[{about}: {await keep(content, media_type)}]"
    except (OSError, TooLarge) as error:
        return f"[{about}; it is not kept: {error}]"
