"""The Anthropic wire format."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import httpx2
import pydantic
from anthropic import AsyncAnthropic
from anthropic.resources.beta import AsyncBeta, AsyncMessages
from pydantic_ai.models.anthropic import AnthropicModel, AnthropicModelSettings
from pydantic_ai.output import StructuredOutputMode
from pydantic_ai.profiles import ModelProfile, merge_profile
from pydantic_ai.profiles.anthropic import ANTHROPIC_THINKING_BUDGET_MAP
from pydantic_ai.providers.anthropic import AnthropicProvider

from flux.models.base import ModelRequest, OutputSchema
from flux.models.endpoint import Endpoint
from flux.models.structured import OutputMode, closed
from flux.models.wire import ProviderWire, adapter, as_is, event_type, has_hook, http_client, timeouts

_LEAST_BUDGET = 1024
"""The smallest thinking budget Anthropic takes, in tokens."""


def connect(endpoint: Endpoint, name: str, stalled_after: float) -> ProviderWire:
    """The wire to a model of this endpoint."""
    kind = _Client if has_hook(AsyncAnthropic) else AsyncAnthropic
    client = kind(
        base_url=endpoint.base_url,
        api_key=endpoint.key or "none",
        max_retries=0,
        timeout=timeouts(stalled_after),
        http_client=http_client(stalled_after, endpoint.headers),
    )
    client.auth_token = None
    return _AnthropicWire(endpoint, name, stalled_after, client)


class _AnthropicWire(ProviderWire):
    """Messages, with the prompt cached: tools and system once, and the history up to its last message."""

    def __init__(self, endpoint: Endpoint, name: str, stalled_after: float, client: AsyncAnthropic) -> None:
        model = AnthropicModel(name, provider=AnthropicProvider(anthropic_client=client), profile=_prefers_native)
        super().__init__(endpoint, name, stalled_after, model)
        self._client = client

    @property
    def output_limit(self) -> int | None:
        """The most tokens an answer may have, thinking included."""
        limit: int | None = self.profile.get("anthropic_max_output_tokens")
        return limit

    def settings(self, request: ModelRequest) -> AnthropicModelSettings:
        """Caching, and a thinking budget that stays below the output limit."""
        settings = AnthropicModelSettings(
            anthropic_cache_instructions=True,
            anthropic_cache_tool_definitions=True,
            anthropic_cache_messages=True,
        )
        effort = request.reasoning
        if effort is not None and effort != "off" and self._thinks_by_budget:
            self._add_budget(settings, request.max_tokens, ANTHROPIC_THINKING_BUDGET_MAP[effort])
        return settings

    def output_mode(self, output: OutputSchema, request: ModelRequest) -> OutputMode:
        """Anthropic limits the schemas it takes, and forces no call while the model thinks: pydantic-ai knows how."""
        return "auto" if closed(output.schema) else "tool"

    @property
    def _thinks_by_budget(self) -> bool:
        profile = self.profile
        return bool(profile.get("supports_thinking")) and not profile.get("anthropic_supports_adaptive_thinking", False)

    def _add_budget(self, settings: AnthropicModelSettings, visible: int, budget: int) -> None:
        limit = self.output_limit or visible + budget
        budget = max(min(budget, limit - visible), _LEAST_BUDGET)
        settings["max_tokens"] = min(visible + budget, limit)
        settings["anthropic_thinking"] = {"type": "enabled", "budget_tokens": budget}

    async def aclose(self) -> None:
        """Close the pool."""
        await self._client.close()


def _prefers_native(profile: ModelProfile) -> ModelProfile:
    """The profile of a model that answers in a format by its own means where it has them."""
    mode: StructuredOutputMode = "native" if profile.get("supports_json_schema_output") else "tool"
    return merge_profile(profile, ModelProfile(default_structured_output_mode=mode))


class _Client(AsyncAnthropic):
    """The SDK's client without its two costs per call: walking the whole history through the types
    of the request, and building each event of the stream by reflection."""

    @cached_property
    def beta(self) -> AsyncBeta:
        """The interface pydantic-ai uses."""
        return _Beta(self)

    def _process_response_data(self, *, data: object, cast_to: Any, response: httpx2.Response) -> Any:
        event = event_type(cast_to, data)
        try:
            return adapter(event).validate_python(data)
        except pydantic.ValidationError:
            return super()._process_response_data(data=data, cast_to=event, response=response)


class _Beta(AsyncBeta):
    @cached_property
    def messages(self) -> AsyncMessages:
        return _Messages(self._client)


class _Messages(AsyncMessages):
    async def create(self, **params: Any) -> Any:
        return await super().create(**as_is(params, "messages", "system", "tools"))
