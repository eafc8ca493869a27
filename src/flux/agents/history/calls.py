"""The run that is open in a log, and where each of its tool calls stands."""

from __future__ import annotations

from msgspec import Struct

from flux.events import (
    AssistantSaid,
    Gated,
    InterruptAnswered,
    ModelFailed,
    Question,
    ToolDone,
    ToolStarted,
    ToolWaiting,
)
from flux.messages import ToolCall

# gc=False: no value here is part of a cycle, and a long log is too much for the collector to walk.


class CallState(Struct, gc=False):
    """Where one tool call stands; `asked` counts its questions, `earlier` are those answered before the last.

    `below` are open questions of a child that it drives, or of its own code; `resting` says that it waits for those,
    `rested` that it has come to wait since it was last started, so that nothing of it was going on any more.
    """

    call: ToolCall
    gate: Gated | None = None
    question: Question | None = None
    answer: InterruptAnswered | None = None
    asked: int = 0
    earlier: tuple[tuple[Question, InterruptAnswered], ...] = ()
    below: tuple[Question, ...] = ()
    resting: ToolWaiting | None = None
    stirred: bool = False
    rested: bool = False
    started: bool = False
    done: ToolDone | None = None

    @property
    def waiting(self) -> bool:
        """Asked, and not answered; or it waits for what it has started."""
        if self.done is not None:
            return False
        return self.resting is not None or (self.question is not None and self.answer is None)

    @property
    def asks(self) -> Question | None:
        """The oldest question that is open."""
        if self.question is not None and self.answer is None:
            return self.question
        return self.below[0] if self.below else None

    def ask(self, question: Question, answer: InterruptAnswered | None) -> None:
        """It asks; its answer may stand in the log before the question."""
        if self.question is not None and self.answer is not None:
            self.earlier += ((self.question, self.answer),)
        self.question, self.answer = question, answer
        self.asked += 1
        self.started = False

    def decide(self, answer: InterruptAnswered) -> None:
        """A question is answered: its own, or one of what it drives."""
        if self.question is not None and self.question.id == answer.id:
            self.answer = answer
        if any(question.id == answer.id for question in self.below):
            self.below = tuple(question for question in self.below if question.id != answer.id)
            self.resting, self.stirred = None, True


class RunState(Struct, gc=False):
    """The run that is open in the log.

    `compacting`: it was asked to summarise the history, and for nothing else; `compactions` are those since the
    newest answer. `failures` are those of the model call that is due. `reminded` counts what the loop itself has told
    the model. `active_since` is when it started, or was last answered by a person, or may retry, in seconds since the
    epoch. `overflowed`: the prompt is known to be too long.
    """

    id: str
    inputs: tuple[str, ...]
    options: dict[str, object]
    active_since: float
    definition_digest: str
    calls: dict[str, CallState] = {}
    answer: AssistantSaid | None = None
    failures: list[ModelFailed] = []
    model_calls: int = 0
    iterations: int = 0
    tokens: int = 0
    cost: float = 0.0
    compacting: bool = False
    compactions: int = 0
    overflowed: bool = False
    cancelled: bool = False
    reminded: int = 0
    repeats: dict[str, int] = {}

    @property
    def detached(self) -> bool:
        """Whether nothing of it becomes part of the conversation."""
        return bool(self.options.get("detached"))

    @property
    def open_calls(self) -> list[CallState]:
        """Calls of the newest answer that have no result yet, in their order."""
        return [state for state in self.calls.values() if state.done is None]

    def start_call(self, entry: ToolStarted) -> None:
        """A call acts."""
        state = self.calls[entry.call]
        state.started, state.resting, state.stirred, state.rested = True, None, False, False

    def rest_call(self, entry: ToolWaiting) -> None:
        """A call waits for what it has started, unless that has stirred meanwhile."""
        state = self.calls.get(entry.call)
        if state is not None:
            state.rested = True
            state.resting = None if state.stirred else entry

    def hear(self) -> None:
        """An execution has ended for which a call waits, or something that it drives: each looks for itself."""
        for state in self.open_calls:
            state.resting, state.stirred = None, True

    def finish_call(self, entry: ToolDone) -> bool:
        """A call has its result; False when it had one, or is none of this run's."""
        state = self.calls.get(entry.call)
        if state is None or state.done is not None:
            return False
        state.done = entry
        key = f"{state.call.name} {state.call.args!r}"
        failed = entry.outcome in ("error", "timeout")
        self.repeats = {key: self.repeats.get(key, 0) + 1} if failed else {}
        return True
