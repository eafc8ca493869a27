"""Text of models and tools, made harmless and short enough for a terminal."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from rich.cells import cell_len, set_cell_size

from flux.surfaces.visible import visible

#: What programs send to terminals: CSI, strings such as OSC, and short escapes.
_SEQUENCE = re.compile(r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]")
_OVERWRITTEN = re.compile(r"[^\n]*\r(?=[^\r\n])")

LONGEST_VALUE = 2_000


def printed(text: str) -> str:
    """What a program's output looks like when it has been printed: no colours, no overwritten line starts."""
    return visible(_OVERWRITTEN.sub("", _SEQUENCE.sub("", text)))


def first_line(text: str) -> str:
    """The first line that is not empty."""
    return next((line.strip() for line in printed(text).splitlines() if line.strip()), "")


def shorten(text: str, width: int) -> str:
    """The text in at most `width` cells, cut with an ellipsis."""
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, max(0, width - 1)).rstrip() + "…"


def call_text(name: str, args: Mapping[str, Any], width: int = 0) -> str:
    """`name(arg=value, …)`; with a width, values are cut until it fits."""
    name = visible(name)
    values = {visible(key): _value(value) for key, value in args.items()}
    if width and values:
        room = width - cell_len(name) - 2
        each = max(12, (room + 2) // len(values) - max(map(cell_len, values)) - 3)
        if cell_len(_joined(values)) > room:
            values = {key: shorten(value, each) for key, value in values.items()}
        return f"{name}({shorten(_joined(values), max(1, room))})"
    return f"{name}({_joined(values)})"


def value_lines(value: Any) -> str:
    """A value in full, for people who must decide about it."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2, default=str)
    return visible(text)


def _joined(values: Mapping[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in values.items())


def _value(value: Any) -> str:
    if isinstance(value, str):
        value = value[:LONGEST_VALUE]
    return visible(json.dumps(value, ensure_ascii=False, default=str)[: LONGEST_VALUE + 2])
