"""One model call: deltas go out as they come, and what comes back is one entry, whatever happens."""

from __future__ import annotations

import asyncio
import random
import uuid
from contextlib import aclosing

from msgspec import Struct

from flux import redaction
from flux.engine.dispatching.upkeep import being_cancelled
from flux.engine.running.run import Run
from flux.events import AssistantSaid, DeltaEvent, ModelFailed, Reasoning, Token
from flux.messages import (
    AssistantMessage,
    AssistantPart,
    Delta,
    ModelFailure,
    ReasoningDelta,
    ReasoningPart,
    TextDelta,
    TextPart,
    with_call_ids,
)
from flux.models.base import Model, ModelRequest
from flux.tracing import Span, span

FIRST_BACKOFF = 0.5
LONGEST_BACKOFF = 30.0


class Attempt(Struct, frozen=True):
    """A model call in its place. `attempt` counts from 1; `last`: a transient failure is final.

    `stream`: what comes is shown at once; else the model's stream is drained, and its answer alone is shown.
    """

    message_id: str
    attempt: int
    inputs: tuple[str, ...]
    last: bool
    final: bool
    stream: bool = True


class Partial:
    """What was shown so far; kept when the call is cancelled."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._reasoning: list[str] = []

    def add(self, delta: Delta) -> None:
        """Remember a delta."""
        (self._text if isinstance(delta, TextDelta) else self._reasoning).append(delta.text)

    def entry(self, attempt: Attempt, model: str) -> AssistantSaid | None:
        """The stopped answer; None when no text was shown."""
        text = "".join(self._text)
        if not text:
            return None
        parts: list[AssistantPart] = [TextPart(text)]
        if self._reasoning:
            parts.insert(0, ReasoningPart("".join(self._reasoning)))
        return AssistantSaid(
            message_id=attempt.message_id, inputs=attempt.inputs, parts=tuple(parts), stop="cancelled", model=model
        )


async def call_model(
    run: Run, model: Model, request: ModelRequest, attempt: Attempt, partial: Partial, now: float
) -> AssistantSaid | ModelFailed:
    """Call a model once. `now` is in seconds since the epoch."""
    provider, _, name = model.name.partition("/")
    about = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": name,
        "gen_ai.conversation.id": run.id,
    }
    with span(f"chat {name}", about) as traced:
        entry = await _called(run, model, request, attempt, partial, now)
        _tell(traced, entry)
    return entry


def _tell(traced: Span, entry: AssistantSaid | ModelFailed) -> None:
    if isinstance(entry, ModelFailed):
        traced.set_attribute("error.type", entry.kind)
        return
    traced.set_attribute("gen_ai.response.model", entry.model)
    traced.set_attribute("gen_ai.response.finish_reasons", [entry.stop])
    traced.set_attribute("gen_ai.usage.input_tokens", entry.usage.input)
    traced.set_attribute("gen_ai.usage.output_tokens", entry.usage.output)


async def _called(
    run: Run, model: Model, request: ModelRequest, attempt: Attempt, partial: Partial, now: float
) -> AssistantSaid | ModelFailed:
    try:
        result = await _stream(run, model, request, attempt, partial)
    except asyncio.CancelledError:
        if being_cancelled():
            raise
        result = ModelFailure("the model call was cancelled from inside", "transient")
    if isinstance(result, AssistantMessage):
        return _answer(result, attempt, model.name)
    failure = result or ModelFailure("the model ended without an answer", "transient")
    return _failure(failure, attempt, now)


async def _stream(
    run: Run, model: Model, request: ModelRequest, attempt: Attempt, partial: Partial
) -> AssistantMessage | ModelFailure | None:
    result: AssistantMessage | ModelFailure | None = None
    async with aclosing(model.stream(redaction.struct(request))) as events:
        async for event in events:
            if not isinstance(event, (TextDelta, ReasoningDelta)):
                result = event
            elif attempt.stream:
                partial.add(event)
                run.emit(_shown(event, attempt))
    return result


def _shown(delta: Delta, attempt: Attempt) -> DeltaEvent:
    if isinstance(delta, TextDelta):
        return Token(attempt.message_id, attempt.attempt, delta.text)
    return Reasoning(attempt.message_id, attempt.attempt, delta.text)


def message_id(run: str, model_calls: int) -> str:
    """The id of a run's next answer; the same when the call is made again after a crash."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{run}/{model_calls}"))


def _answer(message: AssistantMessage, attempt: Attempt, model: str) -> AssistantSaid:
    if attempt.final and message.calls:
        message = _without_calls(message)
    named = with_call_ids(message, tuple(f"call_{uuid.uuid4().hex}" for _ in message.calls))
    return AssistantSaid(
        message_id=attempt.message_id,
        inputs=attempt.inputs,
        parts=named.parts,
        calls=named.calls,
        stop=named.stop,
        usage=named.usage,
        cost=named.cost,
        model=named.model or model,
    )


def _without_calls(message: AssistantMessage) -> AssistantMessage:
    """A forced final answer has no calls, whatever the model sent."""
    parts = tuple(part for part in message.parts if isinstance(part, TextPart))
    return AssistantMessage(parts, (), "stop", message.usage, message.cost, message.model)


def _failure(failure: ModelFailure, attempt: Attempt, now: float) -> ModelFailed:
    retry = failure.transient and not attempt.last
    return ModelFailed(
        message_id=attempt.message_id,
        attempt=attempt.attempt,
        error=failure.message,
        kind=failure.kind,
        transient=failure.transient,
        retry_at=now + delay_of(failure, attempt.attempt) if retry else None,
    )


def delay_of(failure: ModelFailure, attempt: int) -> float:
    """Seconds until a failed call is made again."""
    if failure.retry_after is not None:
        return failure.retry_after
    backoff = min(FIRST_BACKOFF * 2.0 ** (attempt - 1), LONGEST_BACKOFF)
    return backoff * random.uniform(0.5, 1.0)  # noqa: S311 - spreads retries, guards nothing


async def wait_until(at: float, now: float) -> None:
    """Wait for a retry; both in seconds since the epoch."""
    if at > now:
        await asyncio.sleep(at - now)
