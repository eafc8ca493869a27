"""Run shell commands."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field

from flux.sandboxes.base import ShellResult
from flux.tools.base import Done, Failed, Tool, ToolContext, ToolOutcome
from flux.tools.kept import kept
from flux.tools.text import Tap, clip
from flux.tools.workspace import GroupConfig, builtin

_GRACE = 10.0
_HEADINGS = 250
#: Bytes of each of stdout and stderr that are kept for reading on.
KEPT_BYTES = 10_000_000


class ShellTools:
    """shell."""

    def __init__(self, config: GroupConfig, sandbox: str) -> None:
        self._config = config
        self._sandbox = sandbox

    def tools(self) -> tuple[Tool, ...]:
        """The tools of the group."""
        config = self._config
        description = (
            f"Run a shell command in the workspace and return its exit code and output.\n\n"
            f"It runs in the sandbox `{self._sandbox}`, for at most {config.timeout:g} seconds, without input. "
            f"What it starts in the background ends with it."
        )
        return (builtin(self.shell, config, "once", description=description, grace=_GRACE),)

    async def shell(
        self, context: ToolContext, command: str, timeout: Annotated[float, Field(gt=0)] | None = None
    ) -> ToolOutcome:
        """Run a shell command in the workspace.

        Args:
            command: The command, for bash.
            timeout: Seconds it may take; no more than the tool's own limit.
        """
        blocked = blocked_by(command, self._config.blocklist)
        if blocked is not None:
            return Failed(f"not run: the command holds `{blocked}`, which this agent's blocklist refuses")
        limit = min(timeout or self._config.timeout, self._config.timeout)
        room = self._config.max_output_chars
        result = await context.sandbox.exec(
            command, timeout=limit, on_output=Tap(context.output, room), max_output_bytes=max(4 * room, KEPT_BYTES)
        )
        report = await _report(result, room, context)
        if result.timed_out:
            return Failed(f"ended after {limit:g} seconds\n{report}", timeout=True)
        return Done(report)


def blocked_by(command: str, blocklist: tuple[str, ...]) -> str | None:
    """The first entry of the blocklist that a command holds as whole words, None if there is none."""
    return next((entry for entry in blocklist if _holds(command, entry)), None)


def _holds(command: str, entry: str) -> bool:
    words = r"\s+".join(re.escape(word) for word in entry.split())
    return bool(words) and re.search(rf"(?<![\w.-]){words}(?![\w.-])", command) is not None


def report_of(result: ShellResult, max_chars: int) -> str:
    """What the command did, cut to so many characters."""
    return _reported(result, max_chars)[0]


async def _report(result: ShellResult, max_chars: int, context: ToolContext) -> str:
    """What the command did; where its output is cut, the whole is kept."""
    report, whole = _reported(result, max_chars)
    return report + (await kept(whole, context) if whole else "")


def _reported(result: ShellResult, max_chars: int) -> tuple[str, str]:
    """What the command did, and all of that where it is cut."""
    room = max(max_chars - _HEADINGS, _HEADINGS // 2)
    stderr = clip(result.stderr, room // 3)
    stdout = clip(result.stdout, room - len(stderr))
    shorter = stdout != result.stdout or stderr != result.stderr
    lines = [] if result.exit_code is None else [f"exit_code: {result.exit_code}"]
    if result.truncated or shorter:
        lines.append("truncated: true")
    whole = "\n".join([*lines[:1], _section("stdout", result.stdout), _section("stderr", result.stderr)])
    return "\n".join([*lines, _section("stdout", stdout), _section("stderr", stderr)]), whole if shorter else ""


def _section(name: str, text: str) -> str:
    return f"{name}:\n{text.removesuffix(chr(10))}" if text else f"{name}: (empty)"
