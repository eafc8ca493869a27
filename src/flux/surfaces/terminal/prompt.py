"""The input line: history, several lines, completion of commands, and questions of one key."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.input.typeahead import clear_typeahead
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import Output, create_output
from prompt_toolkit.output.vt100 import Vt100_Output
from prompt_toolkit.shortcuts import CompleteStyle
from prompt_toolkit.utils import is_dumb_terminal

from flux.surfaces.terminal.commands import NAMES
from flux.surfaces.terminal.keyboard import forget_typed

TWICE_SECONDS = 2.0


class Prompt:
    """Reads from the terminal. Ctrl+D raises EOFError, Ctrl+C KeyboardInterrupt."""

    def __init__(self, history: Path | None = None) -> None:
        self._output = _output()
        self._chat: PromptSession[str] = PromptSession(
            history=_history(history),
            completer=_Commands(),
            complete_while_typing=False,
            complete_style=CompleteStyle.READLINE_LIKE,
            multiline=True,
            prompt_continuation="  ",
            key_bindings=_chat_keys(),
            output=self._output,
        )
        self._input = self._chat.app.input

    async def message(self) -> str:
        """The next message or command. Ctrl+C clears the line; twice on an empty one it raises."""
        return await self._chat.prompt_async("> ", handle_sigint=False)

    async def line(self, label: str) -> str:
        """One line, without spaces around it."""
        session: PromptSession[str] = PromptSession(output=self._output)
        return (await session.prompt_async(label, handle_sigint=False)).strip()

    async def key(self, label: str, keys: Mapping[str, str], enter: str | None = None) -> str:
        """One of `keys`, or what Enter alone means. What was typed before the question is forgotten."""
        clear_typeahead(self._input)
        forget_typed(sys.stdin.fileno())
        session: PromptSession[str] = PromptSession(output=self._output, key_bindings=_answer_keys(keys, enter))
        word = await session.prompt_async(label, handle_sigint=False)
        return next(key for key, meaning in keys.items() if meaning == word)


class _Commands(Completer):
    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """The commands that begin like the text."""
        text = document.text_before_cursor
        for name in NAMES:
            if text.startswith("/") and name.startswith(text):
                yield Completion(name, start_position=-len(text))


def _output() -> Output | None:
    """The terminal without cursor reports: an answer that comes late would be read as typed text."""
    if is_dumb_terminal():
        return None
    output = create_output()
    if isinstance(output, Vt100_Output):
        output.enable_cpr = False
    return output


def _history(path: Path | None) -> History:
    if path is None:
        return InMemoryHistory()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
    except OSError:
        return InMemoryHistory()
    return FileHistory(str(path))


def _chat_keys() -> KeyBindings:
    keys = KeyBindings()
    last_interrupt = -TWICE_SECONDS

    @keys.add("enter")
    def _send(event: KeyPressEvent) -> None:
        if event.current_buffer.text.strip():
            event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @keys.add("c-c")
    def _clear(event: KeyPressEvent) -> None:
        nonlocal last_interrupt
        now = asyncio.get_running_loop().time()
        if event.current_buffer.text:
            event.current_buffer.reset()
        elif now - last_interrupt < TWICE_SECONDS:
            event.app.exit(exception=KeyboardInterrupt())
        last_interrupt = now

    return keys


def _answer_keys(keys: Mapping[str, str], enter: str | None) -> KeyBindings:
    bindings = KeyBindings()

    def answer(event: KeyPressEvent, key: str) -> None:
        event.current_buffer.text = keys[key]
        event.current_buffer.validate_and_handle()

    def bind(pressed: str, key: str) -> None:
        @bindings.add(pressed, eager=True)
        def _pressed(event: KeyPressEvent) -> None:
            answer(event, key)

    for key in keys:
        bind(key, key)
        if key.swapcase() not in keys:
            bind(key.swapcase(), key)

    @bindings.add("enter", eager=True)
    def _enter(event: KeyPressEvent) -> None:
        if enter is not None:
            answer(event, enter)

    @bindings.add("<any>")
    @bindings.add("<bracketed-paste>")
    def _ignore(event: KeyPressEvent) -> None:
        """Other keys mean nothing."""

    return bindings
