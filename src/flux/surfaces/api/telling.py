"""Which frames a request's stream tells of what happens in a session, and when the stream is over."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flux.events import DeltaEvent, InterruptAnswered, RunStarted
from flux.surfaces.frames import Frame, Frames
from flux.watch import Rest, RunWatch

#: Questions are told when the run rests: what stands last in a stream says why it ended.
QUESTIONS = frozenset({"approval_required", "elicitation", "pause"})


class Telling:
    """Fed with events in order; `done` when the run that the request is about rests.

    `past` is what the session's present run has done so far, `agent` whose session it is.
    """

    def __init__(self, agent: str, past: Iterable[Any] = ()) -> None:
        self.done = False
        self._tells = False  # whether pieces that come now belong to what is told
        self._frames = Frames(agent)
        self._present = RunWatch()
        for entry in past:
            self._frames.feed(entry)
            self._present.feed(entry)

    def is_open(self, interrupt: str) -> bool:
        """Whether nobody has answered this question yet."""
        return interrupt in self._frames.open

    def feed(self, event: Any) -> list[Frame]:
        """What is told of one more event."""
        if isinstance(event, DeltaEvent):  # most events are; they move nothing
            return self._frames.feed(event) if self._tells else []
        made = [frame for frame in self._frames.feed(event) if frame["type"] not in QUESTIONS or "due" in frame]
        present = self._present.feed(event)
        state, self._tells = self._judge(event, present)
        self.done = state == "ended" or (state == "waiting" and bool(self._frames.asked))
        return [*(made if self._tells else []), *(self._frames.asked if self.done and state == "waiting" else [])]

    def _judge(self, event: Any, present: Rest) -> tuple[Rest, bool]:
        """How the run of this request stands, and whether the event is to be told."""
        raise AssertionError("a Telling is of a message or of an answer")


class OfMessage(Telling):
    """The run of a message. What runs before it is not told, unless it waits for a person: that is told instead.

    `attached`: the message was accepted earlier, and its run is waited for whatever stands before it. `joins`: it is to
    be read by the run at work, whose rest is told.
    """

    def __init__(
        self, agent: str, past: Iterable[Any], message: str, *, attached: bool = False, joins: bool = False
    ) -> None:
        super().__init__(agent, past)
        self._message = message
        self._watch = RunWatch(message)
        self._attached = attached
        self._joins = joins and not attached
        self._begun = False

    def _judge(self, event: Any, present: Rest) -> tuple[Rest, bool]:
        state = self._watch.feed(event)
        self._begun |= isinstance(event, RunStarted) and self._message in event.inputs
        if self._begun or state == "ended":
            return state, True
        return ("waiting" if present == "waiting" and not self._attached else "working"), self._joins


class OfAnswer(Telling):
    """The rest of the run that asked, from the answer to `interrupt` on."""

    def __init__(self, agent: str, past: Iterable[Any], interrupt: str) -> None:
        super().__init__(agent, past)
        self._tells = True
        self._interrupt = interrupt
        self._answered = False

    def _judge(self, event: Any, present: Rest) -> tuple[Rest, bool]:
        self._answered |= isinstance(event, InterruptAnswered) and event.id == self._interrupt
        return (present if self._answered else "working"), True
