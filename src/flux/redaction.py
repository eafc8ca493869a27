"""Secrets that this process knows, kept out of everything that leaves it.

What is given out (a secret of a task, the key of a provider, a token, the password of a database) is told here,
and each sink asks here once before it shows or keeps a text. As long as nothing was told, a sink pays for one look
at an empty tuple. Where a value stands in a form that is usual for texts (JSON, a URL, base64) it is found too.
"""

from __future__ import annotations

import base64
import json
import re
import weakref
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, TypeVar, cast
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import msgspec
from msgspec import Struct

T = TypeVar("T")

#: Shorter ones are not looked for: too much would match.
SHORTEST = 6
REDACTED = "***"
#: Fields of our own structs that say what something is, never what was said: a log without them cannot be read.
NAMES = frozenset(
    [
        "id",
        "run",
        "call",
        "inputs",
        "message_id",
        "definition_digest",
        "digest",
        "args_digest",
        "agent",
        "tool",
        "name",
        "instance",
        "model",
        "within",
        "child",
        "on",
        "wire_id",
        "provider",
        "signature",
        "workflow",
        "elicitation_id",
        "artifact",
        "session",
        "key",
    ]
)


class Known:
    """The values that one owner has given out; they are hidden until it forgets them, or is gone."""

    def __init__(self) -> None:
        self.values: frozenset[str] = frozenset()
        _Hidden.owners.add(self)
        weakref.finalize(self, _look_for)

    def add(self, *values: str | None) -> None:
        """Hide these values from now on; those that are too short stay as they are."""
        new = frozenset(one.strip() for one in values if one and len(one.strip()) >= SHORTEST)
        if not new <= self.values:
            self.values |= new
            _look_for()

    def forget(self) -> None:
        """Hide them no longer."""
        self.values = frozenset()
        _look_for()


class _Hidden:
    """What is looked for, the longest first; in the bytes of JSON each text is written as there."""

    owners: ClassVar[weakref.WeakSet[Known]] = weakref.WeakSet()
    texts: tuple[str, ...] = ()
    raw: tuple[bytes, ...] = ()
    encoded: tuple[bytes, ...] = ()
    #: Finds where one of them may begin.
    begins = re.compile(r"(?!)")


def _look_for() -> None:
    """Look for what the owners know by now."""
    forms = {form for owner in _Hidden.owners for one in owner.values for form in _forms(one)}
    texts = tuple(sorted(forms, key=lambda form: (-len(form), form)))
    _Hidden.raw = tuple(text.encode(errors="surrogatepass") for text in texts)
    _Hidden.encoded = tuple(msgspec.json.encode(text)[1:-1] for text in texts if _is_text(text))
    starts = {f"{re.escape(text[:2])}|{re.escape(text[0])}\\Z" for text in texts}
    _Hidden.begins = re.compile("(?=" + ("|".join(sorted(starts)) or "(?!)") + ")")
    _Hidden.texts = texts


def _forms(value: str) -> Iterable[str]:
    """A value as it may stand in a text."""
    yield value
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    if _is_text(value):
        yield quote(value, safe="")
        yield quote(value)
        yield base64.b64encode(value.encode()).decode()


def _is_text(value: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in value)


def active() -> bool:
    """Whether there is anything to hide."""
    return bool(_Hidden.texts)


def text(said: str) -> str:
    """A text without the values that are known."""
    for one in _Hidden.texts:
        if one in said:
            said = said.replace(one, REDACTED)
    return said


def data(content: bytes) -> bytes:
    """Bytes without the values that are known."""
    for one in _Hidden.raw:
        if one in content:
            content = content.replace(one, REDACTED.encode())
    return content


def value(found: Any) -> Any:
    """A value of JSON with each text in it, keys too, as `text` leaves it."""
    if not _Hidden.texts:
        return found
    match found:
        case str():
            return text(found)
        case dict():
            return {value(key): value(item) for key, item in found.items()}
        case list():
            return [value(item) for item in found]
        case tuple():
            return tuple(value(item) for item in found)
    return found


def struct(said: T) -> T:
    """A struct of ours without the values that are known; the same one when it holds none."""
    if not _Hidden.texts:
        return said
    try:
        body = msgspec.json.encode(said)
    except UnicodeEncodeError:  # half of a surrogate pair, which whoever encodes it replaces
        return cast(T, _clean(said))
    return _clean(said) if holds(body) else said


def holds(body: bytes) -> bool:
    """Whether the bytes of JSON hold a value that is known."""
    return any(one in body for one in _Hidden.encoded)


def _clean(said: Any) -> Any:
    if isinstance(said, Struct):
        fields = ((name, getattr(said, name)) for name in said.__struct_fields__ if name not in NAMES)
        changed = {name: new for name, old in fields if (new := _clean(old)) is not old and not _closed(said, name)}
        return msgspec.structs.replace(said, **changed) if changed else said
    if isinstance(said, tuple | list):
        items = [_clean(item) for item in said]
        same = all(new is old for new, old in zip(items, said, strict=True))
        return said if same else type(said)(items)
    if isinstance(said, Mapping):
        return value(dict(said))
    return value(said)


def _closed(said: Struct, name: str) -> bool:
    """Whether a field takes one of a few words: that is no place for a secret."""
    return "Literal[" in str(_hints(type(said)).get(name))


def _hints(cls: type[Struct]) -> Mapping[str, Any]:
    found = _HINTS.get(cls)
    if found is None:
        found = _HINTS[cls] = {field.name: field.type for field in msgspec.structs.fields(cls)}
    return found


_HINTS: dict[type[Struct], Mapping[str, Any]] = {}


class Pieces:
    """A text that comes in pieces: what may be the beginning of a known value waits for the next piece."""

    def __init__(self) -> None:
        self._held = ""

    def add(self, piece: str) -> str:
        """What can be shown by now."""
        if not _Hidden.texts:
            held, self._held = self._held, ""
            return held + piece
        found = self._held + piece
        cut = _safe(found)
        self._held = found[cut:]
        return text(found[:cut])

    def rest(self) -> str:
        """What was held back: nothing follows it."""
        held, self._held = self._held, ""
        return text(held)


def _safe(found: str) -> int:
    """How much of a text no piece behind it can make a known value of, with every such value whole on one side."""
    hidden = _Hidden.texts
    first = max(0, len(found) - len(hidden[0]) + 1)
    places = (match.start() for match in _Hidden.begins.finditer(found, first))
    cut = next((at for at in places if _begins(found[at:], hidden)), len(found))
    if cut == len(found):
        return cut
    while (across := _across(found, cut, hidden)) is not None:
        cut = across
    return cut


def _begins(tail: str, hidden: tuple[str, ...]) -> bool:
    return any(len(one) > len(tail) and one.startswith(tail) for one in hidden)


def _across(found: str, cut: int, hidden: tuple[str, ...]) -> int | None:
    """Where a known value begins that goes on behind the cut."""
    starts = (found.find(one, max(0, cut - len(one) + 1), cut + len(one) - 1) for one in hidden)
    return min((at for at in starts if at != -1), default=None)


def passwords_of(url: str) -> list[str]:
    """The passwords in a connection string, as they are meant; none when the string is no URL."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return []
    named = [value for name, value in parse_qsl(parts.query) if name.lower().endswith("password")]
    return [*([unquote(parts.password)] if parts.password else []), *named]
