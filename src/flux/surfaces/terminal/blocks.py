"""Where growing Markdown may be cut: blocks that cannot change any more, and the tail that still can."""

from __future__ import annotations

import re

_FENCE = re.compile(r" *(`{3,}(?=[^`]*$)|~{3,})")
_ITEM = re.compile(r" {0,3}([-*+]|\d{1,9}[.)])( +(?=\S)|$)")
_NUMBER = re.compile(r" {0,3}(\d{1,9})([.)])(?=\s|$)")
_RULE = re.compile(r" {0,3}([-*_]) *(?:\1 *){2,}$")
_INTERRUPTS = re.compile(r" {0,3}(?:[-*+]|1[.)]) +\S")
_STARTS_BLOCK = re.compile(r" *(?:`{3}|~{3}|#{1,6}(?: |$)|>|(?:[-*+]|\d{1,9}[.)])(?: |$)|([-*_])(?: *\1){2,}$)")


class Blocks:
    """Fed with text as it comes; what was returned, then `tail`, is always the whole text.

    The cuts depend on lines only, never on how the text was chunked. Items of a list are blocks of
    their own, so a long list leaves the tail item by item.
    """

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._rest = ""
        self._fence = ""
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
        bare = line.rstrip().expandtabs(4)
        indent = len(bare) - len(bare.lstrip(" "))
        left = bool(bare) and self._item is not None and indent < self._item
        if self._fence and not left:
            return self._fenced(line, bare)
        if not bare:
            return self._blank(line)
        done = self._take() if self._fence or self._begins(bare, indent) else ""
        self._open(bare, indent)
        self._lines.append(line)
        return done

    def _fenced(self, line: str, bare: str) -> str:
        self._lines.append(line)
        closing = bare.strip()
        if len(closing) < len(self._fence) or set(closing) != {self._fence[0]}:
            return ""
        self._fence = ""
        return self._take() if self._item is None else ""

    def _blank(self, line: str) -> str:
        self._lines.append(line)
        return self._take() if self._item is None and self._has_text() else ""

    def _begins(self, bare: str, indent: int) -> bool:
        """Whether this line is the first of another block."""
        if not self._has_text():
            return False
        if self._item is None:
            return indent < 4 and bool(_FENCE.match(bare) or (_INTERRUPTS.match(bare) and not _RULE.match(bare)))
        after_blank = not self._lines[-1].strip()
        return indent < self._item and (after_blank or bool(_STARTS_BLOCK.match(bare)))

    def _open(self, bare: str, indent: int) -> None:
        """Note what this line opens: a list item, a fence, or both."""
        content = bare
        if not self._has_text():
            self._item = item_content(bare) if indent < 4 else None
            content = bare[self._item or 0 :]
        opened = _FENCE.match(content)
        self._fence = opened[1] if opened and (self._item is not None or indent < 4) else ""

    def _has_text(self) -> bool:
        return any(line.strip() for line in self._lines)

    def _take(self) -> str:
        block, self._lines, self._item = "".join(self._lines), [], None
        return block


def is_tight(before: str, block: str) -> bool:
    """Whether a block is the next item of a list without blank lines between its items."""
    ends_blank = not before.rsplit("\n", 2)[-2:][0].strip()
    return _is_item(before) and _is_item(block) and not ends_blank


def continued(before: str, block: str) -> str:
    """An item of a numbered list with the number that follows the item before it, as Markdown counts."""
    last, this = _NUMBER.match(before.lstrip("\n")), _NUMBER.match(block)
    if last is None or this is None or last[2] != this[2]:
        return block
    number = str(int(last[1]) + 1)
    wider = " " * (len(number) - len(this[1]))
    first, *others = block[this.end(1) :].split("\n")
    indented = [wider + line if line.strip() else line for line in others]
    return "\n".join([block[: this.start(1)] + number + first, *indented])


def item_content(bare: str) -> int | None:
    """Where the content of a list item begins, None when the line is no item."""
    found = _ITEM.match(bare)
    if found is None or _RULE.match(bare):
        return None
    return found.end() if 0 < len(found[2]) < 5 else found.end(1) + 1


def _is_item(block: str) -> bool:
    return item_content(block.lstrip("\n").partition("\n")[0].rstrip().expandtabs(4)) is not None
