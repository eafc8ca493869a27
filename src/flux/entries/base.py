"""What every entry of a log is made of."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec
from msgspec import Struct


def format_version(version: int) -> Any:
    """The field `v` of an entry; a factory, so that it is written although defaults are left out."""
    return msgspec.field(default_factory=lambda: version)


class Entry(Struct, frozen=True, tag_field="type", omit_defaults=True, gc=False):
    """One durable event of a log. A type whose format changes sets `version` and `v = format_version(version)`.

    JSON has no cycles: the garbage collector need not walk a long log (`gc=False`).
    """

    version: ClassVar[int] = 1

    v: int = format_version(1)


def entry_types() -> dict[str, type[Entry]]:
    """Every type of entry by its wire name."""
    found: dict[str, type[Entry]] = {}
    todo = Entry.__subclasses__()
    while todo:
        cls = todo.pop(0)
        todo.extend(cls.__subclasses__())
        if cls.__struct_config__.tag != cls.__name__:  # a base has no wire name of its own
            found[str(cls.__struct_config__.tag)] = cls
    return found
