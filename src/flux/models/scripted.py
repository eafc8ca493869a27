"""Models that follow a script: for tests, examples and a first minute without any key."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from flux.messages import (
    AssistantMessage,
    AssistantPart,
    CallPart,
    ModelFailure,
    ReasoningDelta,
    ReasoningPart,
    TextDelta,
    TextPart,
    ToolCall,
    ToolResult,
    Usage,
    UserMessage,
    text_of,
)
from flux.models import demo_plan
from flux.models.base import Model, ModelEvent, ModelLimits, ModelRequest, has_images, no_images


class Call(Struct, frozen=True):
    """A tool call of a script."""

    name: str
    args: dict[str, Any] = {}


class Reply(Struct, frozen=True):
    """One scripted answer. Without `usage`, tokens are counted as words."""

    text: str = ""
    calls: tuple[Call, ...] = ()
    reasoning: str = ""
    usage: Usage | None = None
    cost: float | None = None


Turn = Reply | ModelFailure
Script = Sequence[Turn] | Callable[[ModelRequest], Turn]

_PIECES = re.compile(r"\s*\S+\s*|\s+")


class ScriptedModel(Model):
    """Answers by a script: a function of the request, or a list with one turn per answer in the history.

    A list is read by how many answers the request already holds, so a call that is made again after a
    crash gets the same turn. Text is streamed word by word, with `delay` seconds before each, unless the
    request asks for a format: then it is not streamed. `requests` holds the last `remember` requests.
    `images`: it takes images.
    """

    def __init__(
        self,
        script: Script,
        *,
        name: str = "scripted/test",
        delay: float = 0.0,
        context: int | None = None,
        remember: int = 1_000,
        images: bool = True,
    ) -> None:
        self._images = images
        self.name = name
        self.requests: list[ModelRequest] = []
        self._script = script
        self._delay = delay
        self._context = context
        self._remember = remember

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """Stream the turn that is due."""
        self.requests.append(request)
        if len(self.requests) > self._remember:
            del self.requests[0]
        turn = self._turn(request) if self._images or not has_images(request) else no_images(self.name)
        if isinstance(turn, ModelFailure):
            yield turn
            return
        for piece in _PIECES.findall(turn.reasoning):
            await asyncio.sleep(self._delay)
            yield ReasoningDelta(piece)
        for piece in _PIECES.findall(turn.text if request.output is None else ""):
            await asyncio.sleep(self._delay)
            yield TextDelta(piece)
        yield _message(turn, request, self.name)

    async def limits(self) -> ModelLimits:
        """The context window the model was made with."""
        return ModelLimits(context=self._context, output=None)

    async def preload(self) -> None:
        """A script is ready at once."""

    def _turn(self, request: ModelRequest) -> Turn:
        if callable(self._script):
            return self._script(request)
        index = sum(isinstance(message, AssistantMessage) for message in request.messages)
        return self._script[min(index, len(self._script) - 1)]


def echo(request: ModelRequest) -> Turn:
    """Say what was said."""
    return Reply(text=_last_user_text(request) or "…")


HELP = """I am **scripted/demo**, a stand-in for a language model: I follow a fixed script, so you can try
Flux without any key. I understand a few commands:

- `list [folder]` shows a folder, `read FILE` shows a file
- `write FILE TEXT` writes a file
- `run COMMAND` runs a shell command; this agent asks you first
- `use SKILL` uses a skill, `call TOOL {"argument": …}` calls any tool
- `ask` makes me ask *you* something
- `plan` makes a plan, which you review first, and works by it

Everything around me is real: the tools, the approvals, the log. Stop me with `kill -9` in the middle of
anything and resume the session."""


def demo(request: ModelRequest) -> Turn:
    """Follow a few commands with whatever tools there are."""
    last = request.messages[-1] if request.messages else None
    offered = {tool.name for tool in request.tools}
    if isinstance(last, ToolResult):
        named = demo_plan.next_calls(_results(request), offered)
        if named and not request.final:
            return Reply(text="", calls=tuple(Call(name, args) for name, args in named))
        return Reply(text=_report(request))
    text = _last_user_text(request)
    word, _, rest = text.strip().partition(" ")
    rest = rest.strip()
    call = _demo_call(word.lower(), rest)
    if call is None or request.final:
        return Reply(text=_small_talk(text))
    if call.name not in offered:
        return Reply(text=f"I would call `{call.name}` for that, but this agent has no such tool.")
    return Reply(text=f"I will use `{call.name}`.\n\n", calls=(call,), reasoning="The script has a tool for this.")


def _demo_call(word: str, rest: str) -> Call | None:
    name, _, content = rest.partition(" ")
    call: Call | None = None
    match word:
        case "list" | "ls" | "files":
            call = Call("list_directory", {"path": rest or "."})
        case "read" | "show" | "cat" if rest:
            call = Call("read_file", {"path": rest})
        case "write" if content:
            call = Call("write_file", {"path": name, "content": content + "\n"})
        case "run" | "shell" | "$" if rest:
            call = Call("shell", {"command": rest})
        case "use" | "skill" if rest:
            call = Call("use_skill", {"name": rest})
        case "call" if name:
            call = Call(name, _arguments(content))
        case "ask":
            question = rest or "Which colour do you like best?"
            call = Call("ask_user", {"question": question, "options": ["red", "green", "blue"]})
        case "plan":
            call = Call("create_plan", {"steps": demo_plan.STEPS})
    return call


def _arguments(text: str) -> dict[str, Any]:
    """The JSON object in a text; none where there is none."""
    try:
        found = msgspec.json.decode(text or "{}")
    except msgspec.DecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _report(request: ModelRequest) -> str:
    results = [result for result in _results(request) if result.is_error or result.call.name not in demo_plan.TOOLS]
    if not results:
        return "Every step of the plan is done." + "".join(f"\n\n{_told(found)}" for found in _found(request))
    return "\n\n".join(_told(result) for result in results)


def _found(request: ModelRequest) -> list[ToolResult]:
    """What the steps of a plan gave since the person spoke last."""
    found: list[ToolResult] = []
    for message in reversed(request.messages):
        if isinstance(message, UserMessage):
            break
        if isinstance(message, ToolResult) and message.call.name not in demo_plan.TOOLS:
            found.insert(0, message)
    return found


def _results(request: ModelRequest) -> list[ToolResult]:
    """What the calls of the last answer gave."""
    results: list[ToolResult] = []
    for message in reversed(request.messages):
        if not isinstance(message, ToolResult):
            break
        results.insert(0, message)
    return results


def _told(result: ToolResult) -> str:
    lines = result.content.strip().splitlines()
    shown = "\n".join(lines[:40]) + ("\n…" if len(lines) > 40 else "")
    verb = "did not work" if result.is_error else "says"
    return f"`{result.call.name}` {verb}:\n\n```\n{shown}\n```"


def _small_talk(text: str) -> str:
    if text.strip().lower().rstrip("!.") in ("hi", "hello", "hey"):
        return "Hello! " + HELP
    return HELP


def _last_user_text(request: ModelRequest) -> str:
    for message in reversed(request.messages):
        if isinstance(message, UserMessage):
            return text_of(message.parts)
    return ""


def _message(turn: Reply, request: ModelRequest, name: str) -> AssistantMessage:
    calls = tuple(
        ToolCall(f"wire_{index}", call.name, call.args, f"wire_{index}") for index, call in enumerate(turn.calls)
    )
    parts: list[AssistantPart] = []
    if turn.reasoning:
        parts.append(ReasoningPart(turn.reasoning))
    if turn.text:
        parts.append(TextPart(turn.text))
    parts.extend(CallPart(call.id) for call in calls)
    return AssistantMessage(
        parts=tuple(parts),
        calls=calls,
        stop="calls" if calls else "stop",
        usage=turn.usage or Usage(_words(request), len(turn.text.split())),
        cost=turn.cost,
        model=name,
    )


def _words(request: ModelRequest) -> int:
    words = len(request.system.split())
    for message in request.messages:
        text = message.content if isinstance(message, ToolResult) else text_of(message.parts)
        words += len(text.split())
    return words
