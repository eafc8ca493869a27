"""`session.shell`: a command of the application, told in the log as a call of `bash`."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from flux.agents.code.errors import AbortError
from flux.agents.code.outcome import CANCELLED
from flux.agents.define.called import MAX_CHARS
from flux.agents.define.definition import AgentDefinition
from flux.agents.history.asked import ONLY_CALLS
from flux.agents.turn.loop import IDLE, unless_cancelled
from flux.engine.running.run import Executor, Run
from flux.events import (
    AssistantSaid,
    Cancelled,
    ChatResponse,
    Entry,
    Gated,
    RunStarted,
    ToolDone,
    ToolOutput,
    ToolStarted,
    UserSaid,
)
from flux.messages import CallPart, TextPart, ToolCall
from flux.sandboxes.base import Sandbox, ShellResult
from flux.store.interrupts import digest_of
from flux.tools.shell import report_of
from flux.tools.text import Tap

REDACTED = "[redacted]"
TIMEOUT = 600.0
#: Shorter values are part of too much to be hidden in what a command prints.
LEAST_HIDDEN = 3
STOPPED = "[cancelled while it ran; its outcome is unknown]"


class Command(Struct, frozen=True):
    """A command of the application. `env` is given to it, and never written down."""

    text: str
    env: Mapping[str, str] = {}
    cwd: str | None = None
    timeout: float = TIMEOUT

    def said(self, id: str) -> UserSaid:
        """The message that stands for it in the conversation."""
        parts = (TextPart("[the application runs a command in the workspace]"),)
        return UserSaid(id=id, mode="reject", parts=parts, options={ONLY_CALLS: True})

    def entries(self, run: str, said: UserSaid, definition: AgentDefinition) -> tuple[list[Entry], ToolCall]:
        """What is written before it runs, behind its message: a run of its own, whose one call it is."""
        args: dict[str, Any] = {"command": self.text}
        args |= {"env": dict.fromkeys(self.env, REDACTED)} if self.env else {}
        args |= {"cwd": self.cwd} if self.cwd is not None else {}
        call = ToolCall(f"call_{uuid.uuid4().hex}", "bash", args)
        return [
            RunStarted(run=run, inputs=(said.id,), definition_digest=definition.digest),
            AssistantSaid(message_id=str(uuid.uuid4()), parts=(CallPart(call.id),), calls=(call,), stop="calls"),
            Gated(call=call.id, verdict="allow", args_digest=digest_of("bash", args), rule="the application runs it"),
            ToolStarted(call=call.id, name="bash"),
        ], call

    def hide(self, text: str) -> str:
        """Text without the values of its variables."""
        for value in sorted(self.env.values(), key=len, reverse=True):
            text = text.replace(value, REDACTED) if len(value) >= LEAST_HIDDEN else text
        return text


class CommandRun:
    """Runs a command once, and records what came of it. `result` is that, None until then."""

    def __init__(self, command: Command, call: ToolCall, sandbox: Sandbox, settle: Executor) -> None:
        self.result: ShellResult | None = None
        self.error: OSError | None = None
        self._command = command
        self._call = call
        self._sandbox = sandbox
        self._settle = settle
        self._begun = False

    async def __call__(self, run: Run) -> None:
        """Run it; the second time, after something broke, only end what was begun."""
        if self._begun:
            await self._settle(run)
            return
        self._begun = True
        # A value may come in two pieces: what has secrets is shown when it is whole.
        shown = Tap(lambda text: run.emit(ToolOutput(self._call.id, text)), MAX_CHARS)
        show = None if self._command.env else shown
        try:
            self.result = await unless_cancelled(run, run_command(self._sandbox, self._command, show))
        except OSError as error:
            self.error = error
        await run.append(*self._end(), then=IDLE)

    def came_to(self) -> ShellResult:
        """What came of it.

        :raises OSError: it could not be started
        :raises AbortError: it was stopped
        """
        if self.error is not None:
            raise self.error
        if self.result is None:
            raise AbortError(CANCELLED)
        return self.result

    def _end(self) -> tuple[Entry, Entry]:
        if self.error is not None:
            return self._done("error", str(self.error)), ChatResponse(content="", turn=0)
        if self.result is None:
            return self._done("cancelled", STOPPED), Cancelled()
        outcome = "timeout" if self.result.timed_out else "success"
        report = self._command.hide(report_of(self.result, MAX_CHARS))
        return self._done(outcome, report), ChatResponse(content="", turn=0)

    def _done(self, outcome: Any, content: str) -> ToolDone:
        status: Any = "success" if outcome == "success" else "error"
        return ToolDone(call=self._call.id, name="bash", status=status, outcome=outcome, content=content)


async def run_command(sandbox: Sandbox, command: Command, show: Any = None) -> ShellResult:
    """Run a command, without a record.

    :raises OSError: it cannot be started
    """
    return await sandbox.exec(
        command.text, timeout=command.timeout, cwd=command.cwd, env=command.env or None, on_output=show
    )
