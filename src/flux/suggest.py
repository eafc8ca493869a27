"""Unknown names: say so, and name the nearest valid one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """The valid name most like `name`, None when nothing is like it."""
    found = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return found[0] if found else None


def unknown(what: str, name: str, valid: Iterable[str]) -> str:
    """One line: `unknown WHAT NAME; did you mean X?`, or the valid names when nothing is like it."""
    names = sorted(valid)
    like = nearest(name, names)
    hint = f"did you mean {like!r}?" if like else f"valid: {', '.join(names)}" if names else f"there is no {what} here"
    return f"unknown {what} {name!r}; {hint}"
