"""Text for a model to read: cut where it is too long, and never anything that cannot be encoded."""

from __future__ import annotations

import codecs
from collections.abc import Callable

__all__ = ["MAX_LINE", "MAX_RESULT", "Tap", "clip", "is_binary", "is_utf16", "lines_of", "printable", "shorten"]

MAX_LINE = 2_000
"""Characters of one line that are shown."""

MAX_RESULT = 100_000
"""Characters of a tool's result, and of what it streams, where nothing else is set."""


def clip(text: str, max_chars: int) -> str:
    """The text, or its head and tail with a note between them; at most `max_chars` or the note's length."""
    if len(text) <= max_chars:
        return text
    room = max(max_chars - len(_note(len(text))), 0)
    tail = room // 2
    head = room - tail
    return text[:head] + _note(len(text) - room) + text[len(text) - tail :]


def _note(count: int) -> str:
    return f"\n[... {count} characters left out ...]\n"


class Tap:
    """Passes text on to `output`: its first `limit` characters, then one note that the rest is not shown."""

    def __init__(self, output: Callable[[str], None], limit: int = MAX_RESULT) -> None:
        self._output = output
        self._room = limit
        self._closed = False

    def __call__(self, text: str) -> None:
        """Pass a piece on, as far as there is room."""
        if self._closed or not text:
            return
        if len(text) <= self._room:
            self._room -= len(text)
            self._output(text)
            return
        self._closed = True
        self._output(f"{text[: self._room]}\n[... what follows is not shown live ...]\n")


def shorten(line: str, max_chars: int = MAX_LINE) -> str:
    """A line, cut with a note when it is longer than `max_chars`."""
    if len(line) <= max_chars:
        return line
    return f"{line[:max_chars]} [... {len(line) - max_chars} more characters in this line]"


def printable(name: str) -> str:
    """A file name on one line; bytes that are no UTF-8 and control characters are shown escaped."""
    encodable = name.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in encodable)


def lines_of(data: bytes) -> list[str]:
    """The lines of a text file without their ends; bytes that are no text are replaced."""
    text = data.decode("utf-16" if is_utf16(data) else "utf-8-sig", "replace")
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def is_binary(data: bytes) -> bool:
    """Whether this is no text: there is a NUL in the first 64 KiB."""
    return b"\0" in data[:65536] and not is_utf16(data)


def is_utf16(data: bytes) -> bool:
    """Whether the file says so in its first two bytes."""
    return data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
