"""What a worker keeps in memory between runs, within bounds, and what it asks a provider once for many."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Generic, TypeVar

from flux.engine.running.run import Run
from flux.errors import FluxError
from flux.models.base import ModelLimits, Models

logger = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

#: Seconds that a provider gets to tell a model's limits, and that known ones count.
ASK_SECONDS = 3.0
KNOWN_SECONDS = 60.0


class Recent(Generic[K, V]):
    """The values used last: at most `count` of them, and `weight` in all as `weigh` says (one is always kept)."""

    def __init__(self, count: int, weight: float = 0, weigh: Callable[[V], float] = lambda _: 0) -> None:
        self._count = count
        self._weight = weight
        self._weigh = weigh
        self._total = 0.0
        self._values: OrderedDict[K, tuple[V, float]] = OrderedDict()

    def get(self, key: K) -> V | None:
        """The value, which stays; None when it is not kept."""
        found = self._values.get(key)
        if found is None:
            return None
        self._values.move_to_end(key)
        return found[0]

    def take(self, key: K) -> V | None:
        """The value, which is not kept any longer."""
        found = self._values.pop(key, None)
        if found is None:
            return None
        self._total -= found[1]
        return found[0]

    def put(self, key: K, value: V) -> None:
        """Keep a value, and drop those not used for longest where there are too many."""
        self.take(key)
        weight = self._weigh(value)
        self._values[key] = (value, weight)
        self._total += weight
        while len(self._values) > max(1, self._count) or (len(self._values) > 1 and self._total > self._weight > 0):
            self.take(next(iter(self._values)))


class KnownLimits:
    """Limits of models. Asking never fails and never takes long; what is not known is asked again."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._known: Recent[str, tuple[float, ModelLimits]] = Recent(64)

    def known(self, model: str) -> ModelLimits | None:
        """What was found out a short while ago."""
        at, found = self._known.get(model) or (0.0, None)
        return found if time.monotonic() - at < KNOWN_SECONDS else None

    async def ask(self, run: Run, model: str) -> ModelLimits:
        """The limits of a model, unknown where its provider cannot tell; a run that is to stop waits for none."""
        asking = asyncio.create_task(self._ask(model))
        await asyncio.sleep(0)
        if asking.done():  # most know by heart
            return self._found(model, asking)
        tasks = (
            asking,
            asyncio.create_task(run.cancel_requested()),
            asyncio.create_task(run.draining.wait()),
        )
        try:
            await asyncio.wait(tasks, timeout=ASK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            return self._found(model, asking)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            for task in tasks:
                if not task.cancelled():
                    task.exception()  # told already, or of no interest: the run finds out by itself

    async def _ask(self, model: str) -> ModelLimits:
        with suppress(FluxError):  # such as a missing key: the call itself says so
            return await self._models.get(model).limits()
        return ModelLimits()

    def _found(self, model: str, asking: asyncio.Task[ModelLimits]) -> ModelLimits:
        if not asking.done() or asking.cancelled():
            return ModelLimits()
        error = asking.exception()
        if error is not None:
            logger.warning("the limits of %s are not known: %r", model, error)
            return ModelLimits()
        found = asking.result()
        if found.context is not None:
            self._known.put(model, (time.monotonic(), found))
        return found
