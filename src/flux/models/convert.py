"""Our messages as pydantic-ai's, each converted once; its answers as ours."""

from __future__ import annotations

import base64
import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from pydantic_ai import messages as pai

from flux.messages import (
    AssistantMessage,
    AssistantPart,
    CallPart,
    Message,
    ReasoningPart,
    StopReason,
    TextPart,
    ToolCall,
    ToolResult,
    Usage,
    UserMessage,
    UserPart,
)
from flux.models.repair import arguments, complete

_NEXT = "next"
"""Key in `ReasoningPart.extra`: what a provider attached to the part that follows, to go back with it."""

TAGGED = "content"
"""The id pydantic-ai gives reasoning it found between tags in the text."""

_STOPS: dict[str | None, StopReason] = {"length": "length", "content_filter": "content_filter"}


class _Converted(Struct):
    """What became of a message; `ids` are the ids its calls have on the wire."""

    source: weakref.ref[Any]
    result: pai.ModelResponse | pai.ModelRequestPart | None
    ids: dict[str, str]


class Converter:
    """Converts histories for one provider.

    `provider` is our name of it, `system` pydantic-ai's. A conversion lives as long as its message, so
    a history that grew by one message costs one conversion.
    """

    def __init__(self, provider: str, system: str, *, reasoning: bool = True) -> None:
        self._provider = provider
        self._system = system
        self._reasoning = reasoning
        self._kept: dict[int, _Converted] = {}

    def history(self, messages: Sequence[Message]) -> list[pai.ModelMessage]:
        """The messages for the provider; what stands between two answers is one request."""
        history: list[pai.ModelMessage] = []
        request: list[pai.ModelRequestPart] = []
        ids: dict[str, str] = {}
        for message in messages:
            result = self._convert(message, ids)
            if isinstance(result, pai.ModelResponse):
                if request:
                    history.append(pai.ModelRequest(request))
                    request = []
                history.append(result)
            elif result is not None:
                request.append(result)
        if request:
            history.append(pai.ModelRequest(request))
        return history

    def _convert(self, message: Message, ids: dict[str, str]) -> pai.ModelResponse | pai.ModelRequestPart | None:
        """One message; `ids` maps our call ids to those on the wire and grows."""
        kept = self._kept.get(id(message))
        if kept is None or (kept.ids.items() - ids.items() and isinstance(message, ToolResult)):
            kept = self._keep(message, ids)
        ids.update(kept.ids)
        return kept.result

    def _keep(self, message: Message, ids: dict[str, str]) -> _Converted:
        own: dict[str, str] = {}
        result: pai.ModelResponse | pai.ModelRequestPart | None
        if isinstance(message, AssistantMessage):
            own = self._wire_ids(message, set(ids.values()))
            result = self._response(message, own)
        elif isinstance(message, ToolResult):
            own = {message.call.id: ids.get(message.call.id, message.call.id)}
            result = _tool_return(message, own[message.call.id])
        else:
            result = _prompt(message)
        key, kept = id(message), self._kept
        kept[key] = _Converted(weakref.ref(message, lambda _: kept.pop(key, None)), result, own)
        return kept[key]

    def _wire_ids(self, message: AssistantMessage, used: set[str]) -> dict[str, str]:
        """The provider's own ids go back to it, unless it gave one twice; others see ours."""
        same = message.model.startswith(f"{self._provider}/")
        ids: dict[str, str] = {}
        for call in message.calls:
            known = same and call.wire_id and call.wire_id not in used
            ids[call.id] = call.wire_id if known and call.wire_id else call.id
            used.add(ids[call.id])
        return ids

    def _response(self, message: AssistantMessage, ids: dict[str, str]) -> pai.ModelResponse | None:
        calls = {call.id: call for call in message.calls}
        parts: list[pai.ModelResponsePart] = []
        attached: dict[str, Any] = {}
        for part in message.parts:
            if isinstance(part, ReasoningPart):
                if part.provider != self._provider or not self._reasoning:
                    continue
                if part.extra and _NEXT in part.extra:
                    attached = {"provider_name": self._system, **part.extra[_NEXT]}
                elif part.id != TAGGED and (part.text or part.signature):
                    parts.append(self._thinking(part))
                continue
            if isinstance(part, TextPart):
                if part.text:
                    parts.append(pai.TextPart(part.text, **attached))
            elif call := calls.pop(part.call, None):
                parts.append(_call(call, ids[call.id], attached))
            attached = {}
        parts.extend(_call(call, ids[call.id], {}) for call in calls.values())
        return pai.ModelResponse(parts, provider_name=self._system) if parts else None

    def _thinking(self, part: ReasoningPart) -> pai.ThinkingPart:
        return pai.ThinkingPart(
            part.text,
            id=part.id,
            signature=part.signature,
            provider_name=self._system,
            provider_details=part.extra,
        )


def _prompt(message: UserMessage) -> pai.UserPromptPart | None:
    told = [_user_part(part) for part in message.parts if part.text or not isinstance(part, TextPart)]
    if not told:
        return None
    only = told[0] if len(told) == 1 else None
    return pai.UserPromptPart(only if isinstance(only, str) else told)


def _user_part(part: UserPart) -> str | pai.BinaryContent:
    if isinstance(part, TextPart):
        return part.text
    return pai.BinaryContent(base64.b64decode(part.data), media_type=part.media_type)


def _tool_return(result: ToolResult, wire_id: str) -> pai.ToolReturnPart:
    return pai.ToolReturnPart(
        result.call.name,
        result.content or "(no output)",
        wire_id,
        outcome="failed" if result.is_error else "success",
    )


def _call(call: ToolCall, wire_id: str, attached: dict[str, Any]) -> pai.ToolCallPart:
    args = call.args if call.invalid is None else call.invalid
    return pai.ToolCallPart(call.name, args, wire_id, **attached)


def answer(
    response: pai.ModelResponse, *, provider: str, model: str, priced: tuple[Usage, float | None]
) -> AssistantMessage:
    """The provider's answer as ours; parts of unknown kinds are left out.

    An output limit may have cut a tool call off: such a call is dropped, it must never run.
    """
    parts: list[AssistantPart] = []
    calls: list[ToolCall] = []
    cut = response.finish_reason == "length"
    for part in response.parts:
        if isinstance(part, pai.ThinkingPart):
            parts.extend(_reasoning(part, provider))
        elif isinstance(part, pai.TextPart):
            if part.content:
                parts.extend([*_attached(part, provider), TextPart(part.content)])
        elif isinstance(part, pai.ToolCallPart):
            if cut and not complete(part.args):
                continue
            call = _tool_call(part, {call.id for call in calls})
            calls.append(call)
            parts.extend([*_attached(part, provider), CallPart(call.id)])
    return AssistantMessage(
        parts=tuple(parts),
        calls=tuple(calls),
        stop=_STOPS.get(response.finish_reason, "calls" if calls else "stop"),
        usage=priced[0],
        cost=priced[1],
        model=model,
    )


def usage(response: pai.ModelResponse) -> Usage:
    """Tokens of the answer, as the provider counted them."""
    counted = response.usage
    return Usage(counted.input_tokens, counted.output_tokens, counted.cache_read_tokens, counted.cache_write_tokens)


def _reasoning(part: pai.ThinkingPart, provider: str) -> Iterator[ReasoningPart]:
    if part.content or part.signature:
        yield ReasoningPart(
            text=part.content,
            signature=part.signature,
            id=part.id,
            provider=provider,
            extra=_json(part.provider_details),
        )


def _attached(part: pai.TextPart | pai.ToolCallPart, provider: str) -> Iterable[ReasoningPart]:
    """Ids and signatures some providers put on text and calls, as a part of its own before them."""
    found = {"id": part.id, "provider_details": _json(part.provider_details)}
    given = {name: value for name, value in found.items() if value}
    return [ReasoningPart(text="", provider=provider, extra={_NEXT: given})] if given else []


def _tool_call(part: pai.ToolCallPart, taken: set[str]) -> ToolCall:
    args, invalid = arguments(part.args)
    call_id = part.tool_call_id
    if call_id in taken:
        call_id = f"{call_id}_{len(taken)}"
    return ToolCall(id=call_id, name=part.tool_name, args=args, wire_id=part.tool_call_id, invalid=invalid)


def _json(details: dict[str, Any] | None) -> dict[str, Any] | None:
    return msgspec.to_builtins(details, enc_hook=str) if details else None
