"""The screen below the last prompt: finished lines go to the scrollback, a short tail is redrawn in place."""

from __future__ import annotations

import os
import shutil
from typing import TextIO

from rich.cells import cell_len
from rich.color import ColorSystem
from rich.console import Console, RenderableType
from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from rich.theme import Theme

from flux.surfaces.visible import visible

#: Only colours that a terminal's own theme keeps readable, and no backgrounds.
THEME = Theme(
    {
        "markdown.h1": "bold underline",
        "markdown.h2": "bold",
        "markdown.h3": "bold",
        "markdown.h4": "bold",
        "markdown.h5": "bold",
        "markdown.h6": "bold",
        "markdown.code": "cyan",
        "markdown.code_block": "none",
        "markdown.block_quote": "none",
        "markdown.link": "underline",
        "markdown.link_url": "dim",
    }
)

_HIDE, _SHOW = "\x1b[?25l", "\x1b[?25h"
_BEGIN, _END = "\x1b[?2026h", "\x1b[?2026l"


class Line(str):
    """A line with its control sequences; `cells` is how wide it shows."""

    cells: int

    def __new__(cls, shown: str, cells: int) -> Line:
        """Make one."""
        line = super().__new__(cls, shown)
        line.cells = cells
        return line


EMPTY = Line("", 0)


class Screen:
    """Owns what is below the last prompt; the cursor rests at the end of the tail."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._console = Console(
            file=out, force_terminal=True, theme=THEME, markup=False, emoji=False, highlight=False, legacy_windows=False
        )
        self._drawn: list[Line] = [EMPTY]
        self._cursor = True

    @property
    def size(self) -> os.terminal_size:
        """Columns and lines as they are now."""
        try:
            size = os.get_terminal_size(self._out.fileno())
        except (OSError, ValueError):
            return shutil.get_terminal_size()
        return size if size.columns and size.lines else os.terminal_size((80, 24))

    def lines(self, content: RenderableType, style: str = "", prefix: str = "") -> list[Line]:
        """What a renderable looks like now, behind a dim prefix; empty lines around it are left out."""
        width = max(8, self.size.columns - cell_len(prefix))
        options = self._console.options.update(width=width, height=None)
        rows = self._console.render_lines(content, options, style=self._style(style), pad=False)
        lines = [self._line(row, prefix) for row in rows]
        while lines and not lines[0].cells:
            lines.pop(0)
        while lines and not lines[-1].cells:
            lines.pop()
        return lines

    def text(self, text: str, style: str = "", prefix: str = "") -> list[Line]:
        """The lines of plain text."""
        return self.lines(Text(visible(text)), style, prefix)

    def unbroken(self, text: str) -> list[Line]:
        """Lines that the terminal may break, but we do not, so that they can be copied."""
        return [Line(line, cell_len(line)) for line in visible(text).split("\n")]

    def draw(self, finished: list[Line], tail: list[Line]) -> None:
        """Put lines into the scrollback and the tail below them, writing only what is new."""
        size = self.size
        new = [*finished, *(tail[-max(1, size.lines - 1) :] or [EMPTY])]
        kept = 0
        if all(line.cells <= size.columns for line in self._drawn):
            while kept < min(len(self._drawn), len(new)) and self._drawn[kept] == new[kept]:
                kept += 1
        if new != self._drawn:
            kept = min(kept, len(new) - 1)  # the cursor must end behind the last line
            self._write(_BEGIN + self._moved(kept, size.columns) + "\n".join(new[kept:]) + _END)
        self._drawn = new[len(finished) :]

    def show_cursor(self, shown: bool) -> None:
        """Hide the cursor while nobody can type."""
        if shown != self._cursor:
            self._cursor = shown
            self._write(_SHOW if shown else _HIDE)

    def forget(self) -> None:
        """Somebody else has written and left the cursor at the start of a line."""
        self._drawn = [EMPTY]

    def _moved(self, kept: int, columns: int) -> str:
        """Go from the end of the tail to behind its first `kept` lines, and clear what follows."""
        rows = [max(1, -(-line.cells // columns)) for line in self._drawn]
        if kept == len(rows):
            return "\n"
        up = sum(rows[kept:]) - 1
        return "\r" + (f"\x1b[{up}A" if up else "") + "\x1b[J"

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()

    def _style(self, name: str) -> Style:
        return self._console.get_style(name or "none")

    def _line(self, row: list[Segment], prefix: str) -> Line:
        """A line of segments without its blank end; whatever came in, only our own sequences go out."""
        parts = [Segment(prefix, self._style("dim")), *(part for part in row if not part.control)]
        while parts and not parts[-1].text.strip():
            parts.pop()
        if not parts:
            return EMPTY
        parts[-1] = Segment(parts[-1].text.rstrip(), parts[-1].style)
        cells, shown = 0, ""
        for part in parts:
            text = visible(part.text).expandtabs(4)
            cells += cell_len(text)
            shown += part.style.render(text, color_system=ColorSystem.STANDARD) if part.style else text
        return Line(shown, cells)
