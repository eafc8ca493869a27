"""A process that dies at any commit while its agent stores and forgets: each happens once, and nothing is undone."""

import itertools
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from flux.testing import CRASH_AT

ROOT = Path(__file__).parents[2]
#: Commits beyond those of the first run, in case another run has more.
MARGIN = 2

#: Between the agent's first write and its result somebody else writes under the same key.
PROGRAM = """
import asyncio, json, os
from pathlib import Path
from flux.agents.define.definition import define
from flux.agents.process import open_process
from flux.engine.intake.inputs import NewMessage
from flux.events import ChatResponse, ToolDone
from flux.settings import load_settings
from flux.store.database import LOCAL, one
from flux.testing import Call, CrashAt, Reply, ScriptedModel

SCRIPT = [
    Reply(calls=(Call("store_memory", {"key": "city", "value": "Rome"}),)),
    Reply(calls=(Call("forget_memory", {"key": "old"}), Call("store_memory", {"key": "pet", "value": "cat"}))),
    Reply("Noted."),
]

class Commits(CrashAt):
    def after(self):
        super().after()
        loop.call_soon_threadsafe(committed.set)

async def main():
    global loop, committed
    loop, committed = asyncio.get_running_loop(), asyncio.Event()
    commits = Commits.from_environment(os.environ)
    async with open_process(
        load_settings(synchronous="normal"), environment={}, workspace=Path(os.environ["FLUX_HOME"]),
        factories={"test": lambda name: ScriptedModel(SCRIPT)}, observer=commits,
    ) as process:
        memory = process.memory_stores.own
        put, written = memory.put, Path(os.environ["FLUX_HOME"], "other-wrote")

        async def interrupted(scope, area, key, value, call=None):
            await put(scope, area, key, value, call)
            if key == "city" and not written.exists():
                await put(scope, area, key, "Paris", "other")
                written.touch()

        memory.put = interrupted
        await memory.put(LOCAL, "clerk", "old", "to be forgotten", call="before")
        fields = {"name": "clerk", "model": "test/clerk", "long_term_memory": {}}
        await process.agents.put(LOCAL, define(fields), create=True, update=True)
        session = await process.sessions.start(LOCAL, "clerk", NewMessage("Go."), instance="desk", key="first")
        async with asyncio.timeout(30):
            while (await process.sessions.get(LOCAL, session.id)).state != "idle":
                await committed.wait()
                committed.clear()
        rows = await process.sessions.entries(LOCAL, session.id, 0, 1000)
        entries = [row.stored().entry for row in rows]
        calls = await process.database.read(one("select count(*) from memory_writes"))
        print(json.dumps({
            "commits": commits.commits, "writes": calls[0][0],
            "done": [(e.name, e.outcome) for e in entries if isinstance(e, ToolDone)],
            "said": [e.content for e in entries if isinstance(e, ChatResponse)],
            "memories": {m.key: json.loads(m.value) for m in await memory.newest(LOCAL, "clerk")},
        }))

asyncio.run(main())
"""


def play(home: Path, crash: str = "") -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "FLUX_HOME": str(home), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment | ({CRASH_AT: crash} if crash else {}), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def finished(home: Path) -> dict[str, Any]:
    ended = play(home)
    assert ended.returncode == 0, ended.stderr[-2000:]
    told: dict[str, Any] = json.loads(ended.stdout)
    return told


def faults(told: dict[str, Any]) -> list[str]:
    wanted = {
        "done": [["store_memory", "success"], ["forget_memory", "success"], ["store_memory", "success"]],
        "said": ["Noted."],
        "memories": {"city": "Paris", "pet": "cat"},
        "writes": 5,
    }
    return [f"{name}: {told[name]}" for name, value in wanted.items() if told[name] != value]


def crash_and_recover(home: Path, crash: str) -> list[str]:
    home.mkdir()
    ended = play(home, crash)
    wrong = [] if ended.returncode in (0, -signal.SIGKILL) else [ended.stderr[-2000:]]
    return [f"{crash}: {fault}" for fault in wrong + faults(finished(home))]


@pytest.mark.behaviour("memory:agents:crash")
def test_a_crash_at_any_commit_neither_doubles_nor_undoes_a_memory(tmp_path: Path) -> None:
    told = finished(tmp_path / "calm")
    assert faults(told) == []
    points = itertools.product(("before", "after"), range(1, told["commits"] + MARGIN + 1))
    crashes = [f"{moment}:{n}" for moment, n in points]
    with ThreadPoolExecutor(2) as pool:
        wrong = pool.map(lambda crash: crash_and_recover(tmp_path / crash.replace(":", "-"), crash), crashes)
        assert [fault for found in wrong for fault in found] == []
