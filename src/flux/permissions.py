"""Permissions: `workflow:default:hello:run` is asked for, `workflow:*:*:run` is granted."""

from __future__ import annotations

import re
from collections.abc import Iterable

from flux.errors import InvalidInput
from flux.suggest import unknown

REST = "*"
PATTERN = re.compile(r"[^\s:*]+|\*")
MOST_CHARS = 512
#: What a permission is about: its first segment.
AREAS = ("admin", "agent", "config", "execution", "memory", "schedule", "secret", "worker", "workflow")
#: Answers that are remembered of one set of permissions.
MOST_KNOWN = 1_000

#: What the built-in roles may do. They cannot be changed; a clone can.
BUILT_IN: dict[str, tuple[str, ...]] = {
    "admin": ("*",),
    "operator": (
        "workflow:*:*:run", "workflow:*:*:read", "workflow:*:*:register", "workflow:*:*:task:*:execute",
        "workflow:*:*:task:*:approve", "schedule:*", "execution:*", "agent:*:*", "config:*:read", "config:*:manage",
    ),
    "viewer": (
        "workflow:*:*:read", "execution:*:read", "schedule:*:read", "agent:*:read", "agent:*:session:read",
        "config:*:read",
    ),
    "worker": ("worker:*", "workflow:*:*:read", "execution:*:read", "config:*:read", "admin:secrets:read"),
}  # fmt: skip


class Permissions:
    """What somebody may do: patterns of segments, in which `*` stands for one segment, at the end for all the rest."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self.patterns = frozenset(patterns)
        self._open: dict[str, list[tuple[str, ...]]] = {}
        for pattern in sorted(one for one in self.patterns if REST in one):
            parts = tuple(pattern.split(":"))
            self._open.setdefault(parts[0], []).append(parts)
        self._known: dict[str, bool] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Permissions) and self.patterns == other.patterns

    def __hash__(self) -> int:
        return hash(self.patterns)

    def allow(self, permission: str) -> bool:
        """Whether a permission is granted; also whether everything that a pattern stands for is."""
        found = self._known.get(permission)
        if found is None:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            found = self._known[permission] = permission in self.patterns or self._matches_one(permission.split(":"))
        return found

    def _matches_one(self, asked: list[str]) -> bool:
        return any(_matches(pattern, asked) for first in (asked[0], REST) for pattern in self._open.get(first, ()))

    def among(self, template: str) -> frozenset[str] | None:
        """The names that can stand for `{}` in the template so that it is granted; None: every name."""
        parts = template.split(":")
        place = parts.index("{}")
        found: set[str] = set()
        for pattern in (tuple(one.split(":")) for one in self.patterns):
            name = pattern[place] if len(pattern) > place else REST
            if _matches(pattern, [*parts[:place], name, *parts[place + 1 :]]):
                if name == REST:
                    return None
                found.add(unquoted(name))
        return frozenset(found)


NOTHING = Permissions(())
EVERYTHING = Permissions((REST,))


def _matches(pattern: tuple[str, ...], asked: list[str]) -> bool:
    if pattern[-1] == REST and len(asked) >= len(pattern):
        return all(mine in (REST, other) for mine, other in zip(pattern[:-1], asked, strict=False))
    return len(pattern) == len(asked) and all(mine in (REST, other) for mine, other in zip(pattern, asked, strict=True))


def quoted(name: str) -> str:
    """A name as one segment: of itself it would be several, or stand for others."""
    return name.replace("%", "%25").replace(":", "%3A").replace("*", "%2A")


def unquoted(segment: str) -> str:
    """The name of a segment."""
    return segment.replace("%2A", "*").replace("%3A", ":").replace("%25", "%")


def check_pattern(pattern: str) -> str:
    """The pattern.

    :raises InvalidInput: it is none, or stands for nothing that anybody asks for
    """
    parts = pattern.split(":")
    if len(pattern) > MOST_CHARS or not pattern.isprintable() or not all(map(PATTERN.fullmatch, parts)):
        raise InvalidInput(
            f"permission {pattern[:80]!r}: segments between colons, such as agent:helper:start, in which * is a "
            "whole segment (at the end: all the rest); a name's own colon is written %3A"
        )
    if parts[0] not in (*AREAS, REST):
        raise InvalidInput(f"permission {pattern[:80]!r}: {unknown('first segment', parts[0], AREAS)}")
    return pattern
