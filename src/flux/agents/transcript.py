"""The log of a session, folded into what the loop decides by and what the prompt is built from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from flux.events import (
    QUESTIONS,
    AssistantSaid,
    Cancelled,
    CancelRequested,
    ChatResponse,
    Compacted,
    ContextFrozen,
    Entry,
    Gated,
    InterruptAnswered,
    ModelFailed,
    Question,
    RunFailed,
    RunStarted,
    SessionEndedEntry,
    SessionStarted,
    Stored,
    ToolDone,
    ToolStarted,
    UnknownEntry,
    UserSaid,
    spent_by,
)
from flux.messages import Message, ToolCall

#: What may be in a log beside the entries of its worker.
FROM_OUTSIDE = (SessionStarted, UserSaid, CancelRequested, InterruptAnswered)


@dataclass
class CallState:
    """Where one tool call stands; `asked` counts its questions."""

    call: ToolCall
    gate: Gated | None = None
    question: Question | None = None
    answer: InterruptAnswered | None = None
    asked: int = 0
    started: bool = False
    done: ToolDone | None = None

    @property
    def waiting(self) -> bool:
        """Asked, and not answered."""
        return self.done is None and self.question is not None and self.answer is None


@dataclass
class UserItem:
    """A message in the place where it was consumed. `built` keeps its prompt messages between calls."""

    seq: int
    said: UserSaid
    built: tuple[Message, ...] | None = None


@dataclass
class AnswerItem:
    """A model's answer with the results of its calls."""

    seq: int
    said: AssistantSaid
    results: dict[str, ToolDone] = field(default_factory=dict)
    built: tuple[Message, ...] | None = None


@dataclass
class SummaryItem:
    """What stands for everything up to and with `seq`."""

    seq: int
    text: str
    built: tuple[Message, ...] | None = None


Item = UserItem | AnswerItem | SummaryItem


@dataclass
class RunState:
    """The run that is open in the log.

    `failures` are those of the model call that is due. `active_since` is when it started, or was last
    answered by a person, or may retry, in seconds since the epoch. `overflowed`: the prompt is known to be
    too long.
    """

    id: str
    inputs: tuple[str, ...]
    options: dict[str, object]
    active_since: float
    definition_digest: str
    calls: dict[str, CallState] = field(default_factory=dict)
    answer: AssistantSaid | None = None
    failures: list[ModelFailed] = field(default_factory=list)
    model_calls: int = 0
    iterations: int = 0
    tokens: int = 0
    cost: float = 0.0
    compacted: bool = False
    overflowed: bool = False
    cancelled: bool = False
    repeats: dict[str, int] = field(default_factory=dict)

    @property
    def open_calls(self) -> list[CallState]:
        """Calls of the newest answer that have no result yet, in their order."""
        return [state for state in self.calls.values() if state.done is None]


class Transcript:
    """A session's log so far. Entries are only ever added, so one may be kept and fed what is new.

    `epoch` is that of the newest entry which a worker wrote.
    """

    def __init__(self) -> None:
        self.head = 0
        self.epoch = 0
        self.started: SessionStarted | None = None
        self.context: ContextFrozen | None = None
        self.pending: dict[str, UserSaid] = {}
        self.items: list[Item] = []
        self.run: RunState | None = None
        self.turns = 0
        self.tokens = 0
        self.cost = 0.0
        self.prompt_tokens = 0
        self.ended = False
        self._said: dict[str, UserSaid] = {}
        self._answers: dict[str, InterruptAnswered] = {}
        self._cancels: set[str] = set()

    def extend(self, entries: Iterable[Stored]) -> Transcript:
        """Add what is new."""
        for stored in entries:
            self.head = stored.seq
            self.epoch = self.epoch if isinstance(stored.entry, FROM_OUTSIDE) else stored.epoch
            self._add(stored)
        return self

    @property
    def steers(self) -> tuple[str, ...]:
        """Unconsumed messages that join the next model call."""
        return tuple(id for id, said in self.pending.items() if said.mode == "steer")

    def next_message(self) -> UserSaid | None:
        """The message that starts the next run: the oldest that is not a steer, else the oldest."""
        waiting = list(self.pending.values())
        return next((said for said in waiting if said.mode != "steer"), waiting[0] if waiting else None)

    def _add(self, stored: Stored) -> None:
        entry = stored.entry
        if isinstance(entry, UnknownEntry):
            return
        self._count(entry)
        if self._add_session(entry, stored.seq) or self._add_question(entry, stored.at):
            return
        if isinstance(entry, RunStarted):
            self._start(entry, stored)
        elif self.run is not None:
            self._add_to_run(self.run, entry, stored.seq)

    def _count(self, entry: Entry) -> None:
        tokens, cost = spent_by(entry)
        for sum_ in (self, self.run) if self.run else (self,):
            sum_.tokens += tokens.total
            sum_.cost += cost

    def _add_session(self, entry: Entry, seq: int) -> bool:
        """Entries that mean the same in and outside a run."""
        match entry:
            case SessionStarted():
                self.started = entry
            case UserSaid():
                self.pending[entry.id] = self._said[entry.id] = entry
            case ContextFrozen():
                self.context = entry
            case Compacted():
                self._compact(entry)
            case CancelRequested():
                self._cancels.add(entry.run)
                if self.run is not None and self.run.id == entry.run:
                    self.run.cancelled = True
            case SessionEndedEntry():
                self.ended = True
            case _:
                return False
        return True

    def _add_question(self, entry: Entry, at: float) -> bool:
        calls = self.run.calls if self.run else {}
        if isinstance(entry, QUESTIONS):
            if entry.call in calls:
                # An answer may stand before its question: it counts wherever it is.
                calls[entry.call].question = entry
                calls[entry.call].answer = self._answers.get(entry.id)
                calls[entry.call].asked += 1
                calls[entry.call].started = False
            return True
        if isinstance(entry, InterruptAnswered):
            self._answers[entry.id] = entry
            if self.run is not None:
                self.run.active_since = at
            for state in calls.values():
                if state.question is not None and state.question.id == entry.id:
                    state.answer = entry
            return True
        return False

    def _start(self, entry: RunStarted, stored: Stored) -> None:
        first = self._said.get(entry.inputs[0]) if entry.inputs else None
        self.run = RunState(
            id=entry.run,
            inputs=entry.inputs,
            options=first.options if first else {},
            active_since=stored.at,
            definition_digest=entry.definition_digest,
            cancelled=entry.run in self._cancels,
        )
        self._consume(entry.inputs, stored.seq)

    def _add_to_run(self, run: RunState, entry: Entry, seq: int) -> None:
        match entry:
            case ModelFailed():
                run.failures.append(entry)
                run.overflowed = entry.kind == "overflow"
                run.active_since = max(run.active_since, entry.retry_at or 0.0)
            case AssistantSaid():
                self._answer(run, entry, seq)
            case Gated():
                run.calls[entry.call].gate = entry
            case ToolStarted():
                run.calls[entry.call].started = True
            case ToolDone():
                self._done(run, entry)
            case ChatResponse():
                self.turns = entry.turn
                self.run = None
            case RunFailed():
                self.run = None
            case Cancelled():
                self._consume(entry.inputs, seq)
                self.run = None
            case _:
                pass

    def _answer(self, run: RunState, entry: AssistantSaid, seq: int) -> None:
        self._consume(entry.inputs, seq)
        run.answer = entry
        run.calls = {call.id: CallState(call) for call in entry.calls}
        run.failures = []
        run.compacted = run.overflowed = False
        run.model_calls += 1
        run.iterations += bool(entry.calls)
        self.prompt_tokens = entry.usage.total
        self.items.append(AnswerItem(seq, entry))

    def _done(self, run: RunState, entry: ToolDone) -> None:
        state = run.calls.get(entry.call)
        if state is None or state.done is not None:
            return
        state.done = entry
        for item in reversed(self.items):
            if isinstance(item, AnswerItem):
                item.results[entry.call] = entry
                break
        key = f"{state.call.name} {state.call.args!r}"
        failed = entry.outcome in ("error", "timeout")
        run.repeats = {key: run.repeats.get(key, 0) + 1} if failed else {}

    def _consume(self, ids: tuple[str, ...], seq: int) -> None:
        for id in ids:
            said = self.pending.pop(id, None)
            if said is not None:
                self.items.append(UserItem(seq, said))

    def _compact(self, entry: Compacted) -> None:
        self.items = [SummaryItem(entry.upto, entry.summary), *(item for item in self.items if item.seq > entry.upto)]
        self.prompt_tokens = 0
        self.context = None
        if self.run is not None:
            self.run.compacted = True
            self.run.overflowed = False
