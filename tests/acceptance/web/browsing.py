"""What tests do with a page, and models that answer it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from flux.messages import ModelFailure, TextDelta, UserMessage, text_of
from flux.models.base import ModelEvent, ModelRequest
from flux.models.scripted import Call, Reply, ScriptedModel, demo

if TYPE_CHECKING:
    from playwright.async_api import Page

HOSTILE = """Hello <script>window.hacked = 1</script> <img src=x onerror="window.hacked = 1">
<svg onload="window.hacked = 1"></svg> [click](javascript:window.hacked=1) [data](data:text/html,<script>1</script>)

<iframe srcdoc="<script>parent.hacked = 1</script>"></iframe>

![spy](https://spy.example/pixel.png) [good](https://good.example/a) <https://auto.example/>

```html"><img src=x onerror=window.hacked=1>
</code></pre><script>window.hacked = 1</script>
```

| <b onclick="window.hacked=1">cell</b> | [x](vbscript:1) |
|---|---|
| <style>body { display: none }</style> | &#106;avascript:1 |

<math><mtext></form><form><mglyph><style></math><img src onerror=window.hacked=1>"""


class Opened:
    """A tab with a page at `url`."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url

    async def say(self, text: str) -> None:
        await self.page.fill("textarea", text)
        await self.page.press("textarea", "Enter")

    async def shows(self, text: str, selector: str = "main") -> None:
        await self.page.locator(selector).filter(has_text=text).first.wait_for()

    async def at_rest(self, answers: int) -> None:
        """Wait for so many whole answers, and until nothing works."""
        await self.page.wait_for_function(
            "n => document.querySelectorAll('.answer:not(.growing)').length >= n && !document.querySelector('.state')",
            arg=answers,
        )

    async def answers(self) -> list[str]:
        return [text.strip() for text in await self.page.locator(".answer .md").all_inner_texts()]

    async def said(self) -> list[str]:
        return await self.page.locator(".said p").all_text_contents()

    @property
    def session(self) -> str:
        return self.page.url.partition("#/s/")[2]


def script(request: ModelRequest) -> Reply | ModelFailure:
    """Answers to key words; the demo answers the rest."""
    last = request.messages[-1]
    text = text_of(last.parts) if isinstance(last, UserMessage) else ""
    if text == "hostile" or text.startswith("Hello <script>"):
        return Reply(text=HOSTILE, calls=(Call("shell", {"command": f"cat <<'END'\n{HOSTILE}\nEND"}),))
    if text == "fail":
        return ModelFailure("the key was refused", "auth")
    if text == "long":
        return Reply(text="".join(f"Paragraph {n}, with some *words* in it.\n\n" for n in range(5_000)))
    if text.startswith("say "):
        return Reply(text=text.removeprefix("say "))
    return demo(request)


class Gated(ScriptedModel):
    """Says the first word of an answer to `say …`, and the others when the gate opens."""

    def __init__(self) -> None:
        super().__init__(script)
        self.gate = asyncio.Event()

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        last = request.messages[-1]
        waits = isinstance(last, UserMessage) and text_of(last.parts).startswith("say ")
        async for event in super().stream(request):
            yield event
            if waits and isinstance(event, TextDelta):
                await self.gate.wait()
