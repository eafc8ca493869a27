"""The Google wire format."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import httpx2
from google.genai import Client
from google.genai.types import HttpOptions
from pydantic_ai.messages import ModelMessage
from pydantic_ai.models import ModelRequestParameters, StreamedResponse
from pydantic_ai.models.google import GoogleModel, GoogleModelSettings
from pydantic_ai.providers.google import GoogleProvider
from pydantic_ai.settings import ModelSettings

from flux.models.base import ModelRequest
from flux.models.endpoint import Endpoint
from flux.models.wire import ProviderWire, sending, timeouts


def connect(endpoint: Endpoint, name: str, stalled_after: float) -> ProviderWire:
    """The wire to a model of this endpoint."""
    return _GoogleWire(endpoint, name, stalled_after)


class _GoogleWire(ProviderWire):
    """Generate content; each call has a client of its own, closed with it.

    The SDK keeps the connection of a stream that was left early; only closing its client ends it.
    """

    def __init__(self, endpoint: Endpoint, name: str, stalled_after: float) -> None:
        self._hooks = sending(endpoint.headers)
        self._trusted = ssl.create_default_context()
        self._timeouts = timeouts(stalled_after)
        self._milliseconds = int(stalled_after * 1000)
        super().__init__(endpoint, name, stalled_after, self._model(endpoint, name, self._http()))

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
        async with self._http() as http:
            model = self._model(self.endpoint, self.name, http)
            async with model.request_stream(history, settings, parameters) as stream:
                yield stream

    async def aclose(self) -> None:
        """Nothing is kept between calls."""

    def _http(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(timeout=self._timeouts, verify=self._trusted, event_hooks=self._hooks)

    def _model(self, endpoint: Endpoint, name: str, http: httpx2.AsyncClient) -> GoogleModel:
        """Certificates are read once: the SDK would read them twice for each client it makes."""
        options = HttpOptions(
            base_url=endpoint.base_url,
            httpx_async_client=http,
            timeout=self._milliseconds,
            client_args={"verify": self._trusted},
            async_client_args={"verify": self._trusted, "ssl": self._trusted},
        )
        client = Client(vertexai=False, api_key=endpoint.key, http_options=options)
        return GoogleModel(name, provider=GoogleProvider(client=client))
