"""What a session does next: a pure function of its transcript. The order of the cases is the order here."""

from __future__ import annotations

import math

from msgspec import UNSET, Struct, UnsetType

from flux.agents.define.definition import AgentDefinition, Budget, Limit
from flux.agents.history.asked import end_by_calls, wants_reminder
from flux.agents.history.calls import CallState, RunState
from flux.agents.history.cuts import Compact, cut, used_tokens
from flux.agents.history.transcript import Transcript
from flux.events import (
    AssistantSaid,
    ChatResponse,
    CompactDone,
    CompactRequested,
    ModelFailed,
    RunEnd,
    RunFailed,
    UserSaid,
)
from flux.events import Cancelled as CancelledEntry
from flux.messages import text_of

#: A retry that is further away than this gives up the worker meanwhile; in seconds.
PARK_AFTER = 30.0
WARN_REPEATS = 3
FAIL_REPEATS = 5
MIN_RESERVE = 20_000
#: Tokens of the newest history that stay as they are, where a definition says nothing; and what part of them the
#: second time, when the model has refused the prompt again.
KEEP_RECENT = 8_000
LAST_PART = 8
#: How often the history is summarised for one model call.
MOST_COMPACTIONS = 2


class Policy(Struct, frozen=True):
    """What limits a session's runs. Times in seconds; `window` and `output` in tokens, None when unknown.

    Time before `claimed_at` (seconds since the epoch), when this worker took the run, does not count as its.
    `newest` is the budget that the agent has by now, where that may be another than its definition's.
    """

    definition: AgentDefinition
    run_failures: int = 3
    run_timeout: float = 3600.0
    window: int | None = None
    output: int | None = None
    claimed_at: float = 0.0
    newest: Budget | UnsetType | None = UNSET

    @property
    def budget(self) -> Budget | None:
        """What may be spent."""
        return self.definition.budget if isinstance(self.newest, UnsetType) else self.newest

    @property
    def models(self) -> tuple[str, ...]:
        """The agent's model, then those to fall back on."""
        return (self.definition.model, *self.definition.fallback_models)


class Settle(Struct, frozen=True):
    """Give every open call a result and end the run, in one append."""

    calls: tuple[CallState, ...]
    end: RunEnd


class StartRun(Struct, frozen=True):
    """Begin a run with a message, or with a request to summarise the history."""

    message: UserSaid | CompactRequested


class Tools(Struct, frozen=True):
    """Resolve the calls that can be resolved now."""

    calls: tuple[CallState, ...]


class Park(Struct, frozen=True):
    """Wait for a person or a time (`due`, seconds since the epoch), without a worker."""

    waiting_for: str
    due: float | None = None


class CallModel(Struct, frozen=True):
    """Call a model, not before a time. `inputs` join now; `final` forbids tools."""

    model: str
    inputs: tuple[str, ...]
    final: bool
    not_before: float


class Remind(Struct, frozen=True):
    """Tell the model that its answer is not the one that was asked for."""


class Finish(Struct, frozen=True):
    """End the run."""

    end: RunEnd


class Idle(Struct, frozen=True):
    """Nothing to do."""


Step = Settle | StartRun | Tools | Park | Compact | CallModel | Remind | Finish | Idle


def next_step(log: Transcript, failures: int, policy: Policy, now: float, overdrawn: str | None = None) -> Step:
    """The next missing thing. `overdrawn`: why whoever drives the session lets it spend no more."""
    run = log.run
    if run is None:
        first = next(iter(log.requests.values()), None) or log.next_message()
        return StartRun(first) if first else Idle()
    end = _forced_end(log, run, failures, policy, now) or _drained(run, overdrawn)
    if end is not None:
        return Settle(tuple(run.open_calls), end)
    if run.open_calls:
        ready = tuple(state for state in run.open_calls if not state.waiting or _due(state) <= now)
        return Tools(ready) if ready else _park(run)
    if run.compacting:
        requested = None if run.compactions else cut(log, _keep(policy), must=False)
        return requested or Finish(CompactDone(compacted=run.compactions > 0))
    if run.answer is not None and not run.failures and (step := _answered(log, run, run.answer, policy.definition)):
        return step
    return _model_step(log, run, policy, now)


def _answered(log: Transcript, run: RunState, answer: AssistantSaid, definition: AgentDefinition) -> Step | None:
    """What follows from an answer whose calls have results; None: the next model call."""
    response = end_by_calls(run, log.turns + 1) or last_word(log, answer, definition)
    if response is not None:
        return Finish(response)
    return None if answer.calls or log.steers or not wants_reminder(run) else Remind()


def last_word(log: Transcript, answer: AssistantSaid, definition: AgentDefinition | None = None) -> ChatResponse | None:
    """The end of the run if this answer is its last: it asks for no tools, and nobody steers.

    By the definition it says whether a limit has forced the answer.
    """
    run = log.run
    if answer.calls or set(log.steers) - set(answer.inputs) or (run is not None and wants_reminder(run)):
        return None
    before = run.model_calls - (run.answer is answer) if run else 0
    limit = _limit(run, definition, before) if run and definition else None
    return ChatResponse(content=text_of(answer.parts), turn=log.turns + 1, limit=limit)


def _forced_end(log: Transcript, run: RunState, failures: int, policy: Policy, now: float) -> RunEnd | None:
    if run.cancelled:
        return CancelledEntry(inputs=log.steers)
    if failures >= policy.run_failures:
        return RunFailed(
            message=f"the run failed {failures} times in a row on this machine; see the server's log", retryable=True
        )
    since = max(run.active_since, policy.claimed_at)
    if now - since > policy.run_timeout and not any(state.waiting for state in run.open_calls):
        return RunFailed(message=f"the run took longer than {policy.run_timeout:.0f} s", retryable=True)
    spent = _over_budget(log, run, policy)
    if spent:
        return RunFailed(message=spent, reason="budget")
    if max(run.repeats.values(), default=0) >= FAIL_REPEATS:
        return RunFailed(message=f"the same tool call failed {FAIL_REPEATS} times in a row")
    return None


def _drained(run: RunState, overdrawn: str | None) -> RunFailed | None:
    return RunFailed(message=overdrawn, reason="budget") if overdrawn and not _paid_for(run) else None


def _over_budget(log: Transcript, run: RunState, policy: Policy) -> str | None:
    return None if _paid_for(run) else over_budget(log, run, policy)


def _paid_for(run: RunState) -> bool:
    """Budgets are checked before work that costs, not after an answer that is already paid for."""
    return run.answer is not None and not run.calls


def over_budget(log: Transcript, run: RunState, policy: Policy, tokens: int = 0, cost: float = 0.0) -> str | None:
    """Which budget is used up, counting `tokens` and `cost` (US dollars) that the log does not have yet."""
    budget = policy.budget
    if budget is None:
        return None
    return exceeded("run", budget.run, run.tokens + tokens, run.cost + cost) or exceeded(
        "session", budget.session, log.tokens + tokens, log.cost + cost
    )


def exceeded(what: str, limit: Limit, tokens: int, cost: float) -> str | None:
    """Why so much cannot be spent in all; None: it can."""
    if limit.max_tokens is not None and tokens >= limit.max_tokens:
        return f"the {what}'s budget of {limit.max_tokens:,} tokens is used up ({tokens:,})"
    if limit.max_cost_usd is not None and cost >= limit.max_cost_usd:
        return f"the {what}'s budget of ${limit.max_cost_usd:.2f} is used up (${cost:.2f})"
    return None


def _due(state: CallState) -> float:
    """When a waiting call goes on by itself, in seconds since the epoch."""
    due = state.resting.due if state.resting is not None else None
    return math.inf if due is None else due


def _park(run: RunState) -> Park:
    kinds = {"approval_required": "approval", "input_required": "input", "plan_review": "plan"}
    question = next((state.asks for state in run.open_calls if state.asks), None)
    due = min(map(_due, run.open_calls))
    tag = "retry" if question is None else str(question.__struct_config__.tag)
    return Park(kinds.get(tag, tag), None if math.isinf(due) else due)


def _model_step(log: Transcript, run: RunState, policy: Policy, now: float) -> Step:
    last = run.failures[-1] if run.failures else None
    given_up = sum(failure.retry_at is None and failure.kind != "overflow" for failure in run.failures)
    if last is not None and run.overflowed:
        again = cut(log, _keep(policy, run.compactions)) if run.compactions < MOST_COMPACTIONS else None
        return again or Finish(_failed(last))
    if given_up >= len(_models(run, policy)):
        return Finish(_failed(run.failures[-1]))
    if last is not None and last.retry_at is not None and last.retry_at - now > PARK_AFTER:
        return Park("retry", last.retry_at)
    overdue = _overdue_compaction(log, run, policy)
    if overdue is not None:
        return overdue
    return CallModel(
        model=_models(run, policy)[given_up],
        inputs=log.steers,
        final=_limit(run, policy.definition, run.model_calls) is not None,
        not_before=(last.retry_at or 0.0) if last else 0.0,
    )


def tries(run: RunState) -> int:
    """How often the model that is due was tried in vain."""
    count = 0
    for failure in run.failures:
        if failure.kind != "overflow":
            count = 0 if failure.retry_at is None else count + 1
    return count


def _models(run: RunState, policy: Policy) -> tuple[str, ...]:
    chosen = run.options.get("model")
    return (chosen, *policy.definition.fallback_models) if isinstance(chosen, str) else policy.models


def _failed(failure: ModelFailed) -> RunFailed:
    return RunFailed(message=failure.error, retryable=failure.transient)


def _limit(run: RunState, definition: AgentDefinition, model_calls: int) -> str | None:
    """The limit that makes the call after so many the last: of model calls, or of answers that ask for tools."""
    if definition.max_turns is not None and model_calls >= definition.max_turns:
        return "max_turns"
    return "max_tool_calls" if run.iterations >= definition.max_tool_calls else None


def _overdue_compaction(log: Transcript, run: RunState, policy: Policy) -> Compact | None:
    room = _room(policy)
    if policy.definition.compaction is False or room is None or run.compactions or used_tokens(log) <= room:
        return None
    return cut(log, _keep(policy))


def _room(policy: Policy) -> int | None:
    """Tokens of the window that a prompt may fill; None when the window is not known."""
    if policy.window is None:
        return None
    config = policy.definition.compaction
    reserve = config.reserve_tokens if config else None
    return max(0, policy.window - (reserve or min(MIN_RESERVE, policy.output or MIN_RESERVE, policy.window // 3)))


def _keep(policy: Policy, compactions: int = 0) -> int:
    """Tokens of the newest history that stay: no more than half of what a prompt may fill, the second time far less."""
    config, room = policy.definition.compaction, _room(policy)
    keep = config.keep_recent_tokens if config else KEEP_RECENT
    keep = keep if room is None else min(keep, room // 2)
    return max(1, keep // LAST_PART if compactions else keep)
