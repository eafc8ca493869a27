"""Values as they are kept in the log: JSON, with an envelope for what JSON has not.

An envelope is an object with the key `$flux`, which says the kind, for example
`{"$flux": "datetime", "value": "2026-01-31T09:00:00"}`. An object of a user that has this key is kept in an
envelope itself, so nothing from outside is taken for one.

A value is read as a copy. Classes are kept by name: only an Enum, dataclass, named tuple, Pydantic model or
exception is ever made again, from its fields and without running its constructor; where its class is not known,
plain data or an `UnknownException` stands for it.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from types import NoneType
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from flux.engine.encoding import arrays, objects
from flux.errors import FluxError, MissingPackage, ValueNotStorable

MARK = "$flux"
#: Deeper values are refused: not every reader of JSON could read them.
MAX_DEPTH = 100
#: Exceptions refer to each other in more than one way: a long chain of them is cut early.
EXCEPTION_DEPTH = 15
#: What every reader of JSON takes for the same number.
INTEGERS = range(-(2**63), 2**64)

Other = Callable[[Any], Any]


def encode_value(value: Any) -> Any:
    """A JSON-safe value that `decode_value` makes the value of again.

    :raises ValueNotStorable: something in it has no such form; the text names its type and the remedy
    """
    return _encode(value, 0, _refuse)


def decode_value(value: Any) -> Any:
    """The inverse of `encode_value`. Takes only what that made: data from outside is encoded first.

    :raises MissingPackage: it holds an array or a table, and numpy or pandas is not installed
    """
    kind = type(value)
    if kind is list:
        return [decode_value(item) for item in value]
    if kind is dict:
        if MARK in value:
            return _open(value)
        return {key: decode_value(item) for key, item in value.items()}
    return value


def json_value(value: Any) -> Any:
    """Plain JSON for people and programs that know no envelopes: a date is ISO text, a duration its seconds,
    an object its fields. What has no JSON form at all is text.

    :raises ValueNotStorable: it is nested too deep, or inside itself
    """
    return readable(_encode(value, 0, str))


def readable(encoded: Any) -> Any:
    """The same as `json_value`, of a value that is encoded already; no class of it need be known here."""
    kind = type(encoded)
    if kind is list:
        return [readable(item) for item in encoded]
    if kind is dict:
        if MARK in encoded:
            return _plain(encoded)
        return {key: readable(item) for key, item in encoded.items()}
    return encoded


def kept_elsewhere(reference: dict[str, Any]) -> dict[str, Any]:
    """The envelope of a value that an output storage keeps; `reference_of` reads it."""
    return _wrap("stored", encode_value(reference))


def reference_of(encoded: Any) -> dict[str, Any] | None:
    """The reference to a value that is kept elsewhere, None for any other value."""
    if type(encoded) is dict and encoded.get(MARK) == "stored":
        return dict(decode_value(encoded["value"]))
    return None


# --- encoding


def _encode(value: Any, depth: int, other: Other) -> Any:
    encoder = ENCODERS.get(type(value))
    if depth > MAX_DEPTH:
        raise ValueNotStorable(f"a value nested more than {MAX_DEPTH} deep, or inside itself, cannot be kept")
    if encoder is not None:
        return encoder(value, depth, other)

    below = depth + (EXCEPTION_DEPTH if isinstance(value, BaseException) else 1)

    def inner(item: Any) -> Any:
        return _encode(item, below, other)

    for encode in (objects.encode, arrays.encode):
        found = encode(value, inner)
        if found is not None:
            kind, fields = found
            return {MARK: kind, **fields}
    return other(value)


def _refuse(value: Any) -> Any:
    raise ValueNotStorable(not_storable(value))


def not_storable(value: Any) -> str:
    """Why a value is refused, and what to do."""
    cls = type(value)
    return (
        f"a value of type {cls.__module__}.{cls.__qualname__} cannot be kept as JSON: return plain data "
        "(a dict, list, dataclass or Pydantic model, defined at the top of a module), or give the task an "
        "output_storage= that can keep it, such as LocalFileStorage(serializer='pickle')"
    )


def _same(value: Any, depth: int, other: Other) -> Any:
    return value


def _str(value: str, depth: int, other: Other) -> Any:
    if value.isascii() or _is_unicode(value):
        return value
    return _wrap("str", _base64(value.encode("utf-16-le", "surrogatepass")))


def _is_unicode(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _int(value: int, depth: int, other: Other) -> Any:
    return value if value in INTEGERS else _wrap("int", hex(value))


def _float(value: float, depth: int, other: Other) -> Any:
    return value if math.isfinite(value) else _wrap("float", repr(value))


def _list(value: list[Any], depth: int, other: Other) -> Any:
    return [_encode(item, depth + 1, other) for item in value]


def _dict(value: dict[Any, Any], depth: int, other: Other) -> Any:
    if MARK not in value and all(type(key) is str and (key.isascii() or _is_unicode(key)) for key in value):
        return {key: _encode(item, depth + 1, other) for key, item in value.items()}
    pairs = [[_encode(key, depth + 1, other), _encode(item, depth + 1, other)] for key, item in value.items()]
    return _wrap("dict", pairs)


def _tuple(value: tuple[Any, ...], depth: int, other: Other) -> Any:
    return _wrap("tuple", [_encode(item, depth + 1, other) for item in value])


def _set(value: Iterable[Any], depth: int, other: Other) -> Any:
    items = [_encode(item, depth + 1, other) for item in value]
    items.sort(key=msgspec.json.encode)  # equal sets have equal texts, in every process
    return _wrap(type(value).__name__, items)


def _bytes(value: bytes | bytearray, depth: int, other: Other) -> Any:
    return _wrap(type(value).__name__, _base64(value))


def _datetime(value: datetime | time, depth: int, other: Other) -> Any:
    zone = value.tzinfo
    extra = {"zone": zone.key} if isinstance(zone, ZoneInfo) and zone.key else {}
    fold = {"fold": 1} if value.fold else {}
    return _wrap(type(value).__name__, value.isoformat()) | extra | fold


def _date(value: date, depth: int, other: Other) -> Any:
    return _wrap("date", value.isoformat())


def _timedelta(value: timedelta, depth: int, other: Other) -> Any:
    return _wrap("timedelta", [value.days, value.seconds, value.microseconds])


def _text(value: Decimal | UUID, depth: int, other: Other) -> Any:
    return _wrap(type(value).__name__, str(value))


def _wrap(kind: str, value: Any) -> dict[str, Any]:
    return {MARK: kind, "value": value}


def _base64(value: bytes | bytearray) -> str:
    return base64.b64encode(value).decode()


ENCODERS: dict[type, Callable[[Any, int, Other], Any]] = {
    NoneType: _same,
    bool: _same,
    str: _str,
    int: _int,
    float: _float,
    list: _list,
    dict: _dict,
    tuple: _tuple,
    set: _set,
    frozenset: _set,
    bytes: _bytes,
    bytearray: _bytes,
    datetime: _datetime,
    time: _datetime,
    date: _date,
    timedelta: _timedelta,
    Decimal: _text,
    UUID: _text,
}


# --- decoding


def _open(envelope: dict[str, Any]) -> Any:
    kind = envelope[MARK]
    if decoder := DECODERS.get(kind):
        return decoder(envelope)
    if kind in objects.KINDS:
        return objects.decode(envelope, kind, decode_value)
    if kind in arrays.KINDS:
        return arrays.decode(envelope, kind, decode_value)
    raise FluxError(f"the kept value is of kind {kind!r}, which this version of Flux cannot read")


def _moment(cls: type[datetime] | type[time]) -> Callable[[dict[str, Any]], Any]:
    def decode(envelope: dict[str, Any]) -> datetime | time:
        found = cls.fromisoformat(envelope["value"])
        try:
            zone = ZoneInfo(envelope["zone"]) if "zone" in envelope else found.tzinfo
        except ZoneInfoNotFoundError:
            zone = found.tzinfo
        return found.replace(tzinfo=zone, fold=envelope.get("fold", 0))

    return decode


def _items(envelope: dict[str, Any]) -> list[Any]:
    return [decode_value(item) for item in envelope["value"]]


def _from_base64(envelope: dict[str, Any]) -> bytes:
    return base64.b64decode(envelope["value"])


DECODERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "str": lambda e: _from_base64(e).decode("utf-16-le", "surrogatepass"),
    "int": lambda e: int(e["value"], 16),
    "float": lambda e: float(e["value"]),
    "dict": lambda e: {decode_value(key): decode_value(item) for key, item in e["value"]},
    "tuple": lambda e: tuple(_items(e)),
    "set": lambda e: set(_items(e)),
    "frozenset": lambda e: frozenset(_items(e)),
    "bytes": _from_base64,
    "bytearray": lambda e: bytearray(_from_base64(e)),
    "datetime": _moment(datetime),
    "time": _moment(time),
    "date": lambda e: date.fromisoformat(e["value"]),
    "timedelta": lambda e: timedelta(*e["value"]),
    "Decimal": lambda e: Decimal(e["value"]),
    "UUID": lambda e: UUID(e["value"]),
    "stored": lambda e: decode_value(e["value"]),
}


# --- for people


def _plain(envelope: dict[str, Any]) -> Any:
    kind = envelope[MARK]
    if shower := READABLE.get(kind):
        return shower(envelope)
    if kind in objects.KINDS:
        return objects.readable(envelope, kind, readable)
    if kind in arrays.KINDS:
        return _plain_table(envelope, kind)
    return readable(envelope["value"])


def _plain_table(envelope: dict[str, Any], kind: str) -> Any:
    try:
        found = arrays.decode(envelope, kind, decode_value)
    except MissingPackage:
        return f"<{kind}>"
    return json_value(arrays.rows(found))


def _plain_dict(envelope: dict[str, Any]) -> Any:
    return {_key(readable(key)): readable(item) for key, item in envelope["value"]}


def _key(key: Any) -> str:
    return key if isinstance(key, str) else msgspec.json.encode(key).decode()


READABLE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "str": lambda e: _from_base64(e).decode("utf-16-le", "replace"),
    "int": lambda e: str(int(e["value"], 16)) if len(e["value"]) < 1000 else e["value"],
    "float": lambda e: None,
    "dict": _plain_dict,
    "timedelta": lambda e: timedelta(*e["value"]).total_seconds(),
}
