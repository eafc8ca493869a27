"""The OpenAI wire formats: responses, chat completions, and the servers that imitate the latter."""

from __future__ import annotations

import re
import time
from functools import cached_property
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx2
import pydantic
from openai import AsyncOpenAI
from openai.resources.chat import AsyncChat, AsyncCompletions
from openai.resources.responses import AsyncResponses
from pydantic_ai.messages import ModelResponse
from pydantic_ai.models.ollama import OllamaModel
from pydantic_ai.models.openai import (
    OpenAIChatModel,
    OpenAIChatModelSettings,
    OpenAIResponsesModel,
    OpenAIResponsesModelSettings,
)
from pydantic_ai.models.openrouter import OpenRouterModel, OpenRouterModelSettings
from pydantic_ai.profiles import ModelProfile, merge_profile
from pydantic_ai.profiles.openai import OpenAIModelProfile
from pydantic_ai.providers import Provider
from pydantic_ai.providers.ollama import OllamaProvider
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider
from pydantic_ai.providers.openrouter import OpenRouterProvider
from pydantic_ai.settings import ModelSettings

from flux.models.base import ModelLimits, ModelRequest, OutputSchema, ReasoningEffort
from flux.models.endpoint import Endpoint
from flux.models.structured import OutputMode, rooted
from flux.models.wire import ProviderWire, adapter, as_is, event_type, has_hook, http_client, timeouts

_COMPATIBLE = OpenAIModelProfile(openai_chat_supports_max_completion_tokens=False)
"""Servers that imitate OpenAI know `max_tokens`; not all know its successor."""

_OFFICIAL = ("openai", "openai-chat")

_EFFORTS: dict[ReasoningEffort, Literal["none", "low", "medium", "high"]] = {
    "off": "none",
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
}
"""The levels all compatible servers know."""

_NO_SCHEMA = re.compile(r"(ft:)?(gpt-3|gpt-4([-:]|$)|gpt-4o-2024-05-13|o1-(mini|preview)|chatgpt-4o)")
"""OpenAI's models from before it took the schema of an answer; pydantic-ai does not tell them apart."""

_OLLAMA_CONTEXT = 4096
"""Tokens Ollama gives a model when neither its Modelfile nor the server says otherwise."""

_LEFT_OUT: dict[str, Any] = {"sequence_number": 0, "logprobs": []}
"""What compatible servers leave out of response events; without it each would be built by reflection."""

_LIMITS_KEPT = 60.0
"""Seconds after which Ollama is asked again: the window changes when the model is loaded."""


def connect(endpoint: Endpoint, name: str, stalled_after: float) -> ProviderWire:
    """The wire to a model of this endpoint."""
    host = endpoint.base_url
    http = http_client(stalled_after, endpoint.headers)
    kind = _Client if has_hook(AsyncOpenAI) else AsyncOpenAI
    client = kind(
        base_url=f"{host}/v1" if endpoint.wire == "ollama" else host,
        api_key=endpoint.key or "none",
        max_retries=0,
        timeout=timeouts(stalled_after),
        http_client=http,
    )
    client.organization = client.project = None
    if endpoint.wire == "openai-responses":
        return _ResponsesWire(endpoint, name, stalled_after, client)
    if endpoint.wire == "ollama":
        return _OllamaWire(endpoint, name, stalled_after, client)
    return _ChatWire(endpoint, name, stalled_after, client)


class _OpenAIWire(ProviderWire):
    """What all OpenAI formats share: one client with a pool of connections."""

    def __init__(self, endpoint: Endpoint, name: str, stalled_after: float, client: AsyncOpenAI) -> None:
        super().__init__(endpoint, name, stalled_after, _model(endpoint, name, client))
        self._client = client

    def output_mode(self, output: OutputSchema, request: ModelRequest) -> OutputMode:
        """Servers that imitate OpenAI all know tools; not all know, or keep to, the schema of an answer."""
        known = self.endpoint.provider in (*_OFFICIAL, "openrouter")
        if not known or _NO_SCHEMA.match(self.name.removeprefix("openai/")):
            return "tool"
        return super().output_mode(output, request)

    async def aclose(self) -> None:
        """Close the pool."""
        await self._client.close()


class _ChatWire(_OpenAIWire):
    """Chat completions."""

    def settings(self, request: ModelRequest) -> ModelSettings:
        """OpenRouter is asked for caching and costs; an effort asked of a compatible server is sent as it is."""
        if self.endpoint.wire == "openrouter":
            return OpenRouterModelSettings(cache=True, openrouter_usage={"include": True})
        if not self._compatible and request.cache_key is not None:
            return OpenAIChatModelSettings(openai_prompt_cache_key=request.cache_key)
        if request.reasoning is None or not self._compatible:
            return ModelSettings()
        return OpenAIChatModelSettings(openai_reasoning_effort=_EFFORTS[request.reasoning])

    @property
    def thinks_when_asked(self) -> bool:
        """pydantic-ai does not know the models of compatible servers: who asks is taken at their word."""
        return self._compatible or super().thinks_when_asked

    @property
    def _compatible(self) -> bool:
        return self.endpoint.provider not in (*_OFFICIAL, "openrouter")

    def finished(self, response: ModelResponse) -> bool:
        """pydantic-ai takes a missing finish reason for "stop"; the raw one tells the two apart."""
        raw = (response.provider_details or {}).get("finish_reason")
        return raw is not None or response.finish_reason not in (None, "stop")


class _ResponsesWire(_OpenAIWire):
    """Responses, with nothing stored at the provider: reasoning travels encrypted."""

    @property
    def keeps_reasoning(self) -> bool:
        """Models that do not reason refuse the reasoning of others."""
        return bool(self.model.profile.get("supports_thinking", False))

    def settings(self, request: ModelRequest) -> ModelSettings:
        """Summaries make reasoning visible when it was asked for."""
        settings = OpenAIResponsesModelSettings(openai_store=False)
        if request.reasoning not in (None, "off"):
            settings["openai_reasoning_summary"] = "auto"
        if request.cache_key is not None:
            settings["openai_prompt_cache_key"] = request.cache_key
        return settings


class _OllamaWire(_ChatWire):
    """Ollama: chat completions, and its own interface for what a model can take."""

    def __init__(self, endpoint: Endpoint, name: str, stalled_after: float, client: AsyncOpenAI) -> None:
        super().__init__(endpoint, name, stalled_after, client)
        self._known: tuple[float, ModelLimits] | None = None

    async def limits(self) -> ModelLimits:
        """The window Ollama really gives the model: what it loaded, was told, or its small default."""
        if self._known is None or time.monotonic() - self._known[0] > _LIMITS_KEPT:
            try:
                window = await self._loaded_window() or await self._window()
            except (httpx2.HTTPError, httpx2.InvalidURL, ValueError, AttributeError, TypeError):
                return ModelLimits()  # not there, or not Ollama
            self._known = (time.monotonic(), ModelLimits(context=window))
        return self._known[1]

    def output_mode(self, output: OutputSchema, request: ModelRequest) -> OutputMode:
        """With a schema Ollama lets the model write nothing else, no call either; its cloud ignores the schema."""
        host = urlsplit(self.endpoint.base_url).hostname or ""
        cloud = host.endswith("ollama.com") or self.name.endswith(("-cloud", ":cloud"))
        return "tool" if cloud or (request.tools and not request.final) else "native"

    async def _loaded_window(self) -> int | None:
        running = await self._ask("GET", "/api/ps")
        names = {self.name, f"{self.name}:latest"}
        found = [entry for entry in running.get("models") or [] if entry.get("name") in names]
        return found[0].get("context_length") if found else None

    async def _window(self) -> int | None:
        shown = await self._ask("POST", "/api/show", {"model": self.name})
        told = re.search(r"\bnum_ctx\s+(\d+)", f"{shown.get('parameters') or ''}\n{shown.get('modelfile') or ''}")
        info = shown.get("model_info") or {}
        trained = next((value for key, value in info.items() if key.endswith(".context_length")), None)
        if told is None and trained is None:
            return None
        window = int(told[1]) if told else _OLLAMA_CONTEXT
        return min(window, trained) if trained else window

    async def _ask(self, method: str, path: str, body: dict[str, str] | None = None) -> dict[str, Any]:
        async with http_client(self.stalled_after, self.endpoint.headers) as http:
            response = await http.request(method, f"{self.endpoint.base_url}{path}", json=body)
        if not response.is_success:
            return {}
        answer = response.json()
        return answer if isinstance(answer, dict) else {}


def _model(endpoint: Endpoint, name: str, client: AsyncOpenAI) -> OpenAIChatModel | OpenAIResponsesModel:
    if endpoint.wire == "ollama":
        return OllamaModel(name, provider=OllamaProvider(openai_client=client), profile=_compatible)
    if endpoint.wire == "openrouter":
        return OpenRouterModel(name, provider=OpenRouterProvider(openai_client=client), profile=rooted)
    provider: Provider[AsyncOpenAI]
    official = endpoint.provider in _OFFICIAL
    if official:
        provider = OpenAIProvider(openai_client=client)
    else:
        provider = OpenAICompatibleProvider(endpoint.provider, openai_client=client)
    if endpoint.wire == "openai-responses":
        return OpenAIResponsesModel(name, provider=provider)
    return OpenAIChatModel(name, provider=provider, profile=None if official else _compatible)


def _compatible(profile: ModelProfile) -> ModelProfile:
    """What pydantic-ai knows of a model, for a server that imitates OpenAI."""
    return rooted(merge_profile(profile, _COMPATIBLE))


class _Client(AsyncOpenAI):
    """The SDK's client without its two costs per call: walking the whole history through the types
    of the request, and building each event of the stream by reflection."""

    @cached_property
    def chat(self) -> AsyncChat:
        """Chat completions."""
        return _Chat(self)

    @cached_property
    def responses(self) -> AsyncResponses:
        """Responses."""
        return _Responses(self)

    def _process_response_data(self, *, data: object, cast_to: Any, response: httpx2.Response) -> Any:
        event = event_type(cast_to, data)
        if event is not cast_to and isinstance(data, dict):
            data = {**_LEFT_OUT, **data}
        try:
            return adapter(event).validate_python(data)
        except pydantic.ValidationError:
            return super()._process_response_data(data=data, cast_to=event, response=response)


class _Chat(AsyncChat):
    @cached_property
    def completions(self) -> AsyncCompletions:
        return _Completions(self._client)


class _Completions(AsyncCompletions):
    async def create(self, **params: Any) -> Any:
        return await super().create(**as_is(params, "messages", "tools"))


class _Responses(AsyncResponses):
    async def create(self, **params: Any) -> Any:
        return await super().create(**as_is(params, "input", "tools"))
