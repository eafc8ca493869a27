"""Schedules on the command line, and processes that die while they fire."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flux.engine.service.ticker import execution_of
from flux.store import schedules
from flux.store.database import LOCAL, one
from flux.store.opening import open_database
from flux.store.schedules import Given
from tests.acceptance.test_cli import Flux, complains, create, flux
from tests.crash.databases import fresh_schema

__all__ = ["flux"]

ROOT = Path(__file__).parents[2]
#: Each commit of a killed process is a step forward, or none: "before:1" never gets anywhere alone.
CRASHES = ("after:1", "before:2", "before:1", "after:2", "before:3", "after:1")
NAMES = [f"s{n}" for n in range(8)]


@pytest.mark.behaviour("cli:schedules:life")
def test_a_schedule_is_made_shown_paused_resumed_and_deleted(flux: Flux) -> None:
    create(flux)
    when = ("--cron", "0 9 * * MON-FRI", "--timezone", "Europe/Berlin")
    made = flux("schedule", "create", "daily", "--agent", "helper", "--message", "Good morning.", *when)
    assert made.stdout.startswith("Created schedule daily; next at 2"), made.stderr
    every = ("--every", "1d12h", "--format", "json")
    other = json.loads(flux("schedule", "create", "often", "--agent", "helper", "--message", "Hi.", *every).stdout)
    assert other["schedule"] == {"type": "interval", "seconds": 129_600.0, "timezone": "UTC"}
    listed = flux("schedule", "list").stdout
    assert "0 9 * * MON-FRI (Europe/Berlin)" in listed
    assert "every 1d12h" in listed
    assert "Paused schedule daily." in flux("schedule", "pause", "daily").stdout
    assert "Schedule: daily (paused)" in flux("schedule", "show", "daily").stdout
    assert "Resumed schedule daily; next at" in flux("schedule", "resume", "daily").stdout
    assert "It has not fired yet." in flux("schedule", "history", "daily").stderr
    assert flux("schedule", "delete", "daily").stdout == "Deleted schedule daily.\n"
    assert [row["name"] for row in json.loads(flux("schedule", "list", "--format", "json").stdout)] == ["often"]


@pytest.mark.behaviour("cli:schedules:life")
def test_a_mistake_in_a_schedule_is_one_line(flux: Flux) -> None:
    create(flux)
    talk = ("schedule", "create", "x", "--agent", "helper", "--message", "Hi.")
    complains(flux(*talk), 2, "say when, once: --cron, --every or --at")
    complains(flux(*talk, "--cron", "0 0 30 2 *"), 2, "'0 0 30 2 *' never fires")
    complains(flux(*talk, "--at", "2001-01-01T00:00"), 2, "never fires", "in the past")
    complains(flux(*talk, "--every", "soon"), 2, "'soon'", "6h")
    complains(flux("schedule", "create", "x", "--workflow", "a/b", "--input", "{x", "--every", "6h"), 2, "not JSON")
    complains(flux("schedule", "create", "x", "--workflow", "default/no", "--every", "6h"), 1, "default/no")
    complains(flux("schedule", "show", "x"), 1, "'x'", "flux schedule list")


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'flux.db'}"
        return
    with fresh_schema(request.getfixturevalue("postgres")) as found:
        yield found


@pytest.mark.behaviour("schedules:crash:once")
def test_processes_killed_at_commits_lose_no_time_and_fire_none_twice(url: str) -> None:
    due = asyncio.run(_prepare(url))
    ended = [_tick(url, crash) for crash in CRASHES]
    assert ended[0] == -signal.SIGKILL
    assert _tick(url, "") == 0
    runs, ids = asyncio.run(_judge(url))
    assert sorted(runs) == sorted(
        (name, due, "failed" if name == "s3" else "started", None if name == "s3" else execution_of(id, due))
        for name, id in ids.items()
    )


async def _prepare(url: str) -> float:
    """Schedules that are due; one of them starts what is not there."""
    database = await open_database(url, synchronous="normal")
    for name in NAMES:
        workflow = "default/gone" if name == "s3" else "default/hello"
        given = Given(target="workflow", workflow=workflow, spec='{"type":"interval","seconds":360000}')
        await database.write(schedules.create(LOCAL, str(uuid.uuid4()), name, given, 1.0))
    await database.write(one("update schedules set next_at = :now - 100"))
    (found, *_), _, _ = await database.read(schedules.due(1))
    await database.close()
    return found.next_at or 0


def _tick(url: str, crash: str) -> int:
    """How a process ended that fires what is due."""
    command = [sys.executable, "-m", "tests.crash.ticking", url]
    environment = os.environ | {"FLUX_TEST_CRASH_AT": crash}
    return subprocess.run(command, cwd=ROOT, env=environment, timeout=30, check=False).returncode


async def _judge(url: str) -> tuple[list[Any], dict[str, str]]:
    """What became of each time, and the ids of the schedules; each execution belongs to a line of history."""
    database = await open_database(url, synchronous="normal")
    runs = await database.read(
        one(
            "select s.name, r.due, r.outcome, r.execution_id from schedule_runs r"
            " join schedules s on s.id = r.schedule_id"
        )
    )
    ids: dict[str, str] = dict(await database.read(one("select name, id from schedules")))
    executions = await database.read(one("select id from executions"))
    assert sorted(id for (id,) in executions) == sorted(run[3] for run in runs if run[3] is not None)
    assert await database.read(one("select count(*) from events")) == [(len(executions),)]
    await database.close()
    return runs, ids
