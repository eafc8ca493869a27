"""Objects among recorded values: Enums, dataclasses, named tuples, Pydantic models and exceptions."""

from __future__ import annotations

import builtins
import dataclasses
import sys
import traceback
from collections.abc import Callable, Mapping
from enum import Enum, Flag
from typing import Any

from flux.engine.encoding.classes import (
    class_name,
    find_class,
    is_enum,
    is_exception,
    is_model,
    is_nameable,
    is_named_tuple,
    is_record,
    is_url,
)
from flux.errors import UnknownException, ValueNotStorable

Inner = Callable[[Any], Any]
Fields = dict[str, Any]

MISSING = dataclasses.MISSING


def encode(value: Any, inner: Inner) -> tuple[str, Fields] | None:
    """The kind and the fields of an object's envelope; None when it is no such object."""
    cls = type(value)
    if isinstance(value, BaseException):
        return "exception", _exception(value, inner)
    if not is_nameable(cls):
        return None
    if isinstance(value, Enum):
        return "enum", {"class": class_name(cls), "name": value.name, "value": inner(value._value_)}
    if is_record(cls):
        return "dataclass", {"class": class_name(cls), "value": _record(value, inner)}
    if is_named_tuple(cls):
        return "namedtuple", {"class": class_name(cls), "value": _pairs(zip(cls._fields, value, strict=True), inner)}
    if is_model(cls):
        return "model", {"class": class_name(cls), **_model(value, inner)}
    if is_url(cls):
        return "url", {"class": class_name(cls), "value": str(value)}
    return None


def decode(envelope: Fields, kind: str, inner: Inner) -> Any:
    """The object again, or what stands for it where its class is not known."""
    return DECODERS[kind](envelope, inner)


def readable(envelope: Fields, kind: str, plain: Inner) -> Any:
    """Plain JSON of an object: its fields, an Enum's value, an exception's type and text."""
    if kind == "exception":
        return {"type": _short(envelope["class"]), "message": plain(envelope["text"])}
    if kind in ("enum", "url"):
        return plain(envelope["value"])
    return {name: plain(item) for name, item in (envelope["value"] | envelope.get("extra", {})).items()}


# --- encoding


def _record(value: Any, inner: Inner) -> Fields:
    given = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value) if _is_set(value, field))
    return _pairs(given, inner)


def _is_set(value: Any, field: dataclasses.Field[Any]) -> bool:
    return hasattr(value, field.name)  # a field without default and init may never have been given one


def _model(value: Any, inner: Inner) -> Fields:
    """Private attributes are not kept: they begin anew, as in Pydantic's own JSON."""
    names = type(value).__pydantic_fields__
    told: Fields = {"value": _pairs(((k, v) for k, v in value.__dict__.items() if k in names), inner)}
    told["set"] = sorted(value.__pydantic_fields_set__)
    if value.__pydantic_extra__:
        told["extra"] = _pairs(value.__pydantic_extra__.items(), inner)
    return told


def _pairs(items: Any, inner: Inner) -> Fields:
    return {name: inner(item) for name, item in items}


def _exception(error: BaseException, inner: Inner) -> Fields:
    """An exception is always kept: what of it has no form is told as text, or left out."""
    told: Fields = {"class": class_name(type(error)), "text": inner(_text(error))}
    args = OSError.__reduce__(error)[1] if isinstance(error, OSError) else error.args  # with its file names
    told["args"] = [_try(arg, inner, object.__repr__) for arg in args]
    kept = ((name, _try(item, inner, lambda _: MISSING)) for name, item in vars(error).items())
    told["state"] = {name: item for name, item in kept if item is not MISSING}
    if error.__cause__ is not None:
        told["cause"] = _try(error.__cause__, inner, lambda _: None)
    return told


def _text(error: BaseException) -> str:
    if type(error).__module__ == builtins.__name__:
        return str(error)
    line = traceback.format_exception_only(error)[0]  # bears a __str__ that fails
    return line.rstrip("\n").partition(": ")[2]


def _try(value: Any, inner: Inner, instead: Inner) -> Any:
    try:
        return inner(value)
    except ValueNotStorable:
        return instead(value)


# --- decoding


def _to_enum(envelope: Fields, inner: Inner) -> Any:
    cls = find_class(envelope["class"], is_enum)
    value = inner(envelope["value"])
    if cls is None:
        return value
    member = cls.__members__.get(envelope["name"])  # type: ignore[attr-defined]
    if member is None and issubclass(cls, Flag):
        return cls(value)
    return value if member is None else member


def _to_record(envelope: Fields, inner: Inner) -> Any:
    given = _decoded(envelope["value"], inner)
    cls = find_class(envelope["class"], is_record)
    if cls is None:
        return given
    made: Any = object.__new__(cls)
    for field in dataclasses.fields(made):
        if field.name in given:
            object.__setattr__(made, field.name, given[field.name])
        elif field.default_factory is not MISSING:  # the class has more fields by now
            object.__setattr__(made, field.name, field.default_factory())
        elif field.default is not MISSING:
            object.__setattr__(made, field.name, field.default)
    return made


def _to_named_tuple(envelope: Fields, inner: Inner) -> Any:
    given = _decoded(envelope["value"], inner)
    cls = find_class(envelope["class"], is_named_tuple)
    if cls is None or set(cls._fields) != set(given):  # type: ignore[attr-defined]
        return given
    return tuple.__new__(cls, [given[name] for name in cls._fields])  # type: ignore[attr-defined]


def _to_model(envelope: Fields, inner: Inner) -> Any:
    given, extra = _decoded(envelope["value"], inner), _decoded(envelope.get("extra", {}), inner)
    cls: Any = find_class(envelope["class"], is_model)
    if cls is None:
        return given | extra
    for name, field in cls.__pydantic_fields__.items():
        if name not in given and not field.is_required():  # the class has more fields by now
            given[name] = field.get_default(call_default_factory=True, validated_data=given)
    private = {name: item.get_default() for name, item in cls.__private_attributes__.items()}
    state = {
        "__dict__": given,
        "__pydantic_fields_set__": set(envelope["set"]),
        "__pydantic_extra__": extra if cls.model_config.get("extra") == "allow" else None,
        "__pydantic_private__": private or None,
    }
    made = cls.__new__(cls)
    sys.modules["pydantic"].BaseModel.__setstate__(made, state)
    return made


def _to_url(envelope: Fields, inner: Inner) -> Any:
    cls = find_class(envelope["class"], is_url)
    return envelope["value"] if cls is None else cls(envelope["value"])


def _to_exception(envelope: Fields, inner: Inner) -> BaseException:
    args = [inner(arg) for arg in envelope["args"]]
    cls = find_class(envelope["class"], is_exception)
    made = _rebuilt(cls, args) if cls else None
    if made is None:
        made = UnknownException(f"{_short(envelope['class'])}: {inner(envelope['text'])}")
    else:
        vars(made).update(_decoded(envelope["state"], inner))
    if envelope.get("cause") is not None:
        made.__cause__ = inner(envelope["cause"])
    return made


def _rebuilt(cls: type[BaseException], args: list[Any]) -> BaseException | None:
    """The exception by the constructor of its nearest built-in class; its own may want other arguments."""
    base: Any = next(parent for parent in cls.__mro__ if parent.__module__ == builtins.__name__)
    try:
        made: BaseException = base.__new__(cls, *args)
        base.__init__(made, *args)
    except (TypeError, ValueError):  # as text stands where an argument could not be kept
        return None
    if not isinstance(made, OSError):  # which keeps its file names apart
        made.args = tuple(args)
    return made


def _decoded(fields: Mapping[str, Any], inner: Inner) -> Fields:
    return {name: inner(item) for name, item in fields.items()}


def _short(name: str) -> str:
    module, _, qualname = name.partition(":")
    return qualname if module == "builtins" else f"{module}.{qualname}"


DECODERS: dict[str, Callable[[Fields, Inner], Any]] = {
    "exception": _to_exception,
    "enum": _to_enum,
    "dataclass": _to_record,
    "namedtuple": _to_named_tuple,
    "model": _to_model,
    "url": _to_url,
}

KINDS = frozenset(DECODERS)
