"""The view for a person at a terminal: Markdown as it streams, tool calls as they run."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal, TextIO

from msgspec import Struct
from rich.console import RenderableType
from rich.text import Text

from flux.events import Outcome
from flux.messages import ToolCall
from flux.surfaces.terminal.blocks import Blocks, continued, is_tight
from flux.surfaces.terminal.screen import EMPTY, Line, Screen
from flux.surfaces.terminal.text import call_text, printed, shorten
from flux.surfaces.terminal.view import Look
from flux.surfaces.visible import visible

Kind = Literal["", "prompt", "text", "call", "line"]

OUTPUT_LINES = 3
OUTPUT_KEPT = 4_000
WIDE = 60
QUIET_SECONDS = 0.4
SLOW_SECONDS = 3.0

STYLES: dict[Look, str] = {"plain": "", "copy": "", "dim": "dim", "error": "red", "ask": "bold"}
OUTCOME_STYLES: dict[Outcome, str] = {"success": "green", "error": "red", "timeout": "red"}


class _Running(Struct):
    call: ToolCall
    since: float
    output: str = ""


class LiveView:
    """Shows a conversation on a screen. `markdown` may be set to something better than plain text."""

    def __init__(self, out: TextIO) -> None:
        self.markdown: Callable[[str], RenderableType] = Text
        self._screen = Screen(out)
        self._blocks = Blocks()
        self._running: dict[str, _Running] = {}
        self._before = ""
        self._last: Kind = ""
        self._working = False
        self._status = ""
        self._quiet_since = 0.0
        self._dirty = False

    def begin(self) -> None:
        """A run works from now on."""
        self._working = True
        self._quiet_since = time.monotonic()
        self._screen.show_cursor(False)

    def rest(self) -> None:
        """Nothing works any more."""
        self._working, self._status = False, ""
        self._running.clear()
        self.end_text()
        self._draw()
        self._screen.show_cursor(True)

    def prompted(self) -> None:
        """A prompt was shown and answered; the cursor is at the start of a line."""
        self._screen.forget()
        self._last = "prompt"

    def space(self) -> None:
        """An empty line before a prompt."""
        self._put("prompt", [])

    def tick(self) -> None:
        """Draw what has changed."""
        if self._dirty or self._working:
            self._draw()

    def text(self, piece: str) -> None:
        """A piece of the answer's Markdown."""
        self._dirty = True
        self._quiet_since = time.monotonic()
        for block in self._blocks.feed(visible(piece)):
            self._block(block)

    def end_text(self) -> None:
        """The answer's text is complete, or is given up."""
        self._quiet_since = time.monotonic()
        tail, self._blocks = self._blocks.tail, Blocks()
        self._block(tail)
        self._before = ""

    def user(self, text: str) -> None:
        """A message that was not typed here."""
        self._put("text", self._screen.text(text, "dim", "> "))

    def call_started(self, call: ToolCall) -> None:
        """A tool begins."""
        self._running[call.id] = _Running(call, time.monotonic())
        self._draw()

    def call_output(self, call: ToolCall, piece: str) -> None:
        """A piece of what it prints."""
        running = self._running.get(call.id)
        if running is not None:
            running.output = (running.output + piece)[-OUTPUT_KEPT:]
            self._dirty = True

    def call_done(self, call: ToolCall, outcome: Outcome, words: str) -> None:
        """It has ended; `words` say how."""
        self._running.pop(call.id, None)
        self._quiet_since = time.monotonic()
        end = Text(shorten(visible(words), 300), OUTCOME_STYLES.get(outcome, "yellow"))
        self._put("call", self._screen.lines(self._calling(call).append_text(end)))

    def line(self, text: str, look: Look = "plain") -> None:
        """Something the chat itself says."""
        lines = self._screen.unbroken(text) if look == "copy" else self._screen.text(text, STYLES[look])
        self._put("line", lines)

    def status(self, text: str) -> None:
        """What is the case for now: below everything else until it is over."""
        self._status = text
        self._draw()

    def quote(self, text: str) -> None:
        """Text in full that a person must judge."""
        self._put("line", [row for part in text.split("\n") for row in self._quoted(part)])

    def _quoted(self, text: str) -> list[Line]:
        return self._screen.text(text, prefix="  │ ") or [EMPTY]

    def _block(self, block: str) -> None:
        if block.strip():
            block = continued(self._before, block)
            lines = self._screen.lines(self.markdown(block))
            tight = is_tight(self._before, block)
            self._before = block
            self._put("text", lines, tight=tight)

    def _put(self, kind: Kind, lines: list[Line], *, tight: bool = False) -> None:
        finished = [*([] if tight else self._gap(kind)), *lines]
        self._last = kind
        self._draw(finished)

    def _gap(self, kind: Kind) -> list[Line]:
        """The empty line between things of different kinds, and between paragraphs."""
        together = kind == self._last and kind in ("call", "line", "prompt")
        return [] if together or not self._last else [EMPTY]

    def _draw(self, finished: list[Line] | None = None) -> None:
        self._dirty = False
        self._screen.draw(finished or [], self._tail())

    def _tail(self) -> list[Line]:
        """What may still change, and what is the case for now."""
        if not self._status:
            return self._changing()
        above = self._changing() if self._blocks.tail.strip() or self._running else []
        return [*above, *([EMPTY] if above else self._gap("line")), *self._screen.text(self._status, "dim")]

    def _changing(self) -> list[Line]:
        """The last block, the calls that run, or a word that something works."""
        growing = self._blocks.tail
        if growing.strip():
            gap = [] if is_tight(self._before, growing) else self._gap("text")
            growing = self._recent(continued(self._before, growing))
            return [*gap, *self._screen.lines(self.markdown(growing))]
        if self._running:
            return [*self._gap("call"), *(line for running in self._running.values() for line in self._calls(running))]
        quiet = time.monotonic() - self._quiet_since
        if self._working and quiet > QUIET_SECONDS:
            return [*self._gap("line"), *self._screen.text(f"Thinking… {_elapsed(quiet)}", "dim")]
        return []

    def _recent(self, text: str) -> str:
        """As much of a growing block as fits the screen: a long code block is not drawn in full for each token."""
        lines, most = text.split("\n"), self._screen.size.lines
        return text if len(lines) <= 2 * most else "\n".join([lines[0], *lines[-most:]])

    def _calls(self, running: _Running) -> list[Line]:
        elapsed = _elapsed(time.monotonic() - running.since)
        output = [line for line in printed(running.output).split("\n") if line.strip()][-OUTPUT_LINES:]
        shown = [shorten(line, self._screen.size.columns - 2) for line in output]
        return [
            *self._screen.lines(self._calling(running.call).append(elapsed, "dim")),
            *(row for line in shown for row in self._screen.text(line, "dim", "  ")),
        ]

    def _calling(self, call: ToolCall) -> Text:
        columns = self._screen.size.columns
        room = columns - len("Calling ... Interrupted." if columns >= WIDE else "Calling ... Done.")
        return Text.assemble(("Calling ", "dim"), call_text(call.name, call.args, room), ("... ", "dim"))


def _elapsed(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds >= SLOW_SECONDS else ""
