"""Glob patterns with `**` and `{a,b}`, matched in time linear in the path."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable

_ALTERNATIVES = 200
_BRACES = re.compile(r"\{([^{}]*,[^{}]*)\}")


def matcher(pattern: str) -> Callable[[str], bool]:
    """A function that says whether a relative path matches.

    `*` and `?` stay within a name, `**` stands for any number of directories, `[ab]` and `{a,b}` are
    alternatives. A pattern without `/` is about the last name, at any depth. ValueError for a pattern
    with too many alternatives, or that goes up.
    """
    if ".." in pattern.split("/"):
        raise ValueError("'..' matches nothing; name the directory in `path`")
    compiled = [_compiled(one) for one in _alternatives(pattern)]
    return lambda path: any(_matches(names, path.split("/")) for names in compiled)


def _alternatives(pattern: str) -> list[str]:
    done: list[str] = []
    todo = [pattern]
    while todo:
        one = todo.pop()
        found = _BRACES.search(one)
        if found is None:
            done.append(one)
        else:
            todo += [one[: found.start()] + word + one[found.end() :] for word in found[1].split(",")]
        if len(todo) + len(done) > _ALTERNATIVES:
            raise ValueError(f"the pattern has more than {_ALTERNATIVES} alternatives")
    return done


def _compiled(pattern: str) -> list[re.Pattern[str] | None]:
    """A pattern for each name, None for `**`."""
    names = [name for name in pattern.split("/") if name not in ("", ".")]
    if "/" not in pattern:
        names.insert(0, "**")
    return [None if name == "**" else re.compile(fnmatch.translate(name)) for name in names]


def _matches(names: list[re.Pattern[str] | None], path: list[str]) -> bool:
    """Whether the names match, by keeping every place in the pattern that may have been reached."""
    places = _reachable(names, {0})
    for part in path:
        after = set()
        for place in places:
            name = names[place] if place < len(names) else _NEVER
            if name is None:
                after.add(place)
            elif name.match(part):
                after.add(place + 1)
        places = _reachable(names, after)
    return len(names) in places


_NEVER = re.compile(r"(?!)")


def _reachable(names: list[re.Pattern[str] | None], places: set[int]) -> set[int]:
    """The places, and those behind each `**` that stands for nothing."""
    found = set(places)
    for place, name in enumerate(names):
        if place in found and name is None:
            found.add(place + 1)
    return found
