"""The loop: reads the log, does the next missing thing, and leaves when there is none.

A crash anywhere is repaired by running it again. Everything it knows is in the log.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import msgspec

from flux.agents.history import asked, prompt
from flux.agents.history.calls import CallState
from flux.agents.history.cuts import Compact
from flux.agents.history.items import UserItem
from flux.agents.history.transcript import Transcript
from flux.agents.history.window import windowed
from flux.agents.turn.binding import Bound
from flux.agents.turn.budget import Allowed, allowed, reserved_for_agent
from flux.agents.turn.compaction import SummaryFailed, compact
from flux.agents.turn.kits import Given, Kit
from flux.agents.turn.model_calls import Attempt, Partial, call_model, message_id, wait_until
from flux.agents.turn.steps import (
    CallModel,
    Finish,
    Idle,
    Park,
    Policy,
    Remind,
    Settle,
    StartRun,
    Step,
    Tools,
    last_word,
    next_step,
    over_budget,
    tries,
)
from flux.agents.turn.tool_calls import cancelled, lost, tool_wave
from flux.engine.running.run import Run
from flux.errors import FluxError
from flux.events import AssistantSaid, Cancelled, Entry, ModelFailed, RunEnd, RunFailed, RunStarted, UserSaid
from flux.messages import Message
from flux.models.base import ReasoningEffort
from flux.sandboxes.base import Sandbox
from flux.store.log import Then

T = TypeVar("T")

IDLE = Then("idle")


class Session:
    """One session on this worker: its run, its transcript, and how its agent is bound."""

    def __init__(
        self,
        run: Run,
        log: Transcript,
        bind: Callable[[Session], Awaitable[Bound]],
        policy: Policy,
        attempts: int,
        stop_children: Callable[[Session], Awaitable[list[Entry]]],
        given: Given | None = None,
    ) -> None:
        self.given = given
        self._stop_children = stop_children
        self.run = run
        self.log = log
        self.policy = msgspec.structs.replace(policy, claimed_at=run.execution.updated)
        self.attempts = attempts
        self._claimed = time.monotonic()
        self._bind = bind
        self._bound: Bound | None = None
        #: Where its tools act; opened when its agent is bound.
        self.sandbox: Sandbox | None = None
        self._below: dict[str, tuple[int, float]] = {}

    def now(self) -> float:
        """The database's clock, in seconds since the epoch; workers' own clocks may differ."""
        return self.run.execution.updated + time.monotonic() - self._claimed

    @property
    def workspace(self) -> str | None:
        """The directory its tools act in; None: the worker's own."""
        return self.log.started.workspace if self.log.started else None

    async def bound(self) -> Bound:
        """The live agent; made when it is first needed, and again when a part of it has changed."""
        if self._bound is None or self._bound.stale:
            self._bound = await self._bind(self)
        return self._bound

    def next_step(self) -> Step:
        """What to do next, as the log says."""
        return next_step(self.log, self.run.failures, self.policy, self.now(), self.run.overdrawn(*self._spent_below()))

    def count_below(self, child: str, tokens: int | None, cost: float | None) -> None:
        """A child has spent so much more; None: what it spent is in the log now."""
        if tokens is None or cost is None:
            self._below.pop(child, None)
        else:
            before = self._below.get(child, (0, 0.0))
            self._below[child] = (before[0] + tokens, before[1] + cost)

    def _spent_below(self) -> tuple[int, float]:
        return sum(one[0] for one in self._below.values()), sum(one[1] for one in self._below.values())

    def overdrawn(self, tokens: int, cost: float) -> str | None:
        """Why a child may spend no more, when those below that have spent so much which it does not know of yet."""
        below, below_cost = self._spent_below()
        below, below_cost = below + tokens, below_cost + cost
        own = over_budget(self.log, self.log.run, self.policy, below, below_cost) if self.log.run else None
        return own or self.run.overdrawn(below, below_cost)

    async def reserve(self) -> Allowed | str | None:
        """What the next model call may spend; why it may spend nothing. None: there is no budget."""
        if self.policy.budget is None and self.run.link is None:
            return None
        most = self.policy.definition.max_tokens
        found = allowed(self.log, most, self.overdrawn)
        if isinstance(found, Allowed) and self.policy.budget is not None and self.run.account is not None:
            limit = self.policy.budget.agent
            found = await reserved_for_agent(self.run, self.run.account, limit, self.log, found.output)
        return found

    @contextmanager
    def spending(self, room: Allowed | None) -> Iterator[None]:
        """While a call may spend what was reserved: others that spend from the same budget see it as spent."""
        link = self.run.link
        if room is None or link is None:
            yield
            return
        link.took(room.on_top_of(self.run.spent))
        try:
            yield
        finally:
            link.took(self.run.spent)

    async def stop_children(self) -> list[Entry]:
        """Stop what the run drives; returns the entries of that."""
        return await self._stop_children(self)

    async def catch_up(self) -> None:
        """Read what is new in the log."""
        self.log.extend(await self.run.read(self.log.head))


#: Makes the kit of one part of an agent for a session; None: the agent has no such part.
KitMaker = Callable[[Session], Awaitable[Kit | None]]


async def run_session(session: Session) -> None:
    """Run a session until it rests."""
    while True:
        await session.catch_up()
        if await _take(session, session.next_step()):
            return


async def _take(session: Session, step: Any) -> bool:
    """Do one step; True when the session rests."""
    run, log = session.run, session.log
    match step:
        case Settle():
            return await _settle(session, step.calls, step.end)
        case StartRun():
            await _start(session, step)
        case Tools():
            return await _use_tools(session, step)
        case Park():
            return await run.append(seen=log.head, then=Then("waiting", step.due, step.waiting_for))
        case Compact():
            return await _compact(session, step)
        case CallModel():
            return await _call(session, step)
        case Remind():
            await run.append(*([asked.reminder(log.run)] if log.run else ()))
        case Finish():
            return await _end(session, step.end)
        case Idle():
            return await run.append(seen=log.head, then=IDLE)
    return False


async def settle_lost(session: Session) -> None:
    """End what a process has left that ran this session for itself and is gone: nothing of it is begun again.

    What only waited for people goes on waiting.
    """
    await session.catch_up()
    run, step = session.log.run, session.next_step()
    if isinstance(step, Park) and step.due is None:
        await session.run.append(then=Then("waiting", None, step.waiting_for))
        return
    if run is None:
        await session.run.append(then=IDLE)
        return
    stopped = await session.stop_children()
    calls = [lost(state) for state in run.open_calls]
    end = RunFailed(message="the process that ran this has ended; what became of its last step is unknown")
    await session.run.append(*stopped, *calls, end, then=IDLE)


async def _settle(session: Session, calls: Sequence[CallState], end: RunEnd) -> bool:
    stopped = await session.stop_children()
    return await _end(session, *stopped, *(cancelled(state) for state in calls), end)


async def _end(session: Session, *entries: Entry) -> bool:
    """End the run; the session rests unless a message waits for the next one."""
    run, log = session.run, session.log
    consumed = {id for entry in entries if isinstance(entry, AssistantSaid | Cancelled) for id in entry.inputs}
    if log.requests or log.pending.keys() - consumed:
        await run.append(*entries)
        return False
    return await run.append(*entries, seen=log.head, then=IDLE)


async def _start(session: Session, step: StartRun) -> None:
    run, log = session.run, session.log
    digest, id = session.policy.definition.digest, run.run_id or str(uuid.uuid4())
    entries: list[Entry] = [RunStarted(run=id, inputs=(step.message.id,), definition_digest=digest)]
    fresh = log.context is None or log.definition_digest not in ("", digest)
    talks = isinstance(step.message, UserSaid)
    if fresh and talks and run.failures < session.policy.run_failures and not log.cancels(id):
        try:
            entries.append(await (await session.bound()).freeze())
        except FluxError as error:
            entries.append(RunFailed(message=str(error)))
    await run.append(*entries)


async def _call(session: Session, step: CallModel) -> bool:
    run, log = session.run, session.log
    state = log.run
    if state is None:
        raise FluxError(debug="a model call outside a run")
    tried = state.failures[-1].attempt if state.failures else 0
    attempt = Attempt(
        message_id=message_id(state.id, state.model_calls),
        attempt=1 + tried + max(0, run.epoch - log.epoch),
        inputs=step.inputs,
        last=tries(state) + 1 >= session.attempts,
        final=step.final,
        stream=session.policy.definition.stream,
    )
    partial = Partial()
    run.start_nothing_while_draining()
    room = await session.reserve()
    if isinstance(room, str):
        return await _end(session, RunFailed(message=room, reason="budget"))
    with session.spending(room):
        output = room.output if room else None
        entry = await unless_cancelled(run, _attempt(session, step, attempt, partial, output))
    if entry is None:
        stopped = partial.entry(attempt, step.model)
        if stopped is not None:
            await run.append(stopped)
        return False
    response = last_word(log, entry, session.policy.definition) if isinstance(entry, AssistantSaid) else None
    if response is not None:
        return await _end(session, entry, response)
    await run.append(entry)
    return False


async def _attempt(
    session: Session, step: CallModel, attempt: Attempt, partial: Partial, output: int | None
) -> AssistantSaid | ModelFailed:
    """The model call; an agent that cannot be bound is a failure in the log like any other.

    `output`: the tokens that a budget leaves for the answer.
    """
    log = session.log
    await wait_until(step.not_before, session.now())
    try:
        bound = await session.bound()
        model = bound.model(step.model)
    except FluxError as error:
        return ModelFailed(
            message_id=attempt.message_id, attempt=attempt.attempt, error=str(error), kind="rejected", transient=False
        )
    context = log.context
    if context is None or log.thawed or bound.outdates(context):
        context = await bound.freeze()
        await session.run.append(context)
    messages, given = _messages(log, step.inputs), session.given
    if given is not None and given.memory is not None:
        messages = windowed(messages, given.memory.window, given.memory.max_tokens)
    request = bound.request(context, messages, final=step.final)
    if output is not None and output < request.max_tokens:
        request = msgspec.structs.replace(request, max_tokens=output)
    if given is not None and given.output is not None:
        request = msgspec.structs.replace(request, output=given.output)
    effort = log.run.options.get(asked.THINKING) if log.run else None
    if effort is not None:
        request = msgspec.structs.replace(request, reasoning=cast(ReasoningEffort, effort))
    return await call_model(session.run, model, request, attempt, partial, session.now())


def _messages(log: Transcript, inputs: tuple[str, ...]) -> tuple[Message, ...]:
    joining = [UserItem(log.head, log.pending[id]) for id in inputs]
    return prompt.build([*log.items, *joining])


async def _use_tools(session: Session, step: Tools) -> bool:
    run, log = session.run, session.log
    try:
        bound = await session.bound()
    except FluxError as error:
        calls = log.run.open_calls if log.run else []
        return await _settle(session, calls, RunFailed(message=str(error)))
    repeats = log.run.repeats if log.run else {}
    await unless_cancelled(run, tool_wave(run, bound, step.calls, repeats))
    return False


async def _compact(session: Session, step: Compact) -> bool:
    config = session.policy.definition.compaction
    name = (config.model if config else None) or session.policy.definition.model
    session.run.start_nothing_while_draining()
    try:
        model = (await session.bound()).model(name)
    except FluxError as error:
        return await _end(session, RunFailed(message=str(error)))
    try:
        work = compact(session.run, session.log, step, model, session.attempts)
        entry = await unless_cancelled(session.run, work)
    except SummaryFailed as error:
        requested = session.log.run is not None and session.log.run.compacting
        message = str(error) if requested else f"the conversation is too long for the model, and {error}"
        return await _end(session, RunFailed(message=message, retryable=not requested))
    if entry is not None:
        await session.run.append(entry)
    return False


async def unless_cancelled(run: Run, work: Coroutine[Any, Any, T]) -> T | None:
    """The result of work, or None when somebody asks to stop the run; the work is then cancelled.

    :raises Fenced: the execution was taken away meanwhile; the work is then cancelled too
    """
    task = asyncio.create_task(work)
    stop = asyncio.create_task(run.cancel_requested())
    try:
        await asyncio.wait((task, stop), return_when=asyncio.FIRST_COMPLETED)
        if stop.done():
            stop.result()
        return task.result() if task.done() else None
    finally:
        task.cancel()
        stop.cancel()
        await asyncio.wait((task, stop))
        for ended in (task, stop):
            if not ended.cancelled():
                ended.exception()  # one of them has told already
