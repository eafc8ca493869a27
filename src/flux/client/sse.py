"""A parser for server-sent events (WHATWG HTML, section 9.2.6)."""

from __future__ import annotations

import codecs
from collections.abc import AsyncGenerator, AsyncIterator
from typing import NamedTuple


class ServerEvent(NamedTuple):
    """One event. `id` is the last id seen so far."""

    id: str
    type: str
    data: str


class Parser:
    """Fed with bytes as they come; lines and UTF-8 may be split anywhere."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._begun: list[str] = []
        self._after_cr = False
        self._id = ""
        self._type = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> list[ServerEvent]:
        """The events that are complete now."""
        text = self._decoder.decode(chunk)
        if not text:
            return []
        # A CR ends its line at once; the LF that may follow it belongs to it.
        half, self._after_cr = self._after_cr, text.endswith("\r")
        if half:
            text = text.removeprefix("\n")
        if "\r" in text:
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        first, *more = text.split("\n")
        self._begun.append(first)
        if not more:
            return []
        lines = ["".join(self._begun), *more[:-1]]
        self._begun = [more[-1]]
        events = [self._line(line) for line in lines]
        return [event for event in events if event is not None]

    def _line(self, line: str) -> ServerEvent | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._type = value
        elif name == "id" and "\0" not in value:
            self._id = value
        return None

    def _dispatch(self) -> ServerEvent | None:
        data, self._data = self._data, []
        kind, self._type = self._type or "message", ""
        return ServerEvent(self._id, kind, "\n".join(data)) if data else None


async def parse(chunks: AsyncIterator[bytes]) -> AsyncGenerator[ServerEvent, None]:
    """The events of a byte stream."""
    parser = Parser()
    async for chunk in chunks:
        for event in parser.feed(chunk):
            yield event
