"""The Google wire format."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import httpx2
from pydantic_ai.messages import ModelMessage
from pydantic_ai.models import ModelRequestParameters, StreamedResponse
from pydantic_ai.models.google import GoogleModel, GoogleModelSettings
from pydantic_ai.providers.google import GoogleProvider
from pydantic_ai.settings import ModelSettings

from flux.models.base import ModelRequest
from flux.models.providers import Endpoint
from flux.models.wire import ProviderWire, timeouts


def connect(endpoint: Endpoint, name: str, stalled_after: float) -> ProviderWire:
    """The wire to a model of this endpoint."""
    return _GoogleWire(endpoint, name, stalled_after)


class _GoogleWire(ProviderWire):
    """Generate content; each call has a client of its own, closed with it.

    The SDK keeps the connection of a stream that was left early; only closing its client ends it.
    """

    def __init__(self, endpoint: Endpoint, name: str, stalled_after: float) -> None:
        self._trusted = ssl.create_default_context()
        super().__init__(endpoint, name, stalled_after, _model(endpoint, name, httpx2.AsyncClient()))

    @property
    def thinks_by_default(self) -> bool:
        """Every Gemini that can think does."""
        return bool(self.profile.get("supports_thinking", False))

    def settings(self, request: ModelRequest) -> ModelSettings:
        """Nothing of its own: caching needs no request."""
        return GoogleModelSettings()

    def open(
        self, history: list[ModelMessage], settings: ModelSettings, parameters: ModelRequestParameters
    ) -> AbstractAsyncContextManager[StreamedResponse]:
        """The provider's stream; leaving the context closes its connection."""
        return self._open(history, settings, parameters)

    @asynccontextmanager
    async def _open(
        self, history: list[ModelMessage], settings: ModelSettings, parameters: ModelRequestParameters
    ) -> AsyncIterator[StreamedResponse]:
        client = httpx2.AsyncClient(timeout=timeouts(self.stalled_after), verify=self._trusted)
        async with client:
            model = _model(self.endpoint, self.name, client)
            async with model.request_stream(history, settings, parameters) as stream:
                yield stream

    async def aclose(self) -> None:
        """Nothing is kept between calls."""


def _model(endpoint: Endpoint, name: str, client: httpx2.AsyncClient) -> GoogleModel:
    provider = GoogleProvider(api_key=endpoint.key, base_url=endpoint.base_url, http_client=client)
    return GoogleModel(name, provider=provider)
