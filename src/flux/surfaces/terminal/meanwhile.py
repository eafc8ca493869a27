"""Messages that a person sends while a run works: each in its mode, at once."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from flux.errors import FluxError
from flux.events import Mode
from flux.surfaces.terminal.commands import parse
from flux.surfaces.terminal.problems import problem
from flux.surfaces.terminal.view import Projection, View

#: Commands that say when a message is read. Without one it waits for the next run.
MODES: dict[str, Mode] = {"/steer": "steer", "/interrupt": "interrupt"}

Post = Callable[..., Awaitable[dict[str, Any]]]


def message_of(line: str) -> tuple[str, Mode] | None:
    """The message in a line and its mode; None: it is another command, or too short to be meant as a message."""
    command = parse(line)
    if command is None:
        return (line, "queue") if len(line) > 1 else None
    return (command[1], MODES[command[0]]) if command[0] in MODES and command[1] else None


class Meanwhile:
    """Sends what is typed during a run, in order. `post` takes a message, its mode and a key.

    `back` gets the text of a message that was not accepted.
    """

    def __init__(self, view: View, shown: Projection, post: Post, back: Callable[[str], None]) -> None:
        self._view = view
        self._shown = shown
        self._post = post
        self._back = back
        self._sending: list[asyncio.Task[str | None]] = []
        self._one_by_one = asyncio.Lock()

    def typed(self, line: str) -> bool:
        """Send a line; False: it is no message, and waits for the next prompt."""
        if not line:
            return True
        found = message_of(line)
        if found is None:
            return False
        self._sending.append(asyncio.create_task(self._send(*found)))
        return True

    async def next(self) -> str | None:
        """The id of the oldest message that was sent so, and that no run has taken up as far as is known; else None."""
        while self._sending:
            id = await self._sending.pop(0)
            if id is not None and id not in self._shown.taken:
                return id
        return None

    def forget(self) -> None:
        """Nobody waits for their runs any more; those that are on their way are sent."""
        self._sending = [task for task in self._sending if not task.done()]

    async def _send(self, text: str, mode: Mode) -> str | None:
        async with self._one_by_one:
            self._shown.typed_aside(text)
            self._view.user(text)
            try:
                accepted: str = (await self._post(text, mode=mode, key=uuid.uuid4().hex))["message"]
            except FluxError as error:
                self._shown.taken_back(text)
                self._view.line(problem(error), "error")
                self._back(text)
                return None
            return accepted
