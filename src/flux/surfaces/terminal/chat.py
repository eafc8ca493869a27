"""The chat: one person, one session, one terminal."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

from flux.client import FluxClient, SessionHandle
from flux.errors import AgentNotFound, FluxError, InvalidInput
from flux.events import Mode
from flux.surfaces.terminal.commands import help_text, parse, unknown_command
from flux.surfaces.terminal.exporting import export
from flux.surfaces.terminal.forking import Cut, cut_before
from flux.surfaces.terminal.history import past
from flux.surfaces.terminal.keyboard import quiet
from flux.surfaces.terminal.live import LiveView
from flux.surfaces.terminal.meanwhile import MODES
from flux.surfaces.terminal.plain import PlainView, documented_resume, pipe
from flux.surfaces.terminal.problems import problem, start_problem
from flux.surfaces.terminal.signals import Signals
from flux.surfaces.terminal.turn import Conversation
from flux.surfaces.terminal.view import View

#: What people type who know other programs.
LEAVE_WORDS = ("exit", "quit")


async def chat(
    client: FluxClient,
    *,
    agent: str,
    session: SessionHandle | None,
    resume_command: Callable[[str], str] = documented_resume,
    notice: str | None = None,
    history: Path | None = None,
    model: str | None = None,
) -> int:
    """Talk until the person leaves; the exit code.

    `history` is a file for typed lines, `model` answers the next messages instead of the agent's own.
    Without a terminal, all of standard input is one message.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        text = sys.stdin.read()
        return await pipe(client, agent=agent, session=session, text=text, resume_command=resume_command, model=model)
    signals = Signals()
    try:
        with quiet(sys.stdin.fileno()), signals:
            return await _talk(client, agent, session, signals, resume_command, notice, history, model)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if signals.left_by is None or task is None:
            raise
        task.uncancel()
        return 128 + signals.left_by
    except OSError:
        return 1  # the terminal is gone, and nobody is left to tell


async def _talk(
    client: FluxClient,
    agent: str,
    session: SessionHandle | None,
    signals: Signals,
    resume_command: Callable[[str], str],
    notice: str | None,
    history: Path | None,
    model: str | None,
) -> int:
    loading = asyncio.create_task(_load("prompt"))  # a quarter of a second, while the session starts
    view = _view()
    try:
        resumed = await session.info() if session is not None else None
        session = session or await client.start_session(agent)
    except FluxError as error:
        view.line(start_problem(error), "error")
        await loading
        return 1
    try:
        talk: Chat | None = None
        _header(view, agent, session.id, notice)
        conversation = Conversation(client, session, view, (await loading).Prompt(history), signals)
        talk = Chat(client, agent, session, view, conversation, model)
        if isinstance(view, LiveView):
            conversation.ready = asyncio.create_task(_load_markdown(view))
        if resumed is not None:
            await talk.catch_up(resumed)
        elif (await session.info())["head"] > 1:
            await conversation.greeted()
        while not conversation.leaving:
            await talk.step()
    finally:
        left = talk.session.id if talk is not None else session.id
        kept = resumed is not None or not await _discarded(client, left)
    if kept:
        view.line(f"Session: {left}\nResume with: {resume_command(left)}", "copy")
    return 0


async def _discarded(client: FluxClient, session: str) -> bool:
    """Whether nothing was said in a session that was started here, and it is gone: it would only fill lists."""
    try:
        return await client.discard(session)
    except FluxError:
        return False  # whoever cannot be asked may know of a message


def _view() -> View:
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") in ("dumb", "unknown", "")
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    return PlainView(sys.stdout, sys.stdout) if plain else LiveView(sys.stdout)


def _header(view: View, agent: str, session: str, notice: str | None) -> None:
    view.line(f"Flux Agent — {agent}", "ask")
    view.line(f"Session: {session}", "copy")
    view.line("Type /help for commands, Ctrl+D to exit.")
    if notice:
        view.line(notice, "dim")


async def _load(name: str) -> Any:
    """A module that the first prompt should not wait for."""
    return await asyncio.to_thread(importlib.import_module, f"flux.surfaces.terminal.{name}")


async def _load_markdown(view: LiveView) -> None:
    view.markdown = (await _load("markdown")).Markdown


class Chat:
    """What the person types: messages and commands."""

    def __init__(
        self,
        client: FluxClient,
        agent: str,
        session: SessionHandle,
        view: View,
        conversation: Conversation,
        model: str | None = None,
    ) -> None:
        self._client = client
        self._agent = agent
        self.session = session
        self._view = view
        self._conversation = conversation
        self._model = model
        self._last = ""
        self._commands: dict[str, Callable[[str], Awaitable[None]]] = {
            "/help": self._help,
            "/session": self._say_session,
            "/usage": self._usage,
            "/model": self._choose_model,
            "/retry": self._retry,
            "/approve": self._approve,
            "/cancel": self._cancel,
            "/compact": self._compact,
            "/fork": self._fork,
            "/export": self._export,
            **{name: partial(self._send_as, mode) for name, mode in MODES.items()},
            "/quit": self._quit,
        }

    async def catch_up(self, info: dict[str, Any]) -> None:
        """Show the last exchange of a resumed session, and go on with what it does."""
        try:
            found = await past(self._client, self.session.id, info["head"], info["turns"])
            self._last = found.asked
            if found.earlier:
                messages = f"{found.earlier} earlier message{'' if found.earlier == 1 else 's'}"
                self._view.line(f"… {messages}; flux agent session show {self.session.id}", "dim")
            await self._conversation.resume(found)
        except FluxError as error:
            self._view.line(problem(error), "error")

    async def step(self) -> None:
        """One line of the person, and what comes of it."""
        line = await self._conversation.prompt()
        if line is None:
            return
        command = ("/quit", "") if line.strip() in LEAVE_WORDS else parse(line)
        try:
            if command is None:
                await self._send(line)
            elif command[0] in self._commands:
                await self._commands[command[0]](command[1])
            else:
                self._view.line(unknown_command(command[0]))
        except FluxError as error:
            self._view.line(problem(error), "error")

    async def _send(self, text: str) -> None:
        self._last = text
        await self._conversation.turn(text, self._model)

    async def _send_as(self, mode: Mode, text: str) -> None:
        """While nothing runs here, somebody else's run may."""
        if not text:
            self._view.line("Type the message behind the command.")
            return
        self._last = text
        await self._conversation.turn(text, self._model, mode)

    async def _help(self, _: str) -> None:
        self._view.line(help_text())

    async def _say_session(self, _: str) -> None:
        info = await self.session.info()
        self._view.line(f"Session: {self.session.id}", "copy")
        self._view.line(f"{info.get('title') or 'no title yet'} · {self._agent} · {info['state']}", "dim")
        self._view.line(f"Model: {self._model or await self._own_model(info)}", "dim")

    async def _usage(self, _: str) -> None:
        info = await self.session.info()
        self._view.line(usage_line(info["usage"], info["turns"]))

    async def _choose_model(self, name: str) -> None:
        if name:
            self._model = None if name == "default" else name
        own = await self._own_model(await self.session.info())
        if self._model:
            self._view.line(f"Model of the next messages: {self._model}; /model default returns to {own}")
        else:
            self._view.line(f"Model of the next messages: {own}")

    async def _own_model(self, info: dict[str, Any]) -> str:
        """The model of the version of the agent that this session began with."""
        path, version = f"/agents/{self._agent}", info.get("agent_version")
        try:
            agent = await self._client.get(path)
            if version not in (None, agent["version"]):
                async with aclosing(self._client.pages(f"{path}/versions")) as versions:
                    agent = await anext((row async for row in versions if row["version"] == version), agent)
        except AgentNotFound:
            return "the agent's own"
        return f"{agent['definition']['model']} (the agent's own)"

    async def _retry(self, _: str) -> None:
        if not self._last:
            self._view.line("There is no message to send again.")
            return
        if self._conversation.lost:
            await self._conversation.go_on()  # the server has it, and repeats nothing
            return
        self._view.user(self._last)
        await self._send(self._last)

    async def _approve(self, _: str) -> None:
        if not await self.session.interrupts():
            self._view.line("There are no open questions.")
            return
        await self._conversation.ask_again()

    async def _cancel(self, _: str) -> None:
        answer = await self.session.cancel()
        self._view.line("Cancelled." if answer.get("cancelled") else "Nothing is running.")

    async def _compact(self, _: str) -> None:
        await self._conversation.compact()

    async def _fork(self, back: str) -> None:
        """Go on in a copy; with a number, without so many of the last messages."""
        head = (await self.session.info())["head"]
        if head <= 1:
            self._view.line("There is nothing to fork yet.")
            return
        if back and not (back.isdecimal() and int(back)):
            raise InvalidInput("/fork takes a number: 1 goes back before the last message")
        cut = await cut_before(self._client, self.session.id, head, int(back)) if back else Cut(head)
        self.session = await self.session.fork(cut.at)
        self._conversation.move(self.session, cut.text)
        self._view.line("Forked; this is a copy from here on.", "dim")
        self._view.line(f"Session: {self.session.id}", "copy")

    async def _export(self, said: str) -> None:
        told = await export(self.session, said, lambda text: self._view.line(text, "copy"))
        if told is not None:
            self._view.line(told)

    async def _quit(self, _: str) -> None:
        self._conversation.leaving = True


def usage_line(usage: dict[str, Any], turns: int) -> str:
    """Tokens, cost and turns on one line."""
    cached = f" ({usage['cache_read']:,} cached)" if usage.get("cache_read") else ""
    cost = f" · ${usage['cost']:.4f}" if usage.get("cost") else ""
    plural = "" if turns == 1 else "s"
    return f"Tokens: {usage['input']:,} in{cached}, {usage['output']:,} out{cost} · {turns} turn{plural}"
