"""The `flux` command with a model and a tool that leave on disk what they did: `python -m tests.scale.flux ARGS`.

`FLUX_TEST_EFFECTS` is the file of the effects; `FLUX_TEST_VERSION` lets the process say that it is of another version.
"""

from __future__ import annotations

import asyncio
import logging
import os
from functools import partial
from pathlib import Path

import flux
from flux.agents import process
from flux.messages import ToolResult, UserMessage, text_of
from flux.models.base import ModelRequest
from flux.surfaces.cli.main import main
from flux.testing import Call, EffectCounter, Reply, ScriptedModel
from flux.tools.base import ToolContext
from flux.tools.function import tool_of

#: Seconds that a payment and a word take, so that something dies in the middle of them.
TAKES = 0.02

effects = EffectCounter(Path(os.environ["FLUX_TEST_EFFECTS"]))


async def pay(what: str, context: ToolContext) -> str:
    """Pay something."""
    await asyncio.sleep(TAKES)
    effects.add("pay", what=what, call=context.call)
    await asyncio.sleep(TAKES)
    return f"paid {what}"


def cashier(request: ModelRequest) -> Reply:
    """Pay what the last message names, then say so."""
    last = request.messages[-1]
    if isinstance(last, UserMessage):
        return Reply("I pay.", calls=(Call("pay", {"what": text_of(last.parts)}),))
    return Reply(f"It is {last.content if isinstance(last, ToolResult) else 'strange'} and that is all.")


def run() -> None:
    """Be `flux`."""
    flux.__version__ = os.environ.get("FLUX_TEST_VERSION", flux.__version__)
    process.open_process = partial(
        process.open_process,
        factories={"count": lambda name: ScriptedModel(cashier, name=f"count/{name}", delay=TAKES, remember=0)},
        tools={"pay": tool_of(pay, effect="once")},
    )
    logging.getLogger("flux.engine.running.runner").setLevel(logging.INFO)  # it tells of runs that were taken away
    main()


if __name__ == "__main__":
    run()
