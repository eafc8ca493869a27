"""A chat with a scripted model in a process of its own: `python runner.py HOME [--pipe TEXT] [--session ID]`."""

import argparse
import asyncio
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import suppress
from pathlib import Path

from flux.agents.process import open_process
from flux.client import FluxClient
from flux.client.transport import InProcessTransport
from flux.errors import AgentExists
from flux.messages import ModelFailure, TextDelta, ToolResult, UserMessage, text_of
from flux.models.base import ModelEvent, ModelRequest
from flux.models.scripted import Call, Reply, ScriptedModel, demo
from flux.server.app import create_app
from flux.settings import load_settings
from flux.surfaces.terminal import deciding
from flux.surfaces.terminal.chat import chat
from flux.surfaces.terminal.plain import pipe

AGENT = {
    "model": "scripted/test",
    "tools": ["system_tools", "ask_user"],
    "tool_approvals": {"shell": True},
    "planning": True,
    "approve_plan": True,
}

GATED = "gated "

MARKDOWN = """# Plan

A paragraph with **bold**, *italic*, `code` and a [link](https://example.org/a).
It goes on, long enough that a narrow terminal has to break it in two or three lines.

1. first
2. second
   - nested

| name | what it does |
|---|---|
| `read` | shows a file, whatever its size, in pages that a person can read |
| `write` | writes one |

```python
def hello(name: str) -> str:
    # says hello
    return f"hello {name}"
```

> A quote at the end.

The end."""

REPLIES = {
    "markdown": Reply(text=MARKDOWN),
    "long": Reply(text="\n\n".join(f"Paragraph number {n}." for n in range(1, 41))),
    "code": Reply(text="```python\n" + "\n".join(f"line_{n} = {n}" for n in range(1, 61)) + "\n```\n\nAfter the code."),
    "evil": Reply(
        text="\x1b]0;stolen\x07\x1b[2J\x1b[31mred \u202egnihton\x9b5n",
        calls=(Call("read_file", {"path": "\x1b[2Jevil\u202e"}),),
    ),
    "two": Reply(
        text="Two commands.",
        calls=(Call("shell", {"command": "echo one"}), Call("shell", {"command": "echo two"})),
    ),
    "parallel": Reply(
        calls=(Call("list_directory", {"path": "."}), Call("read_file", {"path": "missing.txt"})),
    ),
    "count": Reply(calls=(Call("shell", {"command": "for i in 1 2 3 4 5 6 7 8; do echo line $i; sleep 0.3; done"}),)),
    "script": Reply(calls=(Call("write_file", {"path": "a.sh", "content": "echo a\necho b\n"}),)),
}


def answer(request: ModelRequest) -> Reply | ModelFailure:
    """The reply to a key word; anything else is for the bundled demo."""
    text = next(text_of(m.parts) for m in reversed(request.messages) if isinstance(m, UserMessage))
    if isinstance(request.messages[-1], ToolResult) and text != "plan":
        return Reply(text="All done.")
    text = text.removeprefix(GATED)
    if text.startswith("echo"):
        return Reply(text=f"You said {text!r}.")
    if text == "fail":
        return ModelFailure("the key was refused", "auth")
    return REPLIES.get(text) or demo(request)


class Model(ScriptedModel):
    """Breaks off once, never ends, or waits after its first word until somebody writes to HOME/gate."""

    broken = False
    home: Path

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """Stream an answer."""
        last = request.messages[-1]
        text = text_of(last.parts) if isinstance(last, UserMessage) else ""
        if text == "flaky" and not self.broken:
            self.broken = True
            yield TextDelta("A start that")
            yield ModelFailure("the connection broke", "transient", 1.0)
            return
        if text == "endless":
            yield TextDelta("Working on it")
            await asyncio.Event().wait()
        passed = False
        async for event in super().stream(request):
            yield event
            if text.startswith(GATED) and not passed:
                passed = True
                await asyncio.to_thread((self.home / "gate").read_text)


async def main() -> int:
    """Run the chat, or one piped message."""
    options = argparse.ArgumentParser()
    options.add_argument("home", type=Path)
    options.add_argument("--session")
    options.add_argument("--pipe")
    options.add_argument("--delay", type=float, default=0.0)
    options.add_argument("--notice")
    options.add_argument("--model")
    options.add_argument("--silence", type=float, default=0.0, help="seconds without a key before one counts")
    given = options.parse_args()
    deciding.SILENCE_SECONDS = given.silence
    model = Model(answer, delay=given.delay)
    model.home = given.home
    async with (
        open_process(
            load_settings({"FLUX_GRACE": "0.1", "FLUX_SANDBOX": "local"}, home=str(given.home)),
            environment={"PATH": os.environ["PATH"]},
            workspace=given.home,
            factories={"scripted": lambda name: model},
        ) as process,
        FluxClient("http://localhost", transport=InProcessTransport(create_app(process))) as client,
    ):
        with suppress(AgentExists):
            await client.put("/agents/helper", AGENT, create=True)
        session = client.session(given.session) if given.session else None
        if given.pipe is not None:
            return await pipe(client, agent="helper", session=session, text=given.pipe, model=given.model)
        return await chat(
            client,
            agent="helper",
            session=session,
            resume_command=lambda id: f"flux chat --session {id}",
            notice=given.notice,
            history=given.home / "history",
            model=given.model,
        )


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
