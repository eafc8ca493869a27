"""A chat in a pseudo terminal, and the screen a person would see."""

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pyte
import pytest

RUNNER = Path(__file__).with_name("runner.py")
GUARD_SECONDS = 30.0


def environment(**changes: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return kept | {"TERM": "xterm-256color", "LANG": "C.UTF-8", "FLUX_SANDBOX": "local"} | changes


class Terminal:
    """A process behind a pseudo terminal; `raw` is all it wrote."""

    def __init__(self, arguments: list[str], columns: int, lines: int, variables: dict[str, str]) -> None:
        self._screen = pyte.HistoryScreen(columns, lines, history=2_000, ratio=1.0)
        self._stream = pyte.Stream(self._screen)
        self._child: pexpect.spawn[str] = pexpect.spawn(
            sys.executable, arguments, dimensions=(lines, columns), encoding="utf-8", env=environment(**variables)
        )
        self._child.delaybeforesend = None
        self.raw = ""

    @property
    def shown(self) -> str:
        """Scrollback and screen, without blank line ends."""
        above = ["".join(row[x].data for x in range(self._screen.columns)) for row in self._screen.history.top]
        return "\n".join(line.rstrip() for line in [*above, *self._screen.display]).rstrip()

    def until(self, wanted: str | Callable[[str], bool]) -> str:
        """Read until something is shown; returns what is shown."""
        test = (lambda shown: wanted in shown) if isinstance(wanted, str) else wanted
        deadline = time.monotonic() + GUARD_SECONDS
        while not test(self.shown):
            if not self._read(deadline):
                raise AssertionError(f"ended, or waited too long for {wanted!r}:\n{self.shown}")
        return self.shown

    def at_prompt(self, times: int = 1) -> str:
        """Read until the prompt is there for the n-th time, ready for typing."""
        return self.until(lambda shown: len(re.findall(r"^>", shown, re.M)) >= times and shown.endswith("\n>"))

    def type(self, text: str) -> None:
        self._child.send(text)

    def say(self, text: str) -> None:
        self.type(text + "\r")

    def kill(self, number: signal.Signals) -> None:
        self._child.kill(number)

    def exit_code(self) -> int:
        """Read until the process has ended."""
        deadline = time.monotonic() + GUARD_SECONDS
        while self._read(deadline):
            pass
        self._child.wait()
        return int(self._child.exitstatus if self._child.exitstatus is not None else -1)

    def close(self) -> None:
        self._child.close(force=True)

    def _read(self, deadline: float) -> bool:
        try:
            text = self._child.read_nonblocking(65536, timeout=max(0.0, deadline - time.monotonic()))
        except (pexpect.EOF, pexpect.TIMEOUT):
            return False
        self.raw += text
        self._stream.feed(text)
        return True


Open = Callable[..., Terminal]


@pytest.fixture
def open_chat(tmp_path: Path) -> Iterator[Open]:
    """Start chats that share one home; variables of the environment come as keywords in capitals."""
    opened: list[Terminal] = []

    def start(*arguments: str, columns: int = 80, lines: int = 24, **variables: str) -> Terminal:
        terminal = Terminal([str(RUNNER), str(tmp_path), *arguments], columns, lines, variables)
        opened.append(terminal)
        return terminal

    yield start
    for terminal in opened:
        terminal.close()
