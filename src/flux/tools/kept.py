"""Results that are too long to show: their head and tail, and where the whole is kept."""

from __future__ import annotations

from flux.errors import TooLarge
from flux.tools.base import ToolContext
from flux.tools.text import clip


async def cut(text: str, max_chars: int, context: ToolContext) -> str:
    """The text, or its head and tail and the address of the whole; about `max_chars` at most."""
    if len(text) <= max_chars:
        return text
    note = await kept(text, context)
    return clip(text, max(max_chars - len(note), 0)) + note


async def kept(text: str, context: ToolContext) -> str:
    """Keep a text as an artifact, and say how to read it; what says why it is not kept where that is so."""
    try:
        address = await context.keep(text.encode("utf-8", "replace"), "text/plain")
    except OSError:
        return ""
    except TooLarge as error:
        return f"\n[the whole is not kept: {error}]"
    # Who has no such tool gets one from the next call on.
    return f'\n[the whole is kept; read on with read_file("{address}")]'
