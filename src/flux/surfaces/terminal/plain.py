"""The view without a screen: for pipes, for terminals that cannot move the cursor, and for NO_COLOR."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from contextlib import aclosing, suppress
from typing import TextIO

from flux.client import FluxClient, SessionHandle
from flux.errors import FluxError
from flux.events import Outcome
from flux.messages import ToolCall
from flux.surfaces.terminal.problems import problem, start_problem
from flux.surfaces.terminal.text import call_text
from flux.surfaces.terminal.view import Look, Projection
from flux.surfaces.visible import visible


class PlainView:
    """Writes the answer to `out` as it comes and everything else to `aside`; they may be the same."""

    def __init__(self, out: TextIO, aside: TextIO) -> None:
        self._out = out
        self._aside = aside
        self._open = ""
        self._answered = False
        self._open_call = ""

    def begin(self) -> None:
        """A run works from now on."""

    def rest(self) -> None:
        """Nothing works any more."""
        self.end_text()

    def tick(self) -> None:
        """There is nothing to redraw."""

    def prompted(self) -> None:
        """The cursor is at the start of a line."""

    def space(self) -> None:
        """An empty line before a prompt."""
        self._write(self._aside, "\n")

    def text(self, piece: str) -> None:
        """A piece of the answer."""
        if not piece:
            return
        if not self._open:
            self._end_call()
            self._write(self._out, "\n" if self._answered else "")
        self._open = visible(piece)
        self._write(self._out, self._open)

    def end_text(self) -> None:
        """The answer's text is complete, or is given up."""
        if self._open:
            self._answered = True
            self._write(self._out, "" if self._open.endswith("\n") else "\n")
        self._open = ""

    def user(self, text: str) -> None:
        """A message that was not typed here."""
        self.line(f"> {text}")

    def call_started(self, call: ToolCall) -> None:
        """A tool begins."""
        self._end_call()
        self._open_call = call.id
        self._write(self._aside, f"Calling {call_text(call.name, call.args, 200)}...")

    def call_output(self, call: ToolCall, piece: str) -> None:
        """What tools print while they run is not shown."""

    def call_done(self, call: ToolCall, outcome: Outcome, words: str) -> None:
        """It has ended; `words` say how."""
        if self._open_call != call.id:
            self.call_started(call)
        self._write(self._aside, f" {visible(words)}\n")
        self._open_call = ""

    def line(self, text: str, look: Look = "plain") -> None:
        """Something the chat itself says."""
        self.end_text()
        self._end_call()
        self._write(self._aside, visible(text) + "\n")

    def status(self, text: str) -> None:
        """What is the case for now; it cannot be taken back here."""
        if text:
            self.line(text)

    def quote(self, text: str) -> None:
        """Text in full that a person must judge."""
        self.line("\n".join(f"  | {line}" for line in text.split("\n")))

    def _end_call(self) -> None:
        if self._open_call:
            self._write(self._aside, "\n")
        self._open_call = ""

    def _write(self, file: TextIO, text: str) -> None:
        file.write(text)
        file.flush()


def documented_resume(session: str) -> str:
    """The command that resumes a session anywhere."""
    return f"flux agent session resume {session}"


async def pipe(
    client: FluxClient,
    *,
    agent: str,
    session: SessionHandle | None,
    text: str,
    resume_command: Callable[[str], str] = documented_resume,
    model: str | None = None,
) -> int:
    """Send one message and print the plain answer; the exit code: 0, or 1 when there is no answer.

    `model` answers instead of the agent's own.
    """
    view = PlainView(sys.stdout, sys.stderr)
    if not text.strip():
        view.line("Nothing to send: the input is empty.")
        return 1
    try:
        if session is None:
            session = await client.start_session(agent)
        else:
            session.cursor = str((await session.info())["head"])
    except FluxError as error:
        view.line(start_problem(error))
        return 1
    try:
        return await _answer(session, text.strip(), view, resume_command, model)
    except FluxError as error:
        view.line(problem(error, interactive=False))
    except BrokenPipeError:
        # Python flushes standard output once more at exit, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


async def _answer(
    session: SessionHandle, text: str, view: PlainView, resume_command: Callable[[str], str], model: str | None
) -> int:
    shown = Projection(view, hints=False)
    shown.typed(text)
    try:
        async with aclosing(session.send(text, model=model)) as events:
            async for event in events:
                shown.feed(event.event)
    except (asyncio.CancelledError, BrokenPipeError):
        # Nobody is left to read: do not let the run go on at somebody's cost.
        with suppress(FluxError):
            await session.cancel()
        raise
    view.rest()
    if session.state != "waiting":
        return 1 if shown.end is not None else 0
    view.line(f"The agent waits for an answer of yours. Give it with:\n  {resume_command(session.id)}")
    return 1
