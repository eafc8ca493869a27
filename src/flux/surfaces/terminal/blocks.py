"""Where growing Markdown may be cut: blocks that cannot change any more, and the tail that still can."""

from __future__ import annotations

import re

_FENCE = re.compile(r"(\s*)(`{3,}(?=[^`]*$)|~{3,})")
_ITEM = re.compile(r"(\s*)([-*+]|\d{1,9}[.)])(\s+(?=\S)|$)")
_RULE = re.compile(r"\s{0,3}([-*_])[ \t]*(?:\1[ \t]*){2,}$")
_STARTS_BLOCK = re.compile(r"\s{0,3}(?:#{1,6}(?:\s|$)|>)")
_INTERRUPTS = re.compile(r"\s{0,3}(?:[-*+]|1[.)])\s+\S")


class Blocks:
    """Fed with text as it comes; what was returned, then `tail`, is always the whole text.

    The cuts depend on lines only, never on how the text was chunked. Items of a list are blocks of
    their own, so a long list leaves the tail item by item.
    """

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._rest = ""
        self._fence: tuple[int, str] | None = None
        self._item: int | None = None

    @property
    def tail(self) -> str:
        """The text that may still change its meaning."""
        return "".join(self._lines) + self._rest

    def feed(self, text: str) -> list[str]:
        """The blocks that are complete now."""
        *lines, self._rest = (self._rest + text).split("\n")
        return [block for line in lines if (block := self._line(line + "\n"))]

    def _line(self, line: str) -> str:
        """Take one line; returns the block it completes, or an empty string."""
        bare, indent = line.rstrip(), _indent(line)
        if self._fence is not None:
            if not self._leaves_item(bare, indent):
                return self._fenced(line, bare)
            self._fence = None
        if not bare:
            return self._blank(line)
        done = self._take() if self._begins(bare, indent) else ""
        self._open(bare, indent)
        self._lines.append(line)
        return done

    def _fenced(self, line: str, bare: str) -> str:
        self._lines.append(line)
        _, marker = self._fence or (0, "")
        closing = bare.strip()
        if len(closing) >= len(marker) and set(closing) == {marker[0]}:
            self._fence = None
            return "" if self._item is not None else self._take()
        return ""

    def _blank(self, line: str) -> str:
        self._lines.append(line)
        return self._take() if self._item is None and self._has_text() else ""

    def _leaves_item(self, bare: str, indent: int) -> bool:
        return bool(bare) and self._item is not None and indent < self._item

    def _begins(self, bare: str, indent: int) -> bool:
        """Whether this line is the first of another block."""
        if not self._has_text():
            return False
        item = _item(bare)
        if self._item is None:
            return bool(_fence(bare, indent)) or (item is not None and bool(_INTERRUPTS.match(bare)))
        if indent >= self._item:
            return False
        after_blank = not self._lines[-1].strip()
        return bool(after_blank or item or _fence(bare, indent) or _RULE.match(bare) or _STARTS_BLOCK.match(bare))

    def _open(self, bare: str, indent: int) -> None:
        """Note what this line opens: a list item, a fence, or both."""
        inside = self._item if self._item is not None and indent >= self._item else 0
        if not inside:
            fresh = not self._has_text()
            item = _item(bare) if indent < 4 and fresh else None
            if fresh:
                self._item = item
            rest = bare[item:] if item is not None else bare
        else:
            rest = bare
        opened = _FENCE.match(rest)
        if opened and (inside or _indent(rest) < 4):
            self._fence = (indent, opened[2])

    def _has_text(self) -> bool:
        return any(line.strip() for line in self._lines)

    def _take(self) -> str:
        block, self._lines, self._item = "".join(self._lines), [], None
        return block


def is_tight(before: str, block: str) -> bool:
    """Whether a block is the next item of a list without blank lines between its items."""
    return _starts_item(before) and _starts_item(block) and bool(before.rsplit("\n", 2)[-2:][0].strip())


def _starts_item(block: str) -> bool:
    return _item(block.lstrip("\n").partition("\n")[0]) is not None


def _item(bare: str) -> int | None:
    """Where the content of a list item begins, None when the line is no item."""
    found = _ITEM.match(bare.expandtabs(4))
    if found is None or _RULE.match(bare):
        return None
    return found.end() if 0 < len(found[3]) < 5 else found.end(2) + 1


def _fence(bare: str, indent: int) -> bool:
    return indent < 4 and _FENCE.match(bare) is not None


def _indent(line: str) -> int:
    expanded = line.expandtabs(4)
    return len(expanded) - len(expanded.lstrip(" "))
