"""What a process that is going to die has at hand: its plan, its faults, and the records the judge reads.

A fault is a file `faults/POINT` in the home that says what happens there: `kill`, `exit`, `stop` or `term`. It
happens once, `kill always` each time. Everything that the judge reads is in its file before a fault strikes.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psycopg
from msgspec import Struct

from flux.agents.process import Process
from flux.store.database import LOCAL
from flux.testing import CrashAt, EffectCounter, kill_self

#: What a process exits with that a fault let exit.
EXIT = 3


class Plan(Struct, frozen=True):
    """One process: where, what, and how it is to die. `settings` are those of Flux.

    `crash` is a moment and the number of a commit: it is killed `before` or `after` that, or its answer is
    lost (`lose`): the commit stands, and whoever wrote hears that the database is gone. Or it stands still
    (`freeze`) before that commit, inside the transaction.
    """

    home: str
    scenario: str = "chat"
    database: str = ""
    crash: str = ""
    worker: bool = True
    settings: dict[str, Any] = {}


_stages: list[Stage] = []


def at_hand() -> Stage:
    """The stage of this process, for code that nobody can hand it to."""
    return _stages[-1]


class Stage:
    """What one process has at hand: its plan, the counters the judge reads, and the points it passes."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.home = Path(plan.home)
        self.effects = EffectCounter(self.home / "effects", sync=False)
        self.calls = EffectCounter(self.home / "calls", sync=False)
        self.seen = EffectCounter(self.home / "seen", sync=False)
        self.reader_saw = asyncio.Event()
        self.commits = Commits(plan)
        self.process: Process
        _stages.append(self)

    def reach(self, point: str) -> None:
        """Pass a point; a fault may be waiting there."""
        path = self.home / "faults" / point
        try:
            fault = path.read_text()
        except FileNotFoundError:
            return
        if not fault.endswith("always"):
            path.unlink()
        match fault.split()[0]:
            case "kill":
                kill_self()
            case "exit":
                os._exit(EXIT)
            case "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "term":
                os.kill(os.getpid(), signal.SIGTERM)

    async def until(self, reached: Callable[[], Awaitable[bool]]) -> None:
        """Wait for something that a commit of this process brings about."""
        while True:
            self.commits.happened.clear()
            if await reached():
                return
            await self.commits.happened.wait()

    async def state(self, id: str) -> str:
        """The state of a session's row."""
        return (await self.process.sessions.get(LOCAL, id)).state

    async def until_state(self, id: str, *states: str) -> str:
        """Wait for one of these states."""
        now = ""

        async def reached() -> bool:
            nonlocal now
            now = await self.state(id)
            return now in states

        await self.until(reached)
        return now


class Commits:
    """A commit observer that may kill or lose an answer, and tells the event loop of each commit."""

    def __init__(self, plan: Plan) -> None:
        moment, _, n = plan.crash.partition(":")
        self._lose = int(n) if moment == "lose" else 0
        self._freeze = int(n) if moment == "freeze" else 0
        self._gone = psycopg.OperationalError if plan.database else sqlite3.OperationalError
        kills = moment in ("before", "after")
        self.crash = CrashAt.from_environment({"FLUX_TEST_CRASH_AT": plan.crash if kills else ""})
        self.happened = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def before(self) -> None:
        self.crash.before()
        if self.crash.commits == self._freeze:
            self._freeze = 0
            os.kill(os.getpid(), signal.SIGSTOP)

    def after(self) -> None:
        self.crash.after()
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.happened.set)
        if self.crash.commits == self._lose:
            self._lose = 0
            raise self._gone("the connection is lost")
