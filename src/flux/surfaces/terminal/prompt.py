"""The input line: history, several lines, completion of commands, and questions of one key."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import Output, create_output
from prompt_toolkit.output.vt100 import Vt100_Output
from prompt_toolkit.shortcuts import CompleteStyle
from prompt_toolkit.utils import is_dumb_terminal

from flux.surfaces.terminal.ahead import Ahead
from flux.surfaces.terminal.commands import completions
from flux.surfaces.terminal.deciding import Deciding, question_keys

TWICE_SECONDS = 2.0


class Prompt:
    """Reads from the terminal. Ctrl+D raises EOFError, Ctrl+C KeyboardInterrupt.

    `clock` says when keys come, in seconds from any beginning.
    """

    def __init__(self, history: Path | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._output = _output()
        self._clock = clock
        self._draft = ""
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
        self._ahead = Ahead(self._chat.app.input, clock)

    def typing(self, leave: Callable[[], None], send: Callable[[str], bool]) -> AbstractContextManager[None]:
        """Keep what is typed while nobody asks for the next message; `leave` is called for Ctrl+D.

        `send` is given each line that Enter has ended, and says whether it has taken it.
        """
        return self._ahead.listening(leave, lambda line: not self._draft.strip() and send(line))

    def hold(self) -> None:
        """What was typed so far belongs to the next message: it answers no question, and is not sent by itself."""
        self._draft += self._ahead.take()

    def put_back(self, text: str) -> None:
        """The next prompt begins with this text."""
        self.hold()
        self._draft = "\n".join(part for part in (text, self._draft) if part)

    async def message(self) -> str:
        """The next message or command. Ctrl+C clears the line; twice on an empty one it raises."""
        draft, self._draft = self._draft.strip("\n"), ""
        self._ahead.give_back()
        return await self._chat.prompt_async("> ", default=draft, handle_sigint=False)

    async def line(self, label: str) -> str:
        """One line, without spaces around it."""
        session: PromptSession[str] = PromptSession(output=self._output)
        return (await session.prompt_async(label, handle_sigint=False)).strip()

    async def key(
        self, label: str, keys: Mapping[str, str], enter: str | None = None, twice: Collection[str] = ()
    ) -> str:
        """One of `keys`, or what Enter alone means; those in `twice` are confirmed. Other keys are kept as a draft."""
        self.hold()
        draft, typed_at = self._draft, self._ahead.last
        deciding = Deciding(keys, enter=enter, twice=twice, draft=draft, typed_at=typed_at, clock=self._clock)
        tell = partial(print, end="", flush=True) if self._output is None else lambda hint: None
        bindings = question_keys(deciding, keys, tell)
        session: PromptSession[str] = PromptSession(output=self._output, key_bindings=bindings)
        try:
            word = await session.prompt_async(
                lambda: label + deciding.hint, default=draft.strip("\n"), handle_sigint=False
            )
        finally:
            self._draft = deciding.draft
        return next(key for key, meaning in keys.items() if meaning == word)


class _Commands(Completer):
    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """The commands that begin like the text, and what may stand behind them."""
        text = document.text_before_cursor
        for whole in completions(text):
            yield Completion(whole, start_position=-len(text))


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
