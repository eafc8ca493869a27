"""What the log of an execution says of its tasks: a fold over entries, without any I/O."""

from __future__ import annotations

from typing import Any

from flux.entries.workflows import TaskCompleted, TaskFailed, TaskRetryFailed, TaskStarted, WorkflowPaused
from flux.events import QUESTIONS, Cancelled, ChildDone, Question, RunStarted, ToolWaiting, UsageCounted
from flux.events import InterruptAnswered as Answered
from flux.store.executions import Spent

Finished = TaskCompleted | TaskFailed
#: The entries that it is made of.
TOLD = (
    *(TaskStarted, TaskCompleted, TaskFailed, TaskRetryFailed),
    *(Answered, ChildDone, ToolWaiting, UsageCounted, *QUESTIONS),
)


class Recorded:
    """What was recorded so far; entries are only ever added.

    `within`: of the code of one tool call only. `talks`: of a workflow that talks for an agent.
    """

    def __init__(self, within: str | None, talks: bool) -> None:
        self.within = within
        self.talks = talks
        self.started: dict[str, TaskStarted] = {}
        #: Calls that began to act, and have neither come to something nor been put away with what they wait for.
        self.in_flight: set[str] = set()
        self.finished: dict[str, Finished] = {}
        self.failed_tries: dict[str, int] = {}
        self.asked: dict[str, Any] = {}
        self.answers: dict[str, Answered] = {}
        #: How many runs of its session were stopped; and what was answered in the present one.
        self.stopped = 0
        self._answered_now: list[str] = []
        self.ended: dict[str, ChildDone] = {}
        #: The questions of driven children that were asked here too.
        self.asked_below: set[str] = set()
        #: What driven children had used when this process began to read.
        self.counted: dict[str, Spent] = {}
        self.looked_back = False

    def add(self, entry: Any) -> str | None:
        """Add an entry; the id of the question or the execution that whoever waits for it may go on by."""
        match entry:
            case TaskStarted():
                self.started[entry.call] = entry
                self.in_flight.add(entry.call)
            case TaskCompleted() | TaskFailed():
                self.finished[entry.call] = entry
                self.in_flight.discard(entry.call)
            case WorkflowPaused():
                self.in_flight.clear()
            case ToolWaiting(call=self.within):
                self.in_flight.clear()
            case TaskRetryFailed():
                self.failed_tries[entry.call] = self.failed_tries.get(entry.call, 0) + 1
            case Answered():
                self.answers[entry.id] = entry
                self._answered_now.append(entry.id)
                return entry.id
            case ChildDone():
                self.ended[entry.child] = entry
                return entry.child
            case UsageCounted(child=str(child)) if not self.looked_back:  # the others are its own
                self.counted[child] = self.counted.get(child, Spent()).plus(entry.tokens, entry.cost)
            case _:
                self._add_of_session(entry)
        return None

    def _add_of_session(self, entry: Any) -> None:
        if isinstance(entry, QUESTIONS):
            self._ask(entry)
        elif self.talks and isinstance(entry, RunStarted):
            self._answered_now.clear()
        elif self.talks and isinstance(entry, Cancelled):
            self._stop()

    def _ask(self, entry: Question) -> None:
        if entry.session is not None:
            self.asked_below.add(entry.id)
        elif entry.call is not None:
            self.asked[entry.call] = entry

    def _stop(self) -> None:
        """Of a run that was stopped counts no more what was answered in it, and open questions are asked anew."""
        self.stopped += 1
        for id in self._answered_now:
            self.answers.pop(id, None)
        self._answered_now.clear()
        self.asked = {call: asked for call, asked in self.asked.items() if asked.id in self.answers}
