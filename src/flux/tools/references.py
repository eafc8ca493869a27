"""References: values that stay outside the prompt. The model sees a handle and a glimpse; tools get the value."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Literal, cast, get_args

import msgspec
from msgspec import Struct
from pydantic_core import core_schema

from flux.errors import InvalidInput
from flux.tools.base import Done, ToolContext

Kind = Literal["json", "text", "bytes", "table"]
#: How the media types of references begin: artifacts that file tools do not read.
SECLUDED = "application/vnd.flux.ref-"
MEDIA_TYPES: Mapping[Kind, str] = {kind: f"{SECLUDED}{kind}" for kind in get_args(Kind)}
KINDS: Mapping[str, Kind] = {media_type: kind for kind, media_type in MEDIA_TYPES.items()}
HANDLE = re.compile(r"ref:(json|text|bytes|table):([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")
#: How an argument that takes a reference is marked in the schema of a tool.
FORMAT = "flux-ref"

#: What a glimpse shows: rows, lines or items, columns, and characters of one cell and of all.
ROWS = 5
COLUMNS = 50
CELL = 80
PREVIEW = 400
MOST_ROWS = 100
MOST_CHARS = 8_000


class Ref(Struct, frozen=True):
    """A value that a model does not read. A tool returns one, or takes one as an argument.

    `kind` says what `value` is: "json" anything that JSON holds, "text", "bytes", or "table": a list of mappings, or
    `{"columns": […], "rows": [[…], …]}`. `handle` is what the model calls it; None until it is kept.
    """

    kind: Kind
    value: Any
    handle: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise InvalidInput(f"Ref: kind must be one of {', '.join(get_args(Kind))}, not {self.kind!r:.40}")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> core_schema.CoreSchema:
        """As an argument it is a handle, whose value was loaded before."""
        return core_schema.no_info_plain_validator_function(_found)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:
        """What a model is shown."""
        return {"type": "string", "format": FORMAT, "description": "The handle of a reference, such as ref:table:…"}


class ReferenceMissing(LookupError):
    """There is no such reference in this session."""


_loaded: ContextVar[Mapping[str, Ref]] = ContextVar("flux_references", default={})  # noqa: B039 - nobody adds to it


def _found(given: Any) -> Ref:
    found = given if isinstance(given, Ref) else _loaded.get().get(str(given))
    if found is None:
        raise ValueError(f"there is no reference {str(given)[:80]!r} in this session")
    return found


@contextlib.contextmanager
def with_references(found: Mapping[str, Ref]) -> Iterator[None]:
    """While arguments are made of handles."""
    token = _loaded.set(found)
    try:
        yield
    finally:
        _loaded.reset(token)


class _AnyHandle(dict[str, Ref]):
    """Takes every handle for one that exists, for who has only to know that it is one."""

    def get(self, handle: str, default: Any = None) -> Any:
        """A reference without its value."""
        match = HANDLE.fullmatch(handle)
        return Ref(cast(Kind, match[1]), None, handle) if match else default


def unlooked() -> contextlib.AbstractContextManager[None]:
    """While values that may hold handles are checked before anybody needs what is behind them."""
    return with_references(_AnyHandle())


def as_handles(parameters: Mapping[str, Any], args: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments, in which what a tool has told of a reference is its handle wherever one is taken."""
    properties = parameters.get("properties", {})
    return {name: _handle(value) if _takes(properties, name) else value for name, value in args.items()}


def _handle(value: Any) -> Any:
    if isinstance(value, list):
        return [_handle(one) for one in value]
    told = value.get("ref") if isinstance(value, Mapping) else None
    return told if isinstance(told, str) and HANDLE.fullmatch(told) else value


def _takes(properties: Mapping[str, Any], name: str) -> bool:
    return FORMAT in json.dumps(properties.get(name, {}))


async def loaded(parameters: Mapping[str, Any], args: Mapping[str, Any], context: ToolContext) -> dict[str, Ref]:
    """The references that arguments name, by their handles.

    :raises ReferenceMissing: there is no such reference in this session
    """
    properties = parameters.get("properties", {})
    marked = [value for name, value in args.items() if _takes(properties, name)]
    return {handle: await load(handle, context) for handle in _handles(marked)}


async def load(handle: str, context: ToolContext) -> Ref:
    """A reference of this session, or of one that belongs to it.

    :raises ReferenceMissing: there is no such reference
    """
    match = HANDLE.fullmatch(handle)
    missing = ReferenceMissing(f"there is no reference {handle[:80]!r} in this session")
    if match is None:
        raise missing
    try:
        media_type, data = await context.recall(match[2])
    except FileNotFoundError:
        raise missing from None
    kind = KINDS.get(media_type)
    if kind is None or kind != match[1]:
        raise missing
    return Ref(kind, decoded(kind, data), handle)


async def kept(ref: Ref, context: ToolContext) -> Done:
    """Keep the value of a reference that a tool returns; what the model reads of it.

    :raises InvalidInput: the value is not of its kind
    """
    if ref.handle is not None:
        return Done(shown(ref, ref.handle, len(encoded(ref))))
    data = encoded(ref)
    address = await context.keep(data, MEDIA_TYPES[ref.kind])
    handle = f"ref:{ref.kind}:{address.rpartition('/')[2]}"
    return Done(shown(ref, handle, len(data)))


def encoded(ref: Ref) -> bytes:
    """The bytes of a value.

    :raises InvalidInput: it is not of its kind
    """
    value = ref.value
    if ref.kind == "text" and isinstance(value, str):
        return value.encode()
    if ref.kind == "bytes" and isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if ref.kind == "json":
        return msgspec.json.encode(value, enc_hook=str)
    if ref.kind == "table":
        return msgspec.json.encode(_table(value), enc_hook=str)
    raise InvalidInput(f"Ref: the value of a {ref.kind} cannot be {type(value).__name__}")


def decoded(kind: Kind, data: bytes) -> Any:
    """The value of bytes."""
    if kind == "bytes":
        return data
    return data.decode() if kind == "text" else msgspec.json.decode(data)


def shown(ref: Ref, handle: str, size: int) -> str:
    """A handle with a glimpse, as a model reads it."""
    kind = ref.kind
    value = _table(ref.value) if kind == "table" else ref.value
    return _json({"ref": handle, "kind": kind, "size_bytes": size, **_glimpse(kind, value)})


def part(ref: Ref, start: int, count: int, columns: Sequence[str], path: str) -> str:
    """More of a value: rows, lines, items or bytes from `start` on, of what is at `path` in a JSON; up to a cap.

    :raises LookupError: it has no such path or column
    """
    count = max(1, min(count, MOST_ROWS))
    if ref.kind == "table":
        return _capped(_rows(_table(ref.value), start, count, columns))
    if ref.kind == "text":
        lines = str(ref.value).split("\n")
        return _capped({"lines": len(lines), "start": start, "text": "\n".join(lines[start : start + count])})
    if ref.kind == "bytes":
        piece = ref.value[start : start + count * 16]
        return _capped({"size_bytes": len(ref.value), "start": start, "hex": piece.hex(" ")})
    value = _at(ref.value, path)
    if isinstance(value, list):
        return _capped({"items": len(value), "start": start, "value": value[start : start + count]})
    if isinstance(value, dict):
        keys = list(value)[start : start + count]
        return _capped({"keys": len(value), "start": start, "value": {key: value[key] for key in keys}})
    return _capped({"value": value})


def _glimpse(kind: Kind, value: Any) -> dict[str, Any]:
    if kind == "table":
        return {"rows": len(value["rows"]), **_rows(value, 0, ROWS, ())}
    if kind == "text":
        lines = value.split("\n")
        first = [_cut(line) for line in lines[:ROWS]]
        return {"characters": len(value), "lines": len(lines), "first": first}
    if kind == "bytes":
        return {"first": bytes(value[:32]).hex(" ")}
    shape: dict[str, Any] = {"type": type(value).__name__}
    if isinstance(value, dict):
        shape = {"type": "object", "keys": [_cut(str(key)) for key in list(value)[:COLUMNS]]}
    elif isinstance(value, list):
        shape = {"type": "array", "items": len(value)}
    return {**shape, "preview": _json(value)[:PREVIEW]}


def _rows(table: Mapping[str, Any], start: int, count: int, wanted: Sequence[str]) -> dict[str, Any]:
    names = [str(name) for name in table["columns"]]
    for name in wanted:
        if name not in names:
            raise LookupError(f"the table has no column {name[:80]!r}; it has {', '.join(names[:COLUMNS])}")
    places = [names.index(name) for name in wanted] or list(range(len(names)))[:COLUMNS]
    rows = table["rows"][start : start + count]
    shown = [[_cell(row[n]) if n < len(row) else None for n in places] for row in rows]
    return {"columns": [names[n] for n in places], "all_columns": len(names), "start": start, "first": shown}


def _table(value: Any) -> dict[str, Any]:
    """A table in its one form.

    :raises InvalidInput: it is none
    """
    if (
        isinstance(value, Mapping)
        and isinstance(value.get("columns"), Sequence)
        and isinstance(value.get("rows"), list)
    ):
        return {"columns": [str(name) for name in value["columns"]], "rows": [list(row) for row in value["rows"]]}
    if hasattr(value, "to_dict") and hasattr(value, "columns"):  # of pandas, without knowing it
        value = value.to_dict(orient="records")
    if isinstance(value, list) and all(isinstance(row, Mapping) for row in value):
        names = list(dict.fromkeys(str(key) for row in value for key in row))
        return {"columns": names, "rows": [[row.get(name) for name in names] for row in value]}
    raise InvalidInput("Ref: a table is a list of mappings, or {'columns': […], 'rows': [[…], …]}")


def _at(value: Any, path: str) -> Any:
    for step in [step for step in path.split(".") if step]:
        try:
            value = value[int(step)] if isinstance(value, list) else value[step]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise LookupError(f"the value has no {path[:80]!r}") from error
    return value


def _handles(values: Any) -> Iterator[str]:
    if isinstance(values, str):
        yield values
    elif isinstance(values, Mapping):
        yield from _handles(list(values.values()))
    elif isinstance(values, list):
        for one in values:
            yield from _handles(one)


def _cell(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float) else _cut(str(value))


def _cut(text: str) -> str:
    return text if len(text) <= CELL else text[:CELL] + "…"


def _json(value: Any) -> str:
    return msgspec.json.encode(value, enc_hook=str).decode()


def _capped(value: Any) -> str:
    text = _json(value)
    return text if len(text) <= MOST_CHARS else text[:MOST_CHARS] + f" … [cut: {len(text):,} characters; ask for less]"
