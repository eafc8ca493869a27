"""A wave of tool calls: prepare (find, validate, gate), execute, finalise.

Reads overlap; everything else keeps the order in which the model asked. Results are committed one by
one as they end, so a crash loses none; a started call whose effect is `once` is never run again.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from flux import redaction
from flux.agents.history.calls import CallState
from flux.agents.history.results import Keeper
from flux.agents.turn import gate
from flux.agents.turn.binding import Bound
from flux.agents.turn.questions import Asking, open_questions
from flux.engine.dispatching.upkeep import being_cancelled
from flux.engine.running.run import Run
from flux.events import (
    ApprovalRequired,
    Entry,
    Gated,
    Outcome,
    PlanReview,
    ToolDone,
    ToolOutput,
    ToolStarted,
    ToolWaiting,
)
from flux.messages import ToolCall
from flux.store import interrupts
from flux.tools.base import Done, Failed, Later, NeedsInput, Tool, ToolContext, ToolOutcome
from flux.tools.kept import cut
from flux.tools.schema import validate
from flux.tools.text import Tap
from flux.tracing import span

INTERRUPTED = "[interrupted: the worker stopped while this call ran; its outcome is unknown and it was not run again]"
WARN_AT = 3


async def tool_wave(run: Run, bound: Bound, calls: Sequence[CallState], repeats: dict[str, int]) -> None:
    """Bring every call of the wave one step on: to its result, or to a question."""
    fresh = [state for state in calls if state.gate is None]
    allowed = await _gate(run, bound, fresh) if fresh else []
    ready = [*allowed, *(state for state in calls if state.gate is not None)]
    order = {state.call.id: index for index, state in enumerate(calls)}
    ready.sort(key=lambda state: order[state.call.id])
    slots = asyncio.Semaphore(bound.definition.max_concurrent_tools)
    for reading, group in itertools.groupby(ready, key=lambda state: _overlaps(bound, state)):
        wave = [_Call(run, bound, state, slots, repeats) for state in group]
        if reading:
            await _together(wave)
        else:
            for call in wave:
                await call.resolve()


async def _together(wave: Sequence[_Call]) -> None:
    try:
        async with asyncio.TaskGroup() as tasks:
            for call in wave:
                tasks.create_task(call.resolve())
    except ExceptionGroup as group:
        # They fail alike: this worker lost the execution, or the database.
        raise group.exceptions[0] from group


async def _gate(run: Run, bound: Bound, fresh: Iterable[CallState]) -> list[CallState]:
    """Decide for new calls in one append, with every question of the wave; returns those that may run."""
    grants = await run.database.read(interrupts.grants(run.scope, run.id))
    entries: list[Entry] = []
    questions: list[ApprovalRequired] = []
    allowed: list[CallState] = []
    for state in fresh:
        call = state.call
        problem = _problem(bound, call)
        if problem:
            entries.append(_done(call, "error", problem))
            continue
        args = bound.arguments(call)
        decision = gate.decide(
            bound.tools[call.name], args, bound.definition, grants, await bound.verdicts(call.name, args)
        )
        digest = interrupts.digest_of(call.name, args)
        entries.append(Gated(call=call.id, verdict=decision.verdict, args_digest=digest, rule=decision.rule))
        if decision.verdict == "deny":
            entries.append(_done(call, "denied", f"[denied: {decision.rule}]"))
        elif decision.verdict == "ask":
            questions.append(_approval(run, bound, state, args, digest, decision.rule))
        else:
            allowed.append(state)
    await run.append(*entries, *questions, also=open_questions(run, questions))
    return allowed


def _problem(bound: Bound, call: ToolCall) -> str | None:
    tool = bound.tools.get(call.name)
    if tool is None:
        why = next((f" {why}." for start, why in bound.absent.items() if call.name.startswith(start)), "")
        return f"There is no tool {call.name!r}.{why} Tools: {', '.join(sorted(bound.tools)) or 'none'}."
    if call.invalid is not None:
        return f"The arguments are not a JSON object: {call.invalid[:500]}"
    errors = validate(tool.schema, call.args).errors
    return f"The arguments do not fit {call.name}: {'; '.join(errors)}" if errors else None


def _approval(
    run: Run, bound: Bound, state: CallState, args: dict[str, Any], digest: str, rule: str
) -> ApprovalRequired:
    call, tool = state.call, bound.tools[state.call.name]
    return ApprovalRequired(
        id=interrupts.interrupt_id(run.id, call.id, state.asked),
        call=call.id,
        agent=bound.definition.name,
        tool=call.name,
        args=args,
        digest=digest,
        reason=rule,
        grant=tool.grant if tool.alarm else None,
    )


def _overlaps(bound: Bound, state: CallState) -> bool:
    tool = bound.tools.get(state.call.name)
    return tool is not None and tool.effect == "read"


class _Call:
    """One call on its way to a result."""

    def __init__(
        self, run: Run, bound: Bound, state: CallState, slots: asyncio.Semaphore, repeats: dict[str, int]
    ) -> None:
        self._run = run
        self._bound = bound
        self._state = state
        self._slots = slots
        self._repeats = repeats
        self._asking = Asking(run, state)
        self._keeper = Keeper(run, state.call)

    async def resolve(self) -> None:
        """Append the call's result, or its question."""
        state, tool = self._state, self._bound.tools.get(self._state.call.name)
        refusal = _refusal(state, tool) or _changed(state, self._bound)
        if refusal is not None or tool is None:
            await self._run.append(refusal or _done(state.call, "error", "There is no such tool any more."))
            return
        async with self._slots:
            self._run.start_nothing_while_draining()
            await self._run.append(ToolStarted(call=state.call.id, name=state.call.name))
            context = self._context()
            outcome = await self._executed(tool, context)
        await self._finalise(outcome, tool, context)
        if being_cancelled():
            # The tool turned the request to stop into a result. That is kept, and the request too.
            raise asyncio.CancelledError

    async def _executed(self, tool: Tool, context: ToolContext) -> ToolOutcome:
        try:
            return await _execute(tool, self._bound.arguments(self._state.call), context)
        except asyncio.CancelledError:
            if self._run.draining.is_set() and tool.effect == "once":
                # The process leaves and the call had its grace: nobody shall run it again.
                await self._run.append(_done(self._state.call, "interrupted", INTERRUPTED))
            raise

    def _context(self) -> ToolContext:
        call = self._state.call.id
        return self._bound.context(
            session=self._run.id,
            call=call,
            output=_emitter(self._run, call),
            answers=self._asking.answers(),
            ask=self._asking.ask,
            keep=self._keeper.keep,
            recall=self._keeper.recall,
        )

    async def _finalise(self, outcome: ToolOutcome, tool: Tool, context: ToolContext) -> None:
        call = self._state.call
        if isinstance(outcome, NeedsInput):
            await self._asking.leave_open(outcome)
            return
        if isinstance(outcome, Later):
            await self._run.append(*outcome.entries, ToolWaiting(call=call.id, due=outcome.due))
            return
        # Whole: of a secret that is cut in two neither half would be found.
        content, ended = await cut(redaction.text(outcome.content), tool.max_output_chars, context), _ended(outcome)
        content += "" if ended == "success" else self._warning()
        await self._run.append(*outcome.entries, _done(call, ended, content, self._keeper.last))

    def _warning(self) -> str:
        call = self._state.call
        failed = self._repeats.get(f"{call.name} {call.args!r}", 0) + 1
        if failed < WARN_AT:
            return ""
        return f"\n[this call has failed {failed} times in a row with the same arguments; try something else]"


def _refusal(state: CallState, tool: Tool | None) -> ToolDone | None:
    """The result of a call that must not run: rejected, changed, or started before a crash."""
    call, answer = state.call, state.answer
    if state.started:
        interrupted = tool is not None and tool.effect == "once"
        return _done(call, "interrupted", INTERRUPTED) if interrupted else None
    if answer is None or not isinstance(state.question, ApprovalRequired | PlanReview):
        return None
    if isinstance(state.question, PlanReview) and state.question.plan is not None:
        return None  # the call itself says what becomes of its plan
    if answer.decision != "approve":
        reason = f": {answer.reason}" if answer.reason else ""
        return _done(call, "denied", f"[rejected by a person{reason}]")
    return None


def _changed(state: CallState, bound: Bound) -> ToolDone | None:
    """The result of a call whose tool is no longer what the gate decided about."""
    call = state.call
    problem = _problem(bound, call)
    if problem:
        return _done(call, "error", problem)
    if state.gate is not None and interrupts.digest_of(call.name, bound.arguments(call)) != state.gate.args_digest:
        return _done(call, "error", "[the tool has changed since this call was decided; ask again]")
    return None


async def _execute(tool: Tool, args: dict[str, Any], context: ToolContext) -> ToolOutcome:
    about = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": tool.name, "gen_ai.tool.type": "function"}
    with span(f"execute_tool {tool.name}", about) as traced:
        outcome = await _run(tool, args, context)
        if isinstance(outcome, Failed):
            traced.set_attribute("error.type", "timeout" if outcome.timeout else "tool_error")
    return outcome


async def _run(tool: Tool, args: dict[str, Any], context: ToolContext) -> ToolOutcome:
    try:
        async with asyncio.timeout(tool.timeout) as limit:
            return await tool.run(args, context)
    except asyncio.CancelledError:
        if being_cancelled():
            raise
        return Failed("the tool was cancelled from inside")
    except Exception as error:  # noqa: BLE001 - what a tool raises is its result, the model reads it
        if tool.part_of_run:
            raise
        if limit.expired():
            return Failed(f"[timed out after {tool.timeout:g} s]", timeout=True)
        return Failed(f"{type(error).__name__}: {error}")


def _ended(outcome: Done | Failed) -> Outcome:
    if isinstance(outcome, Done):
        return "success"
    return "timeout" if outcome.timeout else "error"


def _emitter(run: Run, call: str) -> Callable[[str], None]:
    return Tap(lambda text: run.emit(ToolOutput(call, text)))


def _done(call: ToolCall, outcome: Outcome, content: str, artifact: str | None = None) -> ToolDone:
    return ToolDone(
        call=call.id,
        name=call.name,
        status="success" if outcome == "success" else "error",
        outcome=outcome,
        content=content,
        artifact=artifact,
    )


def lost(state: CallState) -> ToolDone:
    """The result of a call whose process is gone."""
    if not state.started:
        return _done(state.call, "cancelled", "[cancelled before it ran]")
    return _done(state.call, "interrupted", INTERRUPTED)


def cancelled(state: CallState) -> ToolDone:
    """The result of a call whose run was stopped."""
    text = "[cancelled while it ran; its outcome is unknown]" if state.started else "[cancelled before it ran]"
    return _done(state.call, "cancelled", text)
