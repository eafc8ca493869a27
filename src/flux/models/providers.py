"""Models of real providers; their SDKs are loaded at the first call, in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from types import ModuleType
from typing import TYPE_CHECKING

from msgspec.structs import replace

from flux.errors import MissingPackage, SecretNotFound, SecretUnreadable
from flux.messages import ModelFailure
from flux.models.base import Model, ModelEvent, ModelLimits, ModelRequest
from flux.models.endpoint import Endpoint, Wire

if TYPE_CHECKING:
    from flux.models.wire import ProviderWire

STALLED_AFTER = 60.0
"""Seconds without a byte from the provider after which a call has stalled."""

_LONGEST = 300


FindSecret = Callable[[str], Awaitable[str]]


async def no_secret(name: str) -> str:
    """Where nobody keeps secrets.

    :raises SecretNotFound: always
    """
    raise SecretNotFound(f"there is no secret {name!r} here")


class ProviderModel(Model):
    """A model behind an HTTP API. `stalled_after` is in seconds; `secret` finds the key that `endpoint` names."""

    def __init__(
        self,
        endpoint: Endpoint,
        model: str,
        *,
        stalled_after: float = STALLED_AFTER,
        secret: FindSecret | None = None,
    ) -> None:
        self._secret = secret or no_secret
        self.name = f"{endpoint.provider}/{model}"
        self._endpoint = endpoint
        self._model = model
        self._stalled_after = stalled_after
        self._wire: ProviderWire | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._calls = 0
        self._retired = False

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """Call the model once; closing the iterator closes the connection."""
        self._calls += 1
        try:
            wire = await self._wire_or_failure()
            if isinstance(wire, ModelFailure):
                yield wire
                return
            attempt = wire.attempt(request)
            try:
                async for event in attempt:
                    yield event
            finally:
                await attempt.aclose()
        finally:
            self._calls -= 1
            if self._retired and not self._calls:
                await self.aclose()

    async def _wire_or_failure(self) -> ProviderWire | ModelFailure:
        try:
            return await self._connected()
        except Exception as error:  # noqa: BLE001 - what an SDK raises when it is loaded or set up is a failed call
            return _failure(error, self._endpoint)

    async def limits(self) -> ModelLimits:
        """The context window and output limit of this model; unknown when they cannot be found out."""
        wire = await self._wire_or_failure()
        return ModelLimits() if isinstance(wire, ModelFailure) else await wire.limits()

    async def preload(self) -> None:
        """Load the provider's SDK now, so that the first call does not wait for it; the call says what is wrong."""
        await self._wire_or_failure()

    def retire(self) -> asyncio.Task[None] | None:
        """Keep no connection from now on; the task that closes those that are idle."""
        self._retired = True
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return None
        return loop.create_task(self.aclose()) if self._wire is not None and not self._calls else None

    async def aclose(self) -> None:
        """Close the connections kept for later calls."""
        wire, self._wire = self._wire, None
        if wire is not None and self._loop is asyncio.get_running_loop():
            await wire.aclose()

    async def _connected(self) -> ProviderWire:
        """The wire of this event loop: connections cannot be used from another one."""
        loop = asyncio.get_running_loop()
        endpoint = self._endpoint
        if endpoint.secret is not None:  # asked for each time: a key may be replaced
            endpoint = replace(endpoint, key=await self._secret(endpoint.secret))
        if self._wire is not None and self._loop is loop and self._wire.endpoint == endpoint:
            return self._wire
        module = await asyncio.to_thread(_module, self._endpoint.wire)
        if self._wire is None or self._loop is not loop or self._wire.endpoint != endpoint:
            if self._calls <= 1:
                await self.aclose()  # it spoke with another key; calls that still do keep its connections
            self._loop = loop
            self._wire = module.connect(endpoint, self._model, self._stalled_after)
        return self._wire


def _module(wire: Wire) -> ModuleType:
    """The module that speaks this wire format.

    :raises MissingPackage: the provider's SDK is not installed
    """
    try:
        if wire == "anthropic":
            from flux.models import wire_anthropic

            return wire_anthropic
        if wire == "google":
            from flux.models import wire_google

            return wire_google
        from flux.models import wire_openai

        return wire_openai
    except ImportError as error:
        raise MissingPackage(f"models of {wire} need the package {error.name or 'pydantic-ai-slim'}") from error


def _failure(error: Exception, endpoint: Endpoint) -> ModelFailure:
    """Why the provider cannot even be called."""
    if isinstance(error, MissingPackage):
        return ModelFailure(str(error), "rejected")
    if isinstance(error, (SecretNotFound, SecretUnreadable)):
        return ModelFailure(f"the key of {endpoint.provider}: {error}", "rejected")
    said = " ".join(str(error).split())[:_LONGEST] or type(error).__name__
    if endpoint.key:
        said = said.replace(endpoint.key, "***")
    return ModelFailure(f"{endpoint.provider} cannot be called: {said}", "rejected")
