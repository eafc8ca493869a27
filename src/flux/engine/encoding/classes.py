"""Classes of recorded values: named when a value is kept, found again when it is read."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import is_dataclass
from enum import Enum
from typing import Any

#: Finds a class by module and qualified name before anybody else does; None: look where Python keeps its modules.
#: Whoever runs code from a source that is no importable module sets it.
class_lookup: ContextVar[Callable[[str, str], type | None] | None] = ContextVar("class_lookup", default=None)


def class_name(cls: type) -> str:
    """The name under which `find_class` finds it: module:qualname."""
    return f"{cls.__module__}:{cls.__qualname__}"


def is_nameable(cls: type) -> bool:
    """Whether a class can be found by its name: one made inside a function cannot."""
    return "<locals>" not in cls.__qualname__


def find_class(name: str, allowed: Callable[[type], bool]) -> type | None:
    """The class of that name if there is one here and it is `allowed`, else None."""
    module, _, qualname = name.partition(":")
    lookup = class_lookup.get()
    found: Any = (lookup(module, qualname) if lookup else None) or _look(module, qualname)
    return found if isinstance(found, type) and allowed(found) else None


def _look(module: str, qualname: str) -> Any:
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = vars(found).get(part) if hasattr(found, "__dict__") else None
    return found


def is_enum(cls: type) -> bool:
    """Whether it is an Enum."""
    return issubclass(cls, Enum)


def is_exception(cls: type) -> bool:
    """Whether it is an exception."""
    return issubclass(cls, BaseException)


def is_record(cls: type) -> bool:
    """Whether it is a dataclass whose fields are all there is to it."""
    return is_dataclass(cls) and cls.__new__ is object.__new__


def is_named_tuple(cls: type) -> bool:
    """Whether it is a named tuple."""
    return issubclass(cls, tuple) and isinstance(getattr(cls, "_fields", None), tuple)


def is_model(cls: type) -> bool:
    """Whether it is a Pydantic model; Pydantic is not imported to find out."""
    return _is_pydantic(cls, "BaseModel")


def is_url(cls: type) -> bool:
    """Whether it is one of Pydantic's URLs, as models have them."""
    return _is_pydantic(cls, "AnyUrl")


def _is_pydantic(cls: type, name: str) -> bool:
    base = getattr(sys.modules.get("pydantic"), name, None)
    return isinstance(base, type) and issubclass(cls, base)
