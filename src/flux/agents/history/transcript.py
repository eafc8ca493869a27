"""The log of a session, folded into what the loop decides by and what the prompt is built from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from flux.agents.history.base import Base, RunBase
from flux.agents.history.calls import CallState, RunState
from flux.agents.history.items import AnswerItem, Item, SummaryItem, UserItem, spilled_in, told_by
from flux.agents.history.results import SCHEME
from flux.events import (
    QUESTIONS,
    AssistantSaid,
    Cancelled,
    CancelRequested,
    ChatResponse,
    ChildDone,
    CompactDone,
    Compacted,
    CompactRequested,
    ContextFrozen,
    Entry,
    Forked,
    Gated,
    InterruptAnswered,
    ModelFailed,
    Planned,
    Question,
    RunFailed,
    RunStarted,
    SessionEndedEntry,
    SessionStarted,
    Stored,
    SubagentChanged,
    ToolDone,
    ToolStarted,
    ToolWaiting,
    UsageCounted,
    UserSaid,
    spent_by,
)
from flux.store.executions import Spent

# gc=False: no value here is part of a cycle, and a long log is too much for the collector to walk.

#: What may be in a log beside the entries of its worker.
FROM_OUTSIDE = frozenset((SessionStarted, UserSaid, CompactRequested, CancelRequested, InterruptAnswered, ChildDone))
#: How the address of something that was kept begins.
KEPT = f"{SCHEME}://"


class Transcript:
    """A session's log so far. Entries are only ever added, so one may be kept and fed what is new.

    `epoch` is that of the newest entry which a worker wrote.
    """

    def __init__(self) -> None:
        self.head = 0
        self.epoch = 0
        self.started: SessionStarted | None = None
        self.context: ContextFrozen | None = None
        #: The frozen prompt is to be made anew before the next call.
        self.thawed = False
        self.plan: tuple[dict[str, Any], ...] = ()
        self.marks: dict[str, dict[str, Any]] = {}
        #: Of the agent of the newest run.
        self.definition_digest = ""
        self.pending: dict[str, UserSaid] = {}
        #: Requests to summarise the history that no run has consumed.
        self.requests: dict[str, CompactRequested] = {}
        self.items: list[Item] = []
        self.run: RunState | None = None
        self.turns = 0
        self.tokens = 0
        self.cost = 0.0
        self.prompt_tokens = 0
        self.ended = False
        #: Something long was kept beside the log, or a call told the address of such a thing.
        self.kept = False
        #: The call that drives a child, by the child.
        self.delegated: dict[str, str] = {}
        #: What children have used, as far as it is counted here.
        self.counted: dict[str, Spent] = {}
        #: Where inputs stand that no run has consumed, and the frozen prompt.
        self._places: dict[str, int] = {}
        self._context_at = 0
        #: The seq up to which entries are told by what they come to.
        self._based_on = 0
        self._answers: dict[str, InterruptAnswered] = {}
        self._below: set[str] = set()
        self._cancels: set[str] = set()

    def extend(self, entries: Iterable[Stored]) -> Transcript:
        """Add what is new."""
        for stored in entries:
            kind = type(stored.entry)
            self.head = stored.seq
            if kind not in FROM_OUTSIDE:
                self.epoch = stored.epoch
            add = ADD.get(kind)
            if add is not None:
                add(self, stored.entry, stored)
            elif kind in ADD_TO_RUN and self.run is not None:
                ADD_TO_RUN[kind](self, self.run, stored.entry, stored.seq)
        return self

    @property
    def steers(self) -> tuple[str, ...]:
        """Unconsumed messages that join the next model call."""
        return tuple(id for id, said in self.pending.items() if said.mode == "steer")

    def next_message(self) -> UserSaid | None:
        """The message that starts the next run: the oldest that is not a steer, else the oldest."""
        waiting = list(self.pending.values())
        return next((said for said in waiting if said.mode != "steer"), waiting[0] if waiting else None)

    def cancels(self, run: str) -> bool:
        """Whether somebody has asked to stop that run, which may not have begun."""
        return run in self._cancels

    def _count_below(self, entry: UsageCounted, _: Stored) -> None:
        if entry.child is not None:
            self.counted[entry.child] = self.counted.get(entry.child, Spent()).plus(entry.tokens, entry.cost)
        self._count(entry)

    def _count(self, entry: Entry, _: Stored | None = None) -> None:
        tokens, cost = spent_by(entry)
        total = tokens.input + tokens.output
        self.tokens += total
        self.cost += cost
        run = self.run
        if run is not None:
            run.tokens += total
            run.cost += cost

    def base(self) -> dict[str, Any]:
        """What the log comes to by now, for a compaction that reaches as far."""
        run = self.run
        fields = RunBase.__struct_fields__
        base = Base(
            needs=tuple(sorted({1, self._context_at, *self._places.values()} - {0})),
            definition_digest=self.definition_digest,
            plan=self.plan,
            marks=self.marks,
            turns=self.turns,
            tokens=self.tokens,
            cost=self.cost,
            kept=self.kept,
            delegated=self.delegated,
            counted=self.counted,
            cancels=tuple(sorted(self._cancels)),
            run=RunBase(**{name: getattr(run, name) for name in fields}) if run else None,
        )
        found: dict[str, Any] = msgspec.to_builtins(base)
        return found

    def _restore(self, base: Base, upto: int) -> None:
        """Begin with what everything up to a compaction comes to."""
        self._based_on = upto
        self.definition_digest, self.plan, self.marks = base.definition_digest, base.plan, dict(base.marks)
        self.turns, self.tokens, self.cost, self.kept = base.turns, base.tokens, base.cost, base.kept
        self.delegated, self.counted = dict(base.delegated), dict(base.counted)
        self._cancels = set(base.cancels)
        self.run = RunState(**msgspec.structs.asdict(base.run)) if base.run else None

    def _begin(self, entry: SessionStarted, _: Stored) -> None:
        self.started = entry

    def _say(self, entry: UserSaid, stored: Stored) -> None:
        self.pending[entry.id] = entry
        self._places[entry.id] = stored.seq
        if self.run is not None and entry.options.get("reminder") and stored.seq > self._based_on:
            self.run.reminded += 1

    def _request_compaction(self, entry: CompactRequested, stored: Stored) -> None:
        self.requests[entry.id] = entry
        self._places[entry.id] = stored.seq

    def _freeze(self, entry: ContextFrozen, stored: Stored) -> None:
        self.context = entry
        self.thawed = False
        self._context_at = stored.seq
        self.marks |= {tool["name"]: tool["mark"] for tool in entry.tools if "mark" in tool}

    def _plan(self, entry: Planned, _: Stored) -> None:
        self.plan = entry.steps

    def _request_cancel(self, entry: CancelRequested, _: Stored) -> None:
        self._cancels.add(entry.run)
        if self.run is not None and self.run.id == entry.run:
            self.run.cancelled = True

    def _compact(self, entry: Compacted, _: Stored) -> None:
        if self.started is None and entry.base is not None:  # no log begins so: it is read from here on
            self._restore(msgspec.convert(entry.base, Base), entry.upto)
            return
        self._count(entry)
        newer = [spilled_in(item, entry.spilled) for item in self.items if item.seq > entry.upto]
        told = told_by(entry)
        self.items = [SummaryItem(entry.upto, told, entry), *newer] if told else newer
        self.kept = self.kept or bool(entry.spilled)
        self.prompt_tokens = 0
        self.thawed = True
        if self.run is not None:
            self.run.compactions += 1
            self.run.overflowed = False

    def _end(self, _: SessionEndedEntry, __: Stored) -> None:
        self.ended = True

    def _fork(self, _: Forked, __: Stored) -> None:
        """A copy begins with what was said before, and with nothing else: no open work, children or bills."""
        self.run, self.ended = None, False
        self.pending, self.requests, self._places, self.delegated, self.counted = {}, {}, {}, {}, {}
        self._cancels = set()
        self.tokens, self.cost = 0, 0.0

    def _ask(self, entry: Question, _: Stored) -> None:
        state = self.run.calls.get(entry.call or "") if self.run else None
        within = getattr(entry, "within", None)
        if entry.session is not None:
            self._ask_below(state, entry)
        elif within is not None:
            self._ask_below(self.run.calls.get(within) if self.run else None, entry)
        elif state is not None:
            state.ask(entry, self._answers.get(entry.id))

    def _ask_below(self, state: CallState | None, entry: Question) -> None:
        """A question of a child, asked here too; its answer may stand before it."""
        self._below.add(entry.id)
        if state is not None and entry.id not in self._answers:
            state.below += (entry,)

    def knows_question(self, id: str) -> bool:
        """Whether a question of a child was asked here."""
        return id in self._below

    def has_rested(self, call: str) -> bool:
        """Whether a call has come to wait since it was last started."""
        state = self.run.calls.get(call) if self.run else None
        return state is not None and state.rested

    def _delegate(self, entry: SubagentChanged, _: Stored) -> None:
        self.delegated[entry.child] = entry.call

    def _rest(self, run: RunState, entry: ToolWaiting, _: int) -> None:
        run.rest_call(entry)

    def _hear(self, run: RunState, _: ChildDone, __: int) -> None:
        run.hear()

    def _decide(self, entry: InterruptAnswered, stored: Stored) -> None:
        self._answers[entry.id] = entry
        if self.run is None:
            return
        self.run.active_since = stored.at
        for state in self.run.calls.values():
            state.decide(entry)

    def _start(self, entry: RunStarted, stored: Stored) -> None:
        first = self.pending.get(entry.inputs[0]) if entry.inputs else None
        self.definition_digest = entry.definition_digest
        self.run = RunState(
            id=entry.run,
            inputs=entry.inputs,
            options=first.options if first else {},
            active_since=stored.at,
            definition_digest=entry.definition_digest,
            compacting=any(id in self.requests for id in entry.inputs),
            cancelled=entry.run in self._cancels,
        )
        self._cancels.discard(entry.run)
        self._consume(entry.inputs, stored.seq)

    def _fail_call(self, run: RunState, entry: ModelFailed, _: int) -> None:
        run.failures.append(entry)
        run.overflowed = entry.kind == "overflow"
        run.active_since = max(run.active_since, entry.retry_at or 0.0)

    def _answer(self, entry: AssistantSaid, stored: Stored) -> None:
        self._count(entry)
        run = self.run
        if run is None:
            return
        if entry.inputs:
            self._consume(entry.inputs, stored.seq)
        run.answer = entry
        run.calls = {call.id: CallState(call) for call in entry.calls} if entry.calls else {}
        run.failures = []
        run.compactions, run.overflowed = 0, False
        run.model_calls += 1
        run.iterations += bool(entry.calls)
        if not run.detached:
            self.prompt_tokens = entry.usage.total
            self.items.append(AnswerItem(stored.seq, entry))

    def _gate(self, run: RunState, entry: Gated, _: int) -> None:
        run.calls[entry.call].gate = entry

    def _start_tool(self, run: RunState, entry: ToolStarted, _: int) -> None:
        run.start_call(entry)

    def _done(self, run: RunState, entry: ToolDone, _: int) -> None:
        if not run.finish_call(entry):
            return
        self.kept = self.kept or entry.artifact is not None or KEPT in entry.content
        for item in reversed(self.items if not run.detached else ()):
            if isinstance(item, AnswerItem):
                item.results = {**item.results, entry.call: entry}
                break

    def _respond(self, _: RunState, entry: ChatResponse, __: int) -> None:
        self.turns = entry.turn or self.turns
        self.run = None

    def _fail(self, _: RunState, __: RunFailed | CompactDone, ___: int) -> None:
        self.run = None

    def _cancel(self, _: RunState, entry: Cancelled, seq: int) -> None:
        self._consume(entry.inputs, seq)
        self.run = None

    def _consume(self, ids: tuple[str, ...], seq: int) -> None:
        for id in ids:
            self._places.pop(id, None)
            self.requests.pop(id, None)
            said = self.pending.pop(id, None)
            if said is not None and not (self.run is not None and self.run.detached):
                self.items.append(UserItem(seq, said))


#: What an entry does to a transcript, by its type: a look-up, because a log may have many thousands.
ADD: Mapping[type, Callable[[Transcript, Any, Stored], None]] = {
    SessionStarted: Transcript._begin,
    UserSaid: Transcript._say,
    CompactRequested: Transcript._request_compaction,
    ContextFrozen: Transcript._freeze,
    CancelRequested: Transcript._request_cancel,
    Compacted: Transcript._compact,
    Forked: Transcript._fork,
    Planned: Transcript._plan,
    SubagentChanged: Transcript._delegate,
    SessionEndedEntry: Transcript._end,
    UsageCounted: Transcript._count_below,
    RunStarted: Transcript._start,
    AssistantSaid: Transcript._answer,
    InterruptAnswered: Transcript._decide,
    **dict.fromkeys(QUESTIONS, Transcript._ask),
}
#: What an entry does to the open run.
ADD_TO_RUN: Mapping[type, Callable[[Transcript, RunState, Any, int], None]] = {
    ModelFailed: Transcript._fail_call,
    Gated: Transcript._gate,
    ToolStarted: Transcript._start_tool,
    ToolDone: Transcript._done,
    ToolWaiting: Transcript._rest,
    ChildDone: Transcript._hear,
    ChatResponse: Transcript._respond,
    CompactDone: Transcript._fail,
    RunFailed: Transcript._fail,
    Cancelled: Transcript._cancel,
}
