"""A server whose model waits in the middle of an answer while HOME/hold is there: `python runner.py HOME PORT`."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

from flux.errors import AgentExists
from flux.messages import TextDelta
from flux.models.base import ModelEvent, ModelRequest
from flux.models.scripted import Reply, ScriptedModel
from tests.integration.server.serving import serving

ANSWER = "One two three, and then the end."


class Held(ScriptedModel):
    """Stops for good behind its third word while the file is there."""

    def __init__(self, hold: Path) -> None:
        super().__init__(lambda _: Reply(text=ANSWER))
        self._hold = hold

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        words = 0
        async for event in super().stream(request):
            yield event
            words += isinstance(event, TextDelta)
            if words == 3 and self._hold.exists():
                await asyncio.Event().wait()


async def main(home: Path, port: int) -> None:
    async with serving(home, in_process=False, port=port, held=Held(home / "hold")) as served:
        with contextlib.suppress(AgentExists):
            await served.client.post("/agents", {"name": "helper", "model": "test/held"})
        print(served.url, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
