"""What a conversation needs to be shown, and how the events of a session become that."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal, Protocol

import msgspec

from flux.events import (
    QUESTIONS,
    RUN_ENDS,
    AssistantSaid,
    Cancelled,
    CompactDone,
    Compacted,
    Gated,
    Mode,
    ModelFailed,
    Outcome,
    Planned,
    RunFailed,
    RunStarted,
    SessionEndedEntry,
    SubagentChanged,
    Token,
    ToolDone,
    ToolOutput,
    ToolStarted,
    UserSaid,
)
from flux.messages import ToolCall, text_of
from flux.surfaces.terminal.plan import STEP_TOOLS, plan_text
from flux.surfaces.terminal.text import first_line

Look = Literal["plain", "dim", "error", "ask", "copy"]

#: What is said of one's own message that a run does not begin with at once.
ACCEPTED: dict[Mode, str] = {"steer": "(joins this run)", "interrupt": "(instead of this run)"}
OUTCOMES: dict[Outcome, str] = {
    "success": "Done.",
    "error": "Failed",
    "denied": "Denied.",
    "cancelled": "Cancelled.",
    "interrupted": "Interrupted.",
    "timeout": "Timed out.",
    "expired": "Expired.",
}
STOPS = {
    "length": "The answer was cut: it reached the model's output limit.",
    "content_filter": "The provider's content filter stopped the answer.",
}


class View(Protocol):
    """Shows a conversation. Nothing given to it is trusted."""

    def begin(self) -> None:
        """A run works from now on."""

    def rest(self) -> None:
        """Nothing works any more."""

    def tick(self) -> None:
        """Due every 50 ms while a run works."""

    def prompted(self) -> None:
        """A prompt was shown and answered; the cursor is at the start of a line."""

    def space(self) -> None:
        """An empty line before a prompt."""

    def text(self, piece: str) -> None:
        """A piece of the answer's Markdown."""

    def end_text(self) -> None:
        """The answer's text is complete, or is given up."""

    def user(self, text: str) -> None:
        """A message that was not typed here."""

    def call_started(self, call: ToolCall) -> None:
        """A tool begins."""

    def call_output(self, call: ToolCall, piece: str) -> None:
        """A piece of what it prints."""

    def call_done(self, call: ToolCall, outcome: Outcome, words: str) -> None:
        """It has ended; `words` say how."""

    def line(self, text: str, look: Look = "plain") -> None:
        """Something the chat itself says."""

    def status(self, text: str) -> None:
        """What is the case for now; an empty text: no more."""

    def quote(self, text: str) -> None:
        """Text in full that a person must judge, kept apart from what the chat says."""


class Projection:
    """Turns the events of a session, in order, into what a view shows.

    `asked` are the ids of its questions, in order; `pending` those of messages that no run has consumed, `taken`
    those of messages that one has.
    `hints`: say which commands help.
    """

    def __init__(self, view: View, *, hints: bool = True) -> None:
        self.end: RunFailed | Cancelled | None = None
        self.asked: list[str] = []
        self.pending: set[str] = set()
        self.taken: set[str] = set()
        self._view = view
        self._hints = hints
        self._running = False
        self._calls: dict[str, ToolCall] = {}
        self._message = ""
        self._attempt = 0
        self._announced = 0
        self._shown = ""
        self._own: list[str] = []
        self._mine: set[str] = set()
        self._said: dict[str, str] = {}
        self._typed_here = False
        self._between = False
        self._elsewhere = 0
        self._plan: tuple[dict[str, Any], ...] = ()
        self._plan_told = False

    def typed(self, text: str) -> None:
        """This message was typed here: it is on the screen already."""
        self._own.append(text)
        self._typed_here, self._between = True, False

    def typed_aside(self, text: str) -> None:
        """This message was typed here, while a run works."""
        self._own.append(text)

    def taken_back(self, text: str) -> None:
        """This message was typed here, but never reached the session."""
        if text in self._own:
            self._own.remove(text)

    def queued(self, message: UserSaid) -> None:
        """Remember a message until the run that consumes it."""
        waits = self._running or bool(self.pending)
        self.pending.add(message.id)
        text = self._said[message.id] = text_of(message.parts)
        if text not in self._own:
            self._elsewhere += self._typed_here
            return
        self._own.remove(text)
        self._mine.add(message.id)
        if waits:
            self._view.line(ACCEPTED.get(message.mode, "(queued)"), "dim")

    def announce(self) -> None:
        """Say that others have sent messages, once for each."""
        if self._elsewhere:
            self._view.line(f"{self._elsewhere} new message{'s' * (self._elsewhere > 1)} elsewhere", "dim")
        self._elsewhere = 0

    def feed(self, event: Any) -> None:
        """Show one event; those it does not know show nothing."""
        if isinstance(event, QUESTIONS):
            self.asked.append(event.id)
        if isinstance(event, RUN_ENDS):
            self._running = False
        shower = _SHOWERS.get(type(event))
        if shower is not None:
            shower(self, event)
            self._between = self._between or not isinstance(event, UserSaid | RunStarted)

    def _token(self, token: Token) -> None:
        if (token.message_id, token.attempt) != (self._message, self._attempt):
            self._begin(token.message_id, token.attempt)
        self._shown += token.text
        self._view.text(token.text)

    def _begin(self, message: str, attempt: int) -> None:
        again = message == self._message and attempt > self._attempt
        if self._shown:
            self._view.end_text()
        if again and attempt > self._announced:
            self._view.line(f"… trying again (attempt {attempt})", "dim")
        if message != self._message:
            self._announced = 0
        self._message, self._attempt, self._shown = message, attempt, ""

    def _assistant(self, said: AssistantSaid) -> None:
        text = text_of(said.parts)
        if said.message_id != self._message:
            self._begin(said.message_id, 1)
        elif not text.startswith(self._shown):
            self._begin(said.message_id, self._attempt + 1)
        self._view.text(text[len(self._shown) :])
        self._view.end_text()
        self._shown = ""
        self._calls |= {call.id: call for call in said.calls}
        self._consumed(said.inputs)
        if said.stop in STOPS:
            self._view.line(STOPS[said.stop], "dim")

    def _model_failed(self, failed: ModelFailed) -> None:
        if failed.retry_at is None:
            return
        self._view.end_text()
        self._message, self._shown = failed.message_id, ""
        self._attempt, self._announced = failed.attempt, failed.attempt + 1
        wait = max(0, round(failed.retry_at - time.time()))
        when = f" in {wait} s" if wait else ""
        self._view.line(f"… {first_line(failed.error)}; trying again{when} (attempt {failed.attempt + 1})", "dim")

    def _gated(self, gated: Gated) -> None:
        call = self._calls.get(gated.call)
        if call is not None and gated.args is not None:
            self._calls[gated.call] = msgspec.structs.replace(call, args=gated.args)

    def _call(self, id: str, name: str) -> ToolCall:
        return self._calls.get(id) or ToolCall(id, name)

    def _tool_started(self, started: ToolStarted) -> None:
        if started.name not in STEP_TOOLS:
            self._view.call_started(self._call(started.call, started.name))

    def _tool_output(self, output: ToolOutput) -> None:
        if output.call in self._calls:
            self._view.call_output(self._calls[output.call], output.text)

    def _tool_done(self, done: ToolDone) -> None:
        told, self._plan_told = self._plan_told, False
        if told and done.name in STEP_TOOLS:
            return
        words = OUTCOMES[done.outcome]
        if done.outcome == "error":
            words += f": {first_line(done.content)}"
        self._view.call_done(self._call(done.call, done.name), done.outcome, words)

    def _run_started(self, started: RunStarted) -> None:
        self.end, self._running = None, True
        self._consumed(started.inputs)

    def _consumed(self, inputs: tuple[str, ...]) -> None:
        """Show messages where they are consumed; one's own again only if something came in between."""
        self.pending.difference_update(inputs)
        self.taken.update(inputs)
        for id in [id for id in inputs if id in self._said]:
            text = self._said.pop(id)
            if id not in self._mine:
                self.announce()
            if id not in self._mine or self._between:
                self._view.user(text)
                self._between = True
        self._mine.difference_update(inputs)

    def _run_failed(self, failed: RunFailed) -> None:
        self.end = failed
        self._view.end_text()
        told = f"Error: {failed.message}"
        if failed.retryable and self._hints:
            told = followed(told, "/retry sends the message again.")
        self._view.line(told, "error")

    def _cancelled(self, cancelled: Cancelled) -> None:
        self.end = cancelled
        for id in cancelled.inputs:
            self._said.pop(id, None)
        self.pending.difference_update(cancelled.inputs)
        self.taken.update(cancelled.inputs)
        self._view.end_text()
        self._view.line("Cancelled.", "dim")

    def _ended(self, ended: SessionEndedEntry) -> None:
        self._view.end_text()
        self._view.line(f"The session has ended ({ended.reason}).", "dim")

    def _planned(self, plan: Planned) -> None:
        text, self._plan, self._plan_told = plan_text(plan.steps, self._plan), plan.steps, True
        if text:
            self._view.line(text, "dim")

    def _subagent(self, changed: SubagentChanged) -> None:
        self._view.line(f"… {changed.agent or 'sub-agent'}: {changed.status}", "dim")

    def _compacted(self, _: Compacted) -> None:
        self._view.line("… earlier messages were summarised to save space", "dim")

    def _compact_done(self, done: CompactDone) -> None:
        if not done.compacted:
            self._view.line("There is nothing to summarise yet.", "dim")


def followed(text: str, hint: str) -> str:
    """A sentence and a hint behind it. A full stop would become part of an address, so there it stands apart."""
    text = text.rstrip()
    if text.endswith((".", "!", "?", "…")):
        return f"{text} {hint}"
    stop = " ." if "://" in text.rpartition(" ")[2] else "."
    return f"{text}{stop} {hint}"


_SHOWERS: dict[type, Callable[[Projection, Any], None]] = {
    Token: Projection._token,
    UserSaid: Projection.queued,
    RunStarted: Projection._run_started,
    AssistantSaid: Projection._assistant,
    ModelFailed: Projection._model_failed,
    Gated: Projection._gated,
    ToolStarted: Projection._tool_started,
    ToolOutput: Projection._tool_output,
    ToolDone: Projection._tool_done,
    RunFailed: Projection._run_failed,
    Cancelled: Projection._cancelled,
    SessionEndedEntry: Projection._ended,
    Planned: Projection._planned,
    SubagentChanged: Projection._subagent,
    Compacted: Projection._compacted,
    CompactDone: Projection._compact_done,
}
