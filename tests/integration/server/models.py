"""Scripted models that wait for the test, so that it sees the middle of an answer."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from flux.messages import ModelFailure
from flux.models.base import ModelEvent, ModelRequest
from flux.models.scripted import Call, Reply, Script, ScriptedModel

WORDS = tuple(f"word{n} " for n in range(50))
LONG = "".join(WORDS)


class Held(ScriptedModel):
    """Sends each piece only when `let` allows one more, or all of them after `open`.

    `breaks`: the n-th call (from 0) fails after so many pieces, and may be made again at once.
    """

    def __init__(self, script: Script, *, breaks: Mapping[int, int] | None = None) -> None:
        super().__init__(script)
        self.asked = asyncio.Event()
        self._breaks = breaks or {}
        self._pieces = asyncio.Semaphore(0)
        self._is_open = False

    def let(self, pieces: int) -> None:
        """Let so many more pieces through."""
        for _ in range(pieces):
            self._pieces.release()

    def open(self) -> None:
        """Hold nothing back any more."""
        self._is_open = True
        self.let(1000)

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """Stream the turn that is due, piece by piece."""
        breaks_after = self._breaks.get(len(self.requests))
        sent = 0
        async with aclosing(super().stream(request)) as events:
            async for event in events:
                self.asked.set()
                if sent == breaks_after:
                    yield ModelFailure("the line broke", "transient", retry_after=0.0)
                    return
                if not self._is_open:
                    await self._pieces.acquire()
                sent += 1
                yield event


def says(*texts: str) -> ScriptedModel:
    """A model that answers with these texts, one after the other; the last one stays."""
    return ScriptedModel([Reply(text) for text in texts])


def asks(*questions: str) -> ScriptedModel:
    """A model that asks all of these at once, and then says done."""
    calls = tuple(Call("ask_user", {"question": question}) for question in questions)
    return ScriptedModel([Reply("I have questions.", calls), Reply("done")])
