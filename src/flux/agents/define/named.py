"""Things of the application by name: `module:attribute` of what can be imported, and what a process was given."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from msgspec import Struct

from flux.agents.define.approval import Predicate
from flux.errors import DefinitionInvalid, describe

REFERENCE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")

#: Says what is wrong with a plan beyond its JSON Schema, each fault with its path.
CheckPlan = Callable[[Mapping[str, Any]], list[str]]


class Registry(Struct, frozen=True):
    """What the application gives a process besides tools: predicates by id, and checks of plans by the plan's name."""

    predicates: Mapping[str, Predicate] = {}
    plans: Mapping[str, CheckPlan] = {}


def load(reference: str) -> Any:
    """What `module:attribute` names. This runs the module's code, if that did not happen before.

    :raises DefinitionInvalid: there is no such thing
    """
    if not REFERENCE.fullmatch(reference):
        raise DefinitionInvalid(f"{reference[:200]!r} must read module:attribute, such as shop.tools:create_item")
    module, _, path = reference.partition(":")
    found: Any = _imported(module, reference)
    try:
        for part in path.split("."):
            found = getattr(found, part)
    except AttributeError as error:
        raise DefinitionInvalid(f"{reference}: the module {module} has no {path}") from error
    return found


def is_loaded(reference: str) -> bool:
    """Whether the module of a reference was imported before."""
    return reference.partition(":")[0] in sys.modules


def _imported(module: str, reference: str) -> Any:
    if module not in sys.modules:
        with ThreadPoolExecutor(1) as apart:  # so that whatever its code raises can be told
            problem = apart.submit(importlib.import_module, module).exception()
        if problem is not None:
            said = f"{reference}: the module cannot be imported: {describe(problem)}"
            raise DefinitionInvalid(said) from problem
    return sys.modules[module]


def reference_to(thing: Any) -> str | None:
    """The `module:attribute` under which others find exactly this thing; None: there is none."""
    module = getattr(thing, "__module__", None)
    candidates = [getattr(thing, "__qualname__", None), getattr(thing, "name", None)]
    if not isinstance(module, str) or module == "__main__":
        return None
    for name in candidates:
        if isinstance(name, str) and _finds(module, name, thing):
            return f"{module}:{name}"
    return None


def _finds(module: str, name: str, thing: Any) -> bool:
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is thing
