"""What an agent asks a person, and how the person answers at a terminal."""

from __future__ import annotations

import asyncio
import webbrowser
from collections.abc import Collection, Mapping
from typing import Any, Protocol
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from flux.events import ApprovalRequired, Elicited, InputRequired, Paused, PlanReview, Question
from flux.surfaces.terminal.plan import EDIT_LABEL, Step, edited, plan_lines
from flux.surfaces.terminal.text import value_lines
from flux.surfaces.terminal.view import View
from flux.surfaces.visible import visible

APPROVE = {"a": "approve", "A": "always", "r": "reject"}
APPROVE_LABEL = "[a]pprove [A]lways [r]eject "
REVIEW = {"a": "approve", "e": "edit", "r": "reject"}
REVIEW_LABEL = "[a]pprove [e]dit [r]eject "
#: Of a typed plan, which is taken as it is or not at all.
DECISION = {"a": "approve", "r": "reject"}
DECISION_LABEL = "[a]pprove [r]eject "
YES_NO = {"y": "yes", "n": "no"}


class Keys(Protocol):
    """How a person is asked. All raise KeyboardInterrupt on Ctrl+C and EOFError on Ctrl+D."""

    async def key(
        self, label: str, keys: Mapping[str, str], enter: str | None = None, twice: Collection[str] = ()
    ) -> str:
        """One of `keys`, or what Enter alone means; those in `twice` are asked for once more."""

    async def line(self, label: str) -> str:
        """One line, without spaces around it."""


class Reply(Struct, frozen=True):
    """An answer as the server takes it."""

    decision: str
    reason: str | None = None
    always: bool = False
    content: Any = None


async def ask(question: Question, view: View, keys: Keys) -> Reply:
    """Show a question and take its answer."""
    match question:
        case ApprovalRequired():
            return await _approval(question, view, keys)
        case InputRequired():
            return await _input(question, view, keys)
        case Elicited():
            return await _elicited(question, view, keys)
        case PlanReview():
            return await _plan(question, view, keys)
        case Paused():
            return await _paused(question, view, keys)


async def _approval(asked: ApprovalRequired, view: View, keys: Keys) -> Reply:
    view.line(f"{asked.agent} asks to call {asked.tool}", "ask")
    if asked.args:
        view.quote(_arguments(asked.args))
    if asked.reason:
        view.line(f"Reason: {asked.reason}", "dim")
    choice = await keys.key(APPROVE_LABEL, APPROVE, twice="A")
    if choice == "r":
        return await _rejected(keys)
    return Reply("approve", always=choice == "A")


async def _rejected(keys: Keys) -> Reply:
    return Reply("reject", reason=await keys.line("Reason (Enter for none): ") or None)


def _arguments(args: Mapping[str, Any]) -> str:
    """Every argument in full; long ones below their name."""
    parts = []
    for name, value in args.items():
        text = value_lines(value)
        below = "\n" in text.rstrip("\n")
        parts.append(f"{visible(name)}:" + (f"\n{_indented(text)}" if below else f" {text}"))
    return "\n".join(parts)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.rstrip("\n").split("\n"))


async def _input(asked: InputRequired, view: View, keys: Keys) -> Reply:
    view.line(asked.question, "ask")
    for number, option in enumerate(asked.options, 1):
        view.line(f"  {number}. {option}")
    text = ""
    while not text:
        text = await keys.line("Number or text: " if asked.options else "Answer: ")
    return Reply("answer", content=chosen(text, asked.options))


def chosen(text: str, options: tuple[str, ...]) -> str:
    """The option a number stands for, else the text itself."""
    if text.isascii() and text.isdigit() and 0 < int(text) <= len(options):
        return options[int(text) - 1]
    return text


async def _elicited(asked: Elicited, view: View, keys: Keys) -> Reply:
    view.line(f"[{asked.server_name}] {asked.message}", "ask")
    if asked.url is None:
        return await _form(asked, view, keys)
    view.line(asked.url, "copy")
    if await keys.key("Open browser to authorize? [Y/n] ", YES_NO, enter="y") == "n":
        return Reply("decline")
    if urlsplit(asked.url).scheme not in ("http", "https"):
        view.line("This is no web address, so it was not opened.", "error")
        return Reply("decline")
    if not await asyncio.to_thread(webbrowser.open, asked.url):
        view.line("No browser could be opened; open the address yourself.", "dim")
    return Reply("accept")


async def _form(asked: Elicited, view: View, keys: Keys) -> Reply:
    """Ask for each field; an empty answer to a required one declines."""
    schema = asked.schema or {}
    content: dict[str, Any] = {}
    for name, field in schema.get("properties", {}).items():
        required = name in schema.get("required", ())
        hint = f" ({field['description']})" if field.get("description") else ""
        text = await keys.line(f"{visible(field.get('title') or name)}{visible(hint)}: ")
        if text:
            content[name] = _typed(text, field.get("type"))
        elif required:
            view.line("Declined: this was needed.", "dim")
            return Reply("decline")
    return Reply("accept", content=content)


def _typed(text: str, kind: str | None) -> Any:
    """Text as the value its schema wants; the asking server checks it."""
    if kind == "boolean":
        return text.lower() in ("y", "yes", "true", "1", "on")
    if kind in ("integer", "number"):
        try:
            return msgspec.json.decode(text)
        except msgspec.DecodeError:
            return text
    return text


async def _plan(asked: PlanReview, view: View, keys: Keys) -> Reply:
    view.line("A plan to review", "ask")
    steps: list[Step] = list(asked.steps)
    while True:
        view.quote("\n".join(plan_lines(steps)))
        choice = await keys.key(*((REVIEW_LABEL, REVIEW) if asked.plan is None else (DECISION_LABEL, DECISION)))
        if choice == "r":
            return await _rejected(keys)
        if choice == "a":
            return Reply("approve", content=None if steps == list(asked.steps) else {"steps": steps})
        steps = await _edited_plan(steps, view, keys)


async def _edited_plan(steps: list[Step], view: View, keys: Keys) -> list[Step]:
    """The steps after what a person changes, line by line."""
    while typed := await keys.line(EDIT_LABEL):
        changed = edited(steps, typed)
        if isinstance(changed, str):
            view.line(changed, "error")
        else:
            steps = changed
            view.quote("\n".join(plan_lines(steps)))
    return steps


async def _paused(asked: Paused, view: View, keys: Keys) -> Reply:
    view.line(f"Paused: {asked.name}", "ask")
    if asked.output is not None:
        view.quote(value_lines(asked.output))
    text = await keys.line("Continue with (Enter for nothing): ")
    return Reply("answer", content=text or None)
