"""What a session can be told to do from outside: answer a message, or summarise its history."""

from __future__ import annotations

import uuid
from typing import Any

from msgspec import Struct

from flux.events import CompactRequested, Mode, UserSaid
from flux.messages import TextPart


class NewMessage(Struct, frozen=True):
    """A message to admit. `options` are those of its run."""

    text: str
    mode: Mode = "queue"
    options: dict[str, Any] = {}

    def entry(self, by: str) -> UserSaid:
        """It in the log, under a new id."""
        return UserSaid(id=str(uuid.uuid4()), mode=self.mode, parts=(TextPart(self.text),), options=self.options)


class NewCompaction(Struct, frozen=True, tag=True):
    """A request to summarise the history, which a session that works on something else refuses."""

    text: str = ""
    mode: Mode = "reject"

    def entry(self, by: str) -> CompactRequested:
        """It in the log, under a new id."""
        return CompactRequested(id=str(uuid.uuid4()), by=by)
