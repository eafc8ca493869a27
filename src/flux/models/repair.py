"""Tool arguments as models write them: read where an object can be made out, else declared invalid."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_FENCE = re.compile(r"^```\w*\s*(.*?)\s*```$", re.DOTALL)
_TOKEN = re.compile(
    r"""(?P<text>"(?:\\.|[^"\\])*" | '(?:\\.|[^'\\])*')
    | \b(?P<word>True|False|None)\b | (?P<comma>,)(?=\s*[}\]])""",
    re.DOTALL | re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(?:x|U)(?P<code>(?<=x)[0-9a-fA-F]{2}|[0-9a-fA-F]{8})|\\(?P<character>.)|\"", re.DOTALL)
_WORDS = {"True": "true", "False": "false", "None": "null"}

Arguments = tuple[dict[str, Any], str | None]


def arguments(raw: str | Mapping[str, Any] | None) -> Arguments:
    """The arguments, and None; or `{}` and the raw text when no object can be read from it.

    Repairs code fences, line breaks in strings, trailing commas, single quotes, Python literals and
    JSON inside a JSON string; never text that was cut off.
    """
    if isinstance(raw, Mapping):
        if raw.keys() != {"INVALID_JSON"}:
            return dict(raw), None
        raw = str(raw["INVALID_JSON"])
    text = (raw or "").strip()
    if not text:
        return {}, None
    if fenced := _FENCE.match(text):
        text = fenced[1]
    for candidate in (text, _TOKEN.sub(_to_json, text)):
        value = _loads(candidate)
        if isinstance(value, str):
            value = _loads(value)
        if isinstance(value, dict):
            return value, None
    return {}, raw


def complete(raw: str | Mapping[str, Any] | None) -> bool:
    """Whether the arguments are a whole object: what an output limit cut off must not run."""
    return isinstance(raw, Mapping) or isinstance(_loads(raw or ""), dict)


def _loads(text: str) -> Any:
    """The value, None when it is not JSON; line breaks in strings are let through, NaN is not."""
    try:
        return json.loads(text, strict=False, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _to_json(token: re.Match[str]) -> str:
    """One Python token as JSON."""
    if token["comma"]:
        return ""
    if token["word"]:
        return _WORDS[token["word"]]
    return f'"{_ESCAPE.sub(_escape, token[0][1:-1])}"'


def _escape(found: re.Match[str]) -> str:
    """A Python escape, or a quote that needs none in Python, as JSON has it."""
    if found["code"]:
        return json.dumps(chr(int(found["code"], 16)))[1:-1]
    if found["character"] == "'":
        return "'"
    return found[0] if found["character"] else '\\"'
