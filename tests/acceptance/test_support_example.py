"""The support desk of the examples: workflow, webhook, dispatch, approval, and a server that is killed meanwhile."""

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.test_cli import environment
from tests.acceptance.test_dev import post, until

EXAMPLE = Path(__file__).parents[2] / "examples" / "support"


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    return shutil.copytree(EXAMPLE, tmp_path / "desk")


def surroundings(desk: Path) -> dict[str, str]:
    return {**environment(desk), "FLUX_HOME": str(desk / ".flux")}


@contextmanager
def served(desk: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    command = [sys.executable, "-m", "flux", "dev", "--port", "0", "--no-reload"]
    with subprocess.Popen(
        command, cwd=desk, env=surroundings(desk), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        yield until(process.stdout, "Flux dev on ").split()[3], process
        process.kill()


def run(desk: Path, *command: str, given: str = "") -> str:
    done = subprocess.run(
        [sys.executable, *command], cwd=desk, env=surroundings(desk), input=given, capture_output=True, text=True,
        timeout=50, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def fate(url: str, id: str) -> Any:
    """What became of a dispatch, once its run has ended."""
    session, _, seq = id.rpartition(".")
    request = urllib.request.Request(f"{url}/sessions/{session}/events?after={seq}", headers={"Accept": EVENTS})
    with urllib.request.urlopen(request, timeout=40) as events:
        for line in events:
            if line.strip() == b"event: chat_response":
                break
    with urllib.request.urlopen(f"{url}/dispatches/{id}", timeout=20) as response:
        return json.load(response)


EVENTS = "text/event-stream"


@pytest.mark.behaviour("examples:support:workflow")
def test_a_workflow_asks_an_instance_for_each_ticket(desk: Path) -> None:
    payload = '{"tickets": ["ticket-1", "ticket-2"]}'
    shown = json.loads(run(desk, "-m", "flux", "run", "triage", "--payload", payload, "--format", "json"))
    assert "Ada" in shown["output"]["ticket-1"]
    assert "Bob" in shown["output"]["ticket-2"]


@pytest.mark.behaviour("examples:support:dispatch")
def test_what_a_webhook_hands_over_survives_the_death_of_the_server(desk: Path) -> None:
    event = json.dumps({"ticket": "ticket-1", "delivery": "d-1", "text": "hello"})
    ids = {run(desk, "webhook.py", given=event).strip() for _ in "12"}
    assert len(ids) == 1
    (id,) = ids
    with served(desk) as (_, process):
        os.kill(process.pid, signal.SIGKILL)
    with served(desk) as (url, _):
        told = fate(url, id)
        assert (told["status"], told["id"], told["session"]) == ("completed", "ticket-1", "inbox")
        waiting = post(f"{url}/agents/support/ticket-1", {"message": 'call refund {"amount": 5}'})
        assert waiting["interrupts"][0]["payload"]["args"] == {"amount": 5}
