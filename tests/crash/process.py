"""The test's side of a zygote: start processes, and hear how they ended."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from tests.crash.driver import GUARD
from tests.crash.stage import Plan

ROOT = Path(__file__).parents[2]


class Zygote:
    """Starts processes that have imported everything. One thread at a time may use it.

    `variables` are added to their environment.
    """

    def __init__(self, **variables: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.zygote"],
            cwd=ROOT,
            env=os.environ | variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._alive: set[int] = set()

    def start(self, plan: Plan) -> int:
        """Start a process; returns its pid."""
        pid = int(self._ask({"start": plan}))
        self._alive.add(pid)
        return pid

    def wait(self, pid: int) -> str:
        """How a process ended: `exit N`, `signal N`; or `stopped`, when it only stands still."""
        status = self._ask({"wait": pid})
        if status != "stopped":
            self._alive.discard(pid)
        return status

    def play(self, plan: Plan) -> str:
        """Start a process and wait for it."""
        return self.wait(self.start(plan))

    def close(self) -> None:
        """End everything that still runs."""
        for pid in self._alive:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _ask(self, request: dict[str, Any]) -> str:
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise AssertionError("the zygote has no pipes")
        stdin.write(msgspec.json.encode(request) + b"\n")
        stdin.flush()
        readable, _, _ = select.select([stdout], [], [], GUARD + 10)
        if not readable:
            raise AssertionError(f"no reply to {request}")
        return stdout.readline().decode().strip()


def set_fault(home: Path, point: str, fault: str = "kill") -> None:
    """Let a fault wait at a point."""
    (home / "faults").mkdir(parents=True, exist_ok=True)
    (home / "faults" / point).write_text(fault)


def wait_for_line(path: Path, text: str) -> None:
    """Wait until a process has written this to a file."""
    until = time.monotonic() + GUARD
    while not (path.exists() and text in path.read_text()):
        if time.monotonic() > until:
            raise AssertionError(f"{text!r} was not written to {path}")
        time.sleep(0.02)
