"""Many processes on one Postgres: starting them, talking to them, and looking at what they did."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import psycopg

from flux.entries.base import Entry
from flux.events import ChatResponse, ToolDone, decode
from flux.testing import EffectCounter
from tests.crash.judge import log_faults
from tests.scale.ledger import UNKNOWN

ROOT = Path(__file__).parents[2]
GUARD = 40.0
HEARTBEAT = 0.5
DEAD_AFTER = 3.0
#: Seconds between two looks at what no event announces.
LOOK = 0.02
TASKS = ("step", "settle")


class Started:
    """A flux process, and the first line it said."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process = process
        self._log = log
        assert process.stdout is not None
        self.said = process.stdout.readline()

    @property
    def url(self) -> str:
        """Where a server listens."""
        return self._found(r"http://\S+", 0)

    @property
    def name(self) -> str:
        """What a worker is called."""
        return self._found(r"Flux worker (\S+)", 1)

    @property
    def id(self) -> str:
        """The id under which a worker owns executions."""
        return self._found(r"\(id: ([^,]+),", 1)

    def log(self) -> str:
        """What it said on standard error."""
        return self._log.read_text()

    def exit_code(self) -> int:
        """How it ended, once it has."""
        return self.process.wait(GUARD)

    def _found(self, pattern: str, group: int) -> str:
        found = re.search(pattern, self.said)
        assert found is not None, f"{self.said!r}\n{self.log()}"
        return found.group(group)


class Machines:
    """Starts `flux` commands, each in a home of its own, on one database."""

    def __init__(self, folder: Path, database: str) -> None:
        self.folder = folder
        self.database = database
        self.effects = EffectCounter(folder / "effects")
        self._running: list[subprocess.Popen[str]] = []

    def start(
        self, *arguments: str, before: Sequence[str] = (), home: str = "", packages: str = "", **variables: str
    ) -> Started:
        """Start a command, with words `before` it, `packages` to import, and more variables.

        Returns when it has said its first line.
        """
        number = len(self._running)
        place = self.folder / (home or f"home-{number}")
        place.mkdir(exist_ok=True)
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{ROOT}{os.pathsep}{packages}" if packages else str(ROOT),
            "HOME": str(place),
            "FLUX_HOME": str(place),
            "FLUX_DATABASE_URL": self.database,
            "FLUX_HEARTBEAT": str(HEARTBEAT),
            "FLUX_DEAD_AFTER": str(DEAD_AFTER),
            "FLUX_GRACE": "1",
            "FLUX_TEST_EFFECTS": str(self.folder / "effects"),
        }
        command = [*before, sys.executable, "-m", "tests.scale.flux", *arguments]
        log = self.folder / f"log-{number}"
        with log.open("w") as errors:
            process = subprocess.Popen(
                command, env=environment | variables, cwd=place, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        self._running.append(process)
        return Started(process, log)

    def server(self, *arguments: str) -> str:
        """Start a server that runs nothing; its URL."""
        return self.start("start", "server", "--port", "0", "--no-worker", *arguments).url

    def worker(self, *arguments: str, **more: Any) -> Started:
        """Start a worker."""
        return self.start("start", "worker", *arguments, **more)

    def flux(self, url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, against a server."""
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "FLUX_SERVER": url}
        command = [sys.executable, "-m", "flux", *arguments]
        return subprocess.run(
            command, env=environment, cwd=self.folder, capture_output=True, text=True, timeout=GUARD, check=False
        )

    def owner(self, id: str) -> str | None:
        """The worker that owns an execution now."""
        (row,) = self.query("select worker from executions where id = %s", id)
        return None if row[0] is None else str(row[0])

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows of the database."""
        with psycopg.connect(self.database, autocommit=True) as connection:
            cursor = connection.execute(sql.encode(), values)
            return cursor.fetchall() if cursor.description else []

    def entries(self, id: str) -> list[Entry]:
        """The log of an execution."""
        rows = self.query("select body from events where execution_id = %s order by seq", id)
        found = [decode(row[0].encode()) for row in rows]
        return [entry for entry in found if isinstance(entry, Entry)]

    def close(self) -> None:
        """End everything that still runs."""
        for process in self._running:
            process.kill()
            process.wait(GUARD)
            if process.stdout is not None:
                process.stdout.close()


@contextmanager
def machines(folder: Path, database: str) -> Iterator[Machines]:
    """Processes that end with the block."""
    made = Machines(folder, database)
    try:
        yield made
    finally:
        made.close()


def call(url: str, path: str, body: Any = None, method: str | None = None, key: str | None = None) -> Any:
    """What a server answers; one that cannot reach its database is asked again with the same key."""
    data = None if body is None else msgspec.json.encode(body)
    headers = {"content-type": "application/json", "idempotency-key": key or str(uuid.uuid4())}
    until_it_ends = time.monotonic() + GUARD
    while True:
        request = urllib.request.Request(url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=GUARD) as response:
                return msgspec.json.decode(response.read())
        except urllib.error.HTTPError as error:
            if error.code != 503 or time.monotonic() > until_it_ends:
                raise AssertionError(f"{path}: {error.code} {error.read()!r}") from error
        time.sleep(LOOK)


def until(true: Callable[[], Any], seconds: float = GUARD) -> Any:
    """What a question returns once it is true; what no event announces is looked up."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(LOOK)
    return found


def make_cashier(url: str) -> None:
    """The agent `cashier`: it pays what each message names."""
    call(url, "/agents", {"name": "cashier", "model": "count/cashier", "tools": ["pay"]})


def start_session(url: str, message: str) -> str:
    """A session of the cashier with its first message; its id."""
    return str(call(url, "/sessions", {"agent": "cashier", "message": message})["id"])


def say(url: str, session: str, message: str) -> None:
    """One more message."""
    call(url, f"/sessions/{session}/messages", {"message": message})


def is_idle(url: str, session: str) -> bool:
    """Whether nothing is left to do in a session."""
    return bool(call(url, f"/sessions/{session}")["state"] == "idle")


def answers(entries: list[Entry]) -> int:
    """How many messages were answered."""
    return sum(isinstance(entry, ChatResponse) for entry in entries)


def payment_faults(found: Machines, sessions: Sequence[str], messages: int, interruptions: int = 0) -> list[str]:
    """What is wrong with sessions at rest, after so many messages each; nothing is paid twice, and the logs are true.

    So many payments in all may have been interrupted: what became of those nobody knows.
    """
    paid = Counter(effect.detail["call"] for effect in found.effects.read() if effect.name == "pay")
    wrong = [f"call {call} was paid {count} times" for call, count in paid.items() if count > 1]
    unknown = 0
    for id in sessions:
        log = found.entries(id)
        wrong += [f"{id}: {fault}" for fault in log_faults(log)]
        wrong += [] if answers(log) == messages else [f"{id} has {answers(log)} answers, not {messages}"]
        for done in (entry for entry in log if isinstance(entry, ToolDone)):
            unknown += done.outcome == "interrupted"
            if done.outcome not in ("success", "interrupted"):
                wrong.append(f"{id}: {done.call} ended as {done.outcome}")
            elif done.outcome == "success" and paid[done.call] != 1:
                wrong.append(f"{id}: {done.call} is said to be paid, and is not")
    return wrong + ([f"{unknown} payments were interrupted"] if unknown > interruptions else [])


def register_ledger(found: Machines, url: str) -> None:
    """Register the workflow of `ledger.py`."""
    done = found.flux(url, "workflow", "register", str(ROOT / "tests/scale/ledger.py"))
    assert done.returncode == 0, done.stderr


def start_ledger(found: Machines, url: str, steps: int) -> str:
    """Start that workflow; its id."""
    given = {"file": str(found.folder / "effects"), "steps": steps}
    return str(call(url, "/workflows/default/ledger/run/async", given)["execution_id"])


def has_ended(url: str, id: str) -> bool:
    """Whether a workflow is over."""
    return call(url, f"/executions/{id}")["state"] in ("COMPLETED", "FAILED", "CANCELLED")


def ledger_faults(found: Machines, url: str, id: str, steps: int, lost: int) -> list[str]:
    """What is wrong with a ledger that has ended and lost its worker so many times.

    Each time one task was in flight: a step may have happened twice, of a settlement nobody knows.
    """
    row = call(url, f"/executions/{id}")
    if row["state"] != "COMPLETED":
        return [f"the ledger is {row['state']}: {row}"]
    stepped, settled = (Counter(e.detail["n"] for e in found.effects.read() if e.name == name) for name in TASKS)
    wrong = [f"{n} was settled {count} times" for n, count in settled.items() if count > 1]
    unknown, output = 0, row["output"]
    for n in range(steps):
        wrong += [] if output[2 * n] == n and stepped[n] else [f"step {n} gave {output[2 * n]}"]
        unknown += output[2 * n + 1] == UNKNOWN
        if output[2 * n + 1] != UNKNOWN and settled[n] != 1:
            wrong.append(f"{n} is said to be settled, and is not")
    again = sum(stepped.values()) - steps
    return wrong + ([f"{again} steps twice, {unknown} unknown"] if again + unknown > lost else [])
