"""One attempt at a model call, the same for every wire format."""

from __future__ import annotations

import asyncio
import inspect
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from functools import cache, cached_property
from typing import Annotated, Any, get_args, get_origin

import httpx2
import pydantic
from msgspec.structs import replace
from pydantic_ai.messages import (
    InstructionPart,
    ModelMessage,
    ModelResponse,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ThinkingPartDelta,
)
from pydantic_ai.models import Model as PydanticModel
from pydantic_ai.models import ModelRequestParameters, StreamedResponse
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition

from flux.messages import FREE, Delta, ModelFailure, ReasoningDelta, TextDelta, Usage
from flux.models import limits
from flux.models.base import (
    ModelEvent,
    ModelLimits,
    ModelRequest,
    OutputSchema,
    ReasoningEffort,
    ToolSchema,
    has_images,
    no_images,
)
from flux.models.convert import Converter, answer, usage
from flux.models.endpoint import Endpoint
from flux.models.failures import cut_off, failure
from flux.models.structured import OutputMode, as_text, tool_name, with_output

CONNECT_TIMEOUT = 10.0
"""Seconds."""

THINKING_ALLOWANCE: dict[ReasoningEffort, int] = {
    "minimal": 2_048,
    "low": 8_192,
    "medium": 24_576,
    "high": 32_768,
    "xhigh": 65_536,
}
"""Tokens granted for thinking on top of visible output, where the provider has one limit for both."""


def timeouts(stalled_after: float) -> httpx2.Timeout:
    """Silence of `stalled_after` seconds is a read timeout; connecting has a limit of its own."""
    return httpx2.Timeout(stalled_after, connect=min(CONNECT_TIMEOUT, stalled_after))


def http_client(stalled_after: float, headers: Sequence[tuple[str, str]] = ()) -> httpx2.AsyncClient:
    """A client of our own, so that closing it is ours too. `headers` go with every request."""
    return httpx2.AsyncClient(
        timeout=timeouts(stalled_after),
        event_hooks=sending(headers),
        limits=httpx2.Limits(max_connections=1000, max_keepalive_connections=100),
    )


def sending(headers: Sequence[tuple[str, str]]) -> dict[str, list[Callable[..., Any]]]:
    """The hooks of a client that sends these with every request, whatever an SDK has put there."""

    async def put(request: httpx2.Request) -> None:
        for name, value in headers:
            request.headers[name] = value

    return {"request": [put]} if headers else {}


class ProviderWire(ABC):
    """Speaks one wire format to one model, on one event loop."""

    def __init__(self, endpoint: Endpoint, name: str, stalled_after: float, model: PydanticModel[Any]) -> None:
        self.endpoint = endpoint
        self.name = name
        self.stalled_after = stalled_after
        self.model = model
        self._converter = Converter(endpoint.provider, model.system, reasoning=self.keeps_reasoning)
        self._tools: tuple[tuple[ToolSchema, ...], list[ToolDefinition]] = ((), [])

    @cached_property
    def profile(self) -> dict[str, Any]:
        """What pydantic-ai knows of the model."""
        return dict(self.model.profile)

    @property
    def keeps_reasoning(self) -> bool:
        """Whether reasoning goes back to the model."""
        return True

    @property
    def output_limit(self) -> int | None:
        """The most tokens an answer may have, thinking included."""
        return limits.output_limit(self.name)

    @abstractmethod
    def settings(self, request: ModelRequest) -> ModelSettings:
        """The settings of this provider for one call."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close the connections kept for later calls."""

    def finished(self, response: ModelResponse) -> bool:
        """Whether the provider said that the answer is complete."""
        return response.finish_reason is not None or "finish_reason" in (response.provider_details or {})

    async def limits(self) -> ModelLimits:
        """The context window and output limit of the model."""
        window = limits.context_window(self.endpoint.provider, self.name)
        return ModelLimits(context=window, output=self.output_limit)

    def open(
        self, history: list[ModelMessage], settings: ModelSettings, parameters: ModelRequestParameters
    ) -> AbstractAsyncContextManager[StreamedResponse]:
        """The provider's stream; leaving the context closes its connection."""
        return self.model.request_stream(history, settings, parameters)

    async def attempt(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """Deltas, and then one answer or one failure."""
        listening = True
        try:
            async with aclosing(self._events(request)) as events:
                async for event in events:
                    listening = False
                    yield event
                    listening = True
        except Exception as error:  # noqa: BLE001 - whatever a provider does to a call is a failure, not an exception
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise asyncio.CancelledError from error
            if listening:
                yield failure(error, self.endpoint, self.name, self.stalled_after)

    async def _events(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        if self.profile.get("supports_image_input") is False and has_images(request):
            yield no_images(f"{self.endpoint.provider}/{self.name}")
            return
        history = self._converter.history(request.messages)
        async with self.open(history, self._settings(request), self._parameters(request)) as stream:
            async for event in stream:
                delta = _delta(event)
                if delta is not None and (request.output is None or isinstance(delta, ReasoningDelta)):
                    yield delta
            response = stream.get()
        yield self._outcome(response, request)

    def _outcome(self, response: ModelResponse, request: ModelRequest) -> ModelEvent:
        provider = self.endpoint.provider
        if not self.finished(response):
            return cut_off(self.endpoint)
        if response.finish_reason == "error":
            return ModelFailure(f"{provider} ended the answer with an error", "transient")
        if request.output is not None:
            response = as_text(response, tool_name(request.tools))
        return answer(response, provider=provider, model=f"{provider}/{self.name}", priced=self._priced(response))

    def _priced(self, response: ModelResponse) -> tuple[Usage, float | None]:
        """What an answer used, with the parts of its price, and the price. What a provider says it costs is true."""
        used, said = usage(response), response.usage.cost
        costs = limits.costs(self.endpoint.provider, self.name, used)
        if costs is None:
            return used, None if said is None else float(said)
        total = costs.total if said is None else float(said)
        if not costs.total:
            return used, total
        return replace(used, costs=FREE.plus(costs, total / costs.total)), total

    def _settings(self, request: ModelRequest) -> ModelSettings:
        settings = self.settings(request)
        allowed = settings.get("max_tokens", request.max_tokens + self.thinking_allowance(request.reasoning))
        settings["max_tokens"] = min(allowed, self.output_limit or allowed)
        if request.reasoning is not None:
            settings["thinking"] = False if request.reasoning == "off" else request.reasoning
        if request.final and request.tools:
            settings["tool_choice"] = "none"
        return settings

    def thinking_allowance(self, effort: ReasoningEffort | None) -> int:
        """Tokens to grant for thinking; 0 when the model will not think."""
        profile = self.profile
        always = profile.get("thinking_always_enabled", False)
        if effort == "off":
            effort = "minimal" if always else None
        elif effort is None and (always or self.thinks_by_default):
            effort = "medium"
        elif not (always or self.thinks_when_asked):
            effort = None
        return THINKING_ALLOWANCE[effort] if effort else 0

    @property
    def thinks_by_default(self) -> bool:
        """Whether the model thinks when it is not told how much."""
        return bool(self.profile.get("thinking_enabled_by_default", False))

    @property
    def thinks_when_asked(self) -> bool:
        """Whether the model can think."""
        return bool(self.profile.get("supports_thinking", False))

    def output_mode(self, output: OutputSchema, request: ModelRequest) -> OutputMode:
        """How the model is made to answer in this format: by its own means where it has them."""
        if request.tools and not self.profile.get("google_supports_tool_combination", True):
            return "tool"
        return "native" if self.profile.get("supports_json_schema_output") else "tool"

    def _parameters(self, request: ModelRequest) -> ModelRequestParameters:
        parameters = ModelRequestParameters(
            function_tools=self._definitions(request.tools),
            instruction_parts=[InstructionPart(content=request.system)] if request.system else [],
        )
        if request.output is None:
            return parameters
        mode = self.output_mode(request.output, request)
        return with_output(parameters, request.output, mode, request.tools)

    def _definitions(self, tools: tuple[ToolSchema, ...]) -> list[ToolDefinition]:
        """The tools for pydantic-ai, kept while they are the same."""
        known, definitions = self._tools
        if known is not tools:
            definitions = [
                ToolDefinition(name=tool.name, description=tool.description, parameters_json_schema=tool.parameters)
                for tool in tools
            ]
            self._tools = (tools, definitions)
        return definitions


def _delta(event: object) -> Delta | None:
    """The piece of text or reasoning in an event of pydantic-ai, None when there is none."""
    piece = event.part if isinstance(event, PartStartEvent) else getattr(event, "delta", None)
    if isinstance(piece, TextPartDelta | ThinkingPartDelta):
        text = piece.content_delta
    elif isinstance(piece, TextPart | ThinkingPart):
        text = piece.content
    else:
        return None
    if not text:
        return None
    return TextDelta(text) if isinstance(piece, TextPart | TextPartDelta) else ReasoningDelta(text)


def event_type(type_: Any, data: object) -> Any:
    """The class of an event among those of a union, by its `type`: trying all of them is slow."""
    if isinstance(type_, type) or not isinstance(data, dict):
        return type_
    return _members(type_).get(data.get("type"), type_)


@cache
def _members(union: Any) -> dict[object, type[pydantic.BaseModel]]:
    """The classes of a union by the value of their `type` field."""
    found: dict[object, type[pydantic.BaseModel]] = {}
    for member in get_args(get_args(union)[0] if get_origin(union) is Annotated else union):
        if isinstance(member, type) and issubclass(member, pydantic.BaseModel) and "type" in member.model_fields:
            found.update(dict.fromkeys(get_args(member.model_fields["type"].annotation), member))
    return found


@cache
def adapter(type_: Any) -> pydantic.TypeAdapter[Any]:
    """Validates events of this type in compiled code."""
    return pydantic.TypeAdapter(type_)


def has_hook(client: type) -> bool:
    """Whether an SDK's client builds its responses where our faster clients take over; it is not public."""
    hook = getattr(client, "_process_response_data", None)
    try:
        return hook is not None and list(inspect.signature(hook).parameters) == _HOOK
    except (TypeError, ValueError):
        return False


_HOOK = ["self", "data", "cast_to", "response"]


def as_is(params: dict[str, Any], *names: str) -> dict[str, Any]:
    """SDK parameters with the named lists moved to the extra body, which is sent untouched.

    They are plain JSON already; the SDK would walk them through its types at each call.
    """
    moved = {name: params[name] for name in names if isinstance(params.get(name), list)}
    extra = params.get("extra_body") or {}
    return {**params, **{name: [] for name in moved}, "extra_body": {**extra, **moved}}
