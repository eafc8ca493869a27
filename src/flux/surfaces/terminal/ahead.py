"""What a person types while nobody asks: kept as keys for the next prompt; Ctrl+D is told at once."""

from __future__ import annotations

import asyncio
import codecs
import os
import select
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from prompt_toolkit.input import Input
from prompt_toolkit.input.typeahead import get_typeahead, store_typeahead
from prompt_toolkit.input.vt100_parser import Vt100Parser
from prompt_toolkit.key_binding.key_processor import KeyPress
from prompt_toolkit.keys import Keys

LEAVE = b"\x04"
CHUNK = 4_096


class Ahead:
    """Keys that nobody has asked for yet; `last` is when one of them came, by the clock."""

    def __init__(self, input: Input, clock: Callable[[], float]) -> None:
        self.last = float("-inf")
        self._input = input
        self._clock = clock
        self._keys: list[KeyPress] = []
        self._parser = Vt100Parser(self._keys.append)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    @contextmanager
    def listening(self, leave: Callable[[], None], send: Callable[[str], bool]) -> Iterator[None]:
        """Read keys as they come; `leave` is called for Ctrl+D, `send` for each line that Enter ends: is it taken?"""
        loop, fd = asyncio.get_running_loop(), self._input.fileno()
        loop.add_reader(fd, self._read, fd, leave, send)
        try:
            yield
        finally:
            loop.remove_reader(fd)

    def give_back(self) -> None:
        """Let the next prompt read the keys as if they were typed there."""
        self._parser.flush()
        store_typeahead(self._input, list(self._keys))
        self._keys.clear()

    def take(self) -> str:
        """The text of everything that was typed and not read; it is forgotten."""
        fd = self._input.fileno()
        while select.select([fd], [], [], 0)[0] and self._read_some(fd):
            pass
        self._parser.flush()
        before = get_typeahead(self._input)
        if before:
            self.last = self._clock()
        keys = [*before, *self._keys]
        self._keys.clear()
        return text_of_keys(keys)

    def _read(self, fd: int, leave: Callable[[], None], send: Callable[[str], bool]) -> None:
        data = self._read_some(fd)
        if not data:
            asyncio.get_running_loop().remove_reader(fd)  # the terminal is gone
        if LEAVE in data:
            leave()
        while (end := _line_end(self._keys)) is not None and send(text_of_keys(self._keys[:end]).strip()):
            del self._keys[: end + 1]

    def _read_some(self, fd: int) -> bytes:
        try:
            data = os.read(fd, CHUNK)
        except OSError:
            return b""
        if data:
            self.last = self._clock()
            self._parser.feed(self._decoder.decode(data.replace(LEAVE, b"")))
        return data


def _line_end(keys: Sequence[KeyPress]) -> int | None:
    """Where the first line is ended by Enter; Alt+Enter only begins another one."""
    for place, press in enumerate(keys):
        # Between prompts the terminal makes a line feed of it.
        if press.key in (Keys.ControlM, Keys.ControlJ) and (place == 0 or keys[place - 1].key != Keys.Escape):
            return place
    return None


def text_of_keys(keys: Iterable[KeyPress]) -> str:
    """The text that key presses make; keys that only move do nothing."""
    text = ""
    for press in keys:
        if press.key in (Keys.ControlM, Keys.ControlJ):
            text += "\n"
        elif press.key == Keys.ControlH:
            text = text[:-1]
        elif press.key == Keys.ControlU:
            text = text[: text.rfind("\n") + 1]
        elif press.key == Keys.BracketedPaste or not isinstance(press.key, Keys):
            text += press.data
    return text
