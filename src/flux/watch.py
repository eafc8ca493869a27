"""Following one run through the events of its session: does it work, wait for a person, or has it ended?"""

from __future__ import annotations

from typing import Any, Literal

from flux.events import (
    QUESTIONS,
    RUN_ENDS,
    AssistantSaid,
    Cancelled,
    InterruptAnswered,
    Paused,
    Question,
    RunStarted,
    SessionEndedEntry,
    ToolDone,
    ToolStarted,
    ToolWaiting,
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
        self._inside: dict[str, str] = {}  # questions that the code of a call asks: it may be working beside them
        self._parked: set[str] = set()
        #: Pauses before any run: what a workflow that talks waits for first, with the message queued behind it.
        self._first: set[str] | None = set()

    def feed(self, entry: Any) -> Rest:
        """Take one more entry; deltas and unknown entries change nothing."""
        if isinstance(entry, RunStarted):
            self._ours = self._message is None or self._message in entry.inputs
            self._first = None
            self._open, self._asked, self._inside, self._parked = set(), {}, {}, set()
        elif isinstance(entry, AssistantSaid):
            self._ours = self._ours or self._message in entry.inputs
            self._open = {call.id for call in entry.calls}
        elif isinstance(entry, QUESTIONS):
            self._ask(entry)
        elif isinstance(entry, InterruptAnswered):
            self._asked.pop(entry.id, None)
            (self._first or set()).discard(entry.id)
            self._parked.discard(self._inside.pop(entry.id, ""))
        else:
            self._call(entry)
        self.state = self._state(entry)
        return self.state

    def _ask(self, question: Question) -> None:
        within = None if question.session is not None else getattr(question, "within", None)
        if within is not None:
            self._inside[question.id] = within
            return
        if self._first is not None and isinstance(question, Paused):
            self._first.add(question.id)
        self._asked[question.id] = question.call or question.id
        self._open.add(question.call or question.id)

    def _call(self, entry: Any) -> None:
        """A call goes on, rests or has ended."""
        if isinstance(entry, ToolWaiting):
            self._parked.add(entry.call)
        elif isinstance(entry, ToolStarted | ToolDone):
            self._parked.discard(entry.call)
        if isinstance(entry, ToolDone):
            self._open.discard(entry.call)

    def _state(self, entry: Any) -> Rest:
        stopped = isinstance(entry, Cancelled) and self._message in entry.inputs
        if isinstance(entry, SessionEndedEntry) or stopped or (self._ours and isinstance(entry, RUN_ENDS)):
            self.end = entry
            return "ended"
        resting = {*self._asked.values(), *(self._parked & set(self._inside.values()))}
        behind = self._first or (self._ours and self._open and self._open <= resting)
        return "waiting" if behind else "working"
