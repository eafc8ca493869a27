"""Following one run through the events of its session: does it work, wait for a person, or has it ended?"""

from __future__ import annotations

from typing import Any, Literal

from flux.events import (
    QUESTIONS,
    RUN_ENDS,
    AssistantSaid,
    Cancelled,
    InterruptAnswered,
    RunStarted,
    SessionEndedEntry,
    ToolDone,
)

Rest = Literal["working", "waiting", "ended"]


class RunWatch:
    """Fed with the entries of a session in order, from the message on whose run is followed.

    Without a message, the newest run counts.
    """

    def __init__(self, message: str | None = None) -> None:
        self.state: Rest = "working"
        self.end: Any = None
        self._message = message
        self._ours = message is None
        self._open: set[str] = set()
        self._asked: dict[str, str] = {}

    def feed(self, entry: Any) -> Rest:
        """Take one more entry; deltas and unknown entries change nothing."""
        if isinstance(entry, RunStarted):
            self._ours = self._message is None or self._message in entry.inputs
            self._open, self._asked = set(), {}
        elif isinstance(entry, AssistantSaid):
            self._ours = self._ours or self._message in entry.inputs
            self._open = {call.id for call in entry.calls}
        elif isinstance(entry, QUESTIONS):
            self._asked[entry.id] = entry.call or entry.id
            self._open.add(entry.call or entry.id)
        elif isinstance(entry, InterruptAnswered):
            self._asked.pop(entry.id, None)
        elif isinstance(entry, ToolDone):
            self._open.discard(entry.call)
        self.state = self._state(entry)
        return self.state

    def _state(self, entry: Any) -> Rest:
        stopped = isinstance(entry, Cancelled) and self._message in entry.inputs
        if isinstance(entry, SessionEndedEntry) or stopped or (self._ours and isinstance(entry, RUN_ENDS)):
            self.end = entry
            return "ended"
        blocked = bool(self._open) and self._open <= set(self._asked.values())
        return "waiting" if self._ours and blocked else "working"
