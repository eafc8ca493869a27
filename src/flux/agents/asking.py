"""Sessions that the code of a workflow drives: one call of a task does what it does in one of them."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from pydantic import BaseModel

from flux.agents.define.output import parse_output
from flux.agents.executor import SessionExecutor
from flux.agents.memory.kit import memory_kits
from flux.agents.memory.providers import MemoryStores
from flux.agents.parts.skills import SkillsKit
from flux.agents.parts.task_tools import TaskTools
from flux.agents.turn.binding import Binder
from flux.agents.turn.kits import Given
from flux.engine.dispatching.upkeep import to_the_end
from flux.engine.encoding.values import json_value
from flux.engine.running import driving
from flux.engine.running.driving import Ended, Order, Waiting, asked_here
from flux.engine.running.run import Executor, HandOver
from flux.engine.workflows.journal import Journal
from flux.engine.workflows.place import Body
from flux.entries.workflows import TaskCompleted, TaskFailed, TaskStarted
from flux.errors import AgentFailed, ExecutionSuspended, OutputInvalid
from flux.events import (
    QUESTIONS,
    ChatResponse,
    CompactRequested,
    DeltaEvent,
    Entry,
    Progress,
    Question,
    SessionStarted,
    Token,
    ToolDone,
    ToolOutput,
    ToolStarted,
    UserSaid,
    spent_by,
)
from flux.messages import TextPart
from flux.models.bundled import scripted
from flux.models.registry import ModelRegistry, provider_settings
from flux.redaction import Known
from flux.settings import load_settings
from flux.store import log
from flux.store.database import LOCAL
from flux.store.driven import NO_HISTORY
from flux.store.executions import Spent

#: How often an answer may not fit the format, one after the other.
MAX_MISFITS = 3
#: Under this key a process keeps the executor of sessions.
EXECUTOR = "session executor"

#: What a question is called where a workflow says what it waits for.
KINDS = {
    "approval_required": "approval",
    "elicitation": "elicitation",
    "input_required": "input",
    "plan_review": "plan",
}


class Asked:
    """One call of an agent in a workflow: the session it drives, and how that is told here.

    `started` says whose session that is, where it is not one of its own; `history` what it begins with; `work` does
    something else in it than talk.
    """

    def __init__(
        self,
        journal: Journal,
        body: Body,
        given: Given,
        child: str,
        *,
        format: type[BaseModel] | None = None,
        started: SessionStarted | None = None,
        work: Executor | None = None,
        history: log.History = NO_HISTORY,
    ) -> None:
        #: Is shown what happens.
        self.shown: Callable[[Entry | DeltaEvent], object] | None = None
        self._work = work
        self._history = history
        self._journal = journal
        self._body = body
        self._given = given
        self._format = format
        self.child = child
        self._started = started or SessionStarted(
            agent=given.definition.name, instance=child, name="default", definition_digest=given.definition.digest
        )
        self._spent = Spent()

    async def answer(self, text: str) -> Any:
        """The agent's answer. A call that is tried again goes on in the same session."""
        said, misfits = text, 0
        for n in itertools.count():
            outcome = await self._until_end(n, said)
            if not isinstance(outcome.end, ChatResponse):
                self._fail_unless_before(outcome)
                said, misfits = text, 0  # an earlier try ended so
                continue
            try:
                answer = self._parsed(outcome.end.content)
            except OutputInvalid as problem:
                misfits += 1
                said = f"Your answer does not fit: {problem}. Answer again, with the whole corrected object only."
                if misfits == MAX_MISFITS:
                    raise AgentFailed(f"the agent {self._name} gave no fitting answer: {problem}") from problem
            else:
                return answer
        raise AssertionError

    @property
    def _name(self) -> str:
        return self._given.definition.name

    def _parsed(self, content: str) -> Any:
        return content if self._format is None else parse_output(self._format, content)

    def _fail_unless_before(self, outcome: Ended) -> None:
        if not outcome.before:
            said = getattr(outcome.end, "message", "its run was stopped")
            raise AgentFailed(f"the agent {self._name} failed: {said}")

    async def _until_end(self, n: int, text: str) -> Ended:
        said = UserSaid(id=self.message(n), mode="queue", parts=(TextPart(text),))
        return await self.until_end(said)

    async def until_end(self, said: UserSaid | CompactRequested) -> Ended:
        """Drive the session until the run of a message has ended; what it waits for, wait for that."""
        order = Order(self._started, said, self._history)
        while True:
            outcome = await self._drive(order)
            if isinstance(outcome, Ended):
                self._journal.count(self.child, outcome.spent)  # in one append with what the task comes to
                return outcome
            await self._park(outcome)

    async def _drive(self, order: Order) -> Ended | Waiting:
        journal = self._journal
        executor = await journal.outside(session_executor(journal))
        run = self._work or partial(executor.execute, given=self._given)
        try:
            return await journal.outside(driving.drive(journal.run, self.child, order, run, self))
        except HandOver:
            raise ExecutionSuspended from None
        except asyncio.CancelledError:
            if self.stops:
                journal.count(self.child, self._spent)
            raise

    def message(self, n: int) -> str:
        """The id of the n-th message of this call."""
        return driving.message_of(self.child, f"{self._body.call}/{n}")

    async def _park(self, waiting: Waiting) -> None:
        """Wait for an answer to a question of the child, or for its time."""
        journal = self._journal
        questions = [question.id for question in waiting.questions]
        if any(id in journal.answers for id in questions) or any(id in journal.ended for id in waiting.targets):
            return
        journal.also_wakes |= dict.fromkeys((*questions, *waiting.targets), self.child)
        kind, shown = _shown(waiting.questions[0]) if questions else ("child" if waiting.targets else "timer", None)
        try:
            await journal.park(self._body.call, self.child, kind, shown, waiting.due, self._body)
        except asyncio.CancelledError:
            if self.stops:
                await to_the_end(self._stop())
            raise

    async def _stop(self) -> None:
        """Stop the session while it waits."""
        executor = await session_executor(self._journal)
        run = partial(executor.execute, given=self._given)
        await driving.stop(self._journal.run, self.child, run, self)
        self._journal.count(self.child, self._spent)

    # What the session tells whoever drives it

    async def saw(self, entries: Sequence[Entry]) -> None:
        """Ask the session's questions here too, and show its tools as tasks."""
        for entry in entries:
            self._spent = self._spent.plus(*spent_by(entry))
            self._show(entry)
            if self.shown is not None:
                self.shown(entry)
        asked = [entry for entry in entries if isinstance(entry, QUESTIONS)]
        if asked:
            call = self._journal.within or self._body.call
            await self._journal.record(*(asked_here(entry, call, self.child) for entry in asked))

    def knows(self, question: str) -> bool:
        """Whether it was asked here."""
        return question in self._journal.asked_below

    def emitted(self, delta: DeltaEvent) -> None:
        """Show a piece as progress of the task."""
        if self.shown is not None:
            self.shown(delta)
        match delta:
            case Token(text=text):
                self._progress({"token": text})
            case ToolOutput(call=call, text=text):
                self._progress({"type": "tool_output", "id": call, "text": text})
            case Progress(value=value):
                self._progress(value)

    def took(self, spent: Spent) -> None:
        """Begin to count with what it has spent."""
        self._spent = spent

    def overdrawn(self, tokens: int, cost: float) -> str | None:
        """A workflow has no budget; who drives a session whose tool asks may have one."""
        return self._journal.run.overdrawn(tokens, cost)

    @property
    def stops(self) -> bool:
        """A task that is cancelled stops its agent, but not a workflow that only leaves this process."""
        return not self._journal.suspended

    def _show(self, entry: Entry) -> None:
        match entry:
            case ToolStarted(call=call, name=name):
                self._progress({"type": "tool_start", "id": call, "name": name})
                self._journal.note(TaskStarted(call=call, name=name))
            case ToolDone(call=call, name=name, status="success"):
                self._progress({"type": "tool_done", "id": call, "name": name, "status": "success"})
                self._journal.note(TaskCompleted(call=call, name=name, value=entry.content))
            case ToolDone(call=call, name=name):
                self._progress({"type": "tool_done", "id": call, "name": name, "status": "error"})
                self._journal.note(TaskFailed(call=call, name=name, message=entry.content))

    def _progress(self, value: Any) -> None:
        self._journal.show(json_value(value), self._body.call, self._body.name)


def _shown(question: Question) -> tuple[str, Any]:
    """The kind of a question, and what a paused workflow shows of it."""
    tag = str(question.__struct_config__.tag)
    shown = {key: value for key, value in msgspec.to_builtins(question).items() if key not in ("v", "state")}
    return KINDS.get(tag, tag), shown


async def session_executor(journal: Journal) -> SessionExecutor:
    """The executor of sessions of this process; a script makes one when it first needs it."""
    services, known = journal.services, Known()

    async def secret(name: str) -> str:
        return str((await services.secrets(LOCAL, [name]))[name])

    async def make(stack: AsyncExitStack) -> SessionExecutor:
        settings = load_settings(os.environ)
        models = ModelRegistry(
            os.environ,
            provider_settings(settings.providers),
            {"scripted": scripted},
            stalled_after=settings.model_stall,
            keys=settings.keys,
        )
        models.secret = secret
        stack.push_async_callback(models.aclose)
        stack.callback(known.forget)
        known.add(*models.keys())
        binder = Binder(models, Path.cwd(), os.environ)
        stores = MemoryStores(services.database, services.secrets, settings, known)
        stack.push_async_callback(stores.close)
        before, after = (TaskTools(services), SkillsKit(binder)), (memory_kits(stores),)
        return SessionExecutor(services.database, binder, models, settings, before=before, after=after)

    return await services.kept.get(EXECUTOR, make)
