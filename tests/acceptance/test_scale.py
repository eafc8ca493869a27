"""Many processes on one Postgres: a server that runs nothing, workers that come, go and die."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest

GUARD = 30.0
DEAD_AFTER = 3.0
Start = Callable[..., "Started"]


class Started:
    """A flux process, and the first line it said."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        self.said = process.stdout.readline()

    @property
    def url(self) -> str:
        found = re.search(r"http://\S+", self.said)
        assert found is not None
        return found.group()

    @property
    def worker(self) -> str:
        assert self.said.startswith("Flux worker ")
        return self.said.split()[2]


@pytest.fixture
def start(postgres_url: str, tmp_path: Path) -> Iterator[Start]:
    """A function that starts a `flux` command in a home of its own, on one database."""
    running: list[subprocess.Popen[str]] = []

    def start_it(*arguments: str) -> Started:
        home = tmp_path / f"home-{len(running)}"
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "FLUX_HOME": str(home),
            "FLUX_DATABASE_URL": postgres_url,
            "FLUX_HEARTBEAT": "0.5",
            "FLUX_DEAD_AFTER": str(DEAD_AFTER),
            "FLUX_GRACE": "1",
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "flux", *arguments], env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True
        )
        running.append(process)
        return Started(process)

    yield start_it
    for process in running:
        process.kill()
        process.wait(GUARD)
        if process.stdout is not None:
            process.stdout.close()


def call(url: str, path: str, body: Any = None) -> Any:
    data = None if body is None else msgspec.json.encode(body)
    request = urllib.request.Request(url + path, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=GUARD) as response:
        return msgspec.json.decode(response.read())


def an_agent(url: str, model: str) -> None:
    call(url, "/agents", {"name": "helper", "model": model})


def owner(database: str, session: str) -> str | None:
    """The worker that runs a session now."""
    with psycopg.connect(database, autocommit=True) as connection:
        row = connection.execute("select worker from executions where id = %s", (session,)).fetchone()
    return None if row is None else row[0]


def until(true: Callable[[], Any], seconds: float = GUARD) -> Any:
    """What a question returns once it is true; what no event announces is looked up."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, "it did not come true in time"
    return found


def at_rest(url: str, session: str) -> bool:
    return bool(call(url, f"/sessions/{session}")["state"] == "idle")


def answers(url: str, session: str) -> list[str]:
    """How each run of a session ended."""
    items = call(url, f"/sessions/{session}/events?limit=200")["items"]
    return [item["content"] for item in items if item["type"] == "chat_response"]


@pytest.mark.behaviour("scale:workers:serve")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_that_goes_in_mid_run_is_followed_by_another(
    start: Start, postgres_url: str, number: signal.Signals
) -> None:
    url = start("start", "server", "--port", "0", "--no-worker").url
    workers = {started.worker: started for started in (start("start", "worker"), start("start", "worker"))}
    an_agent(url, "scripted/demo")
    session = call(url, "/sessions", {"agent": "helper", "message": "help"})["id"]
    first = until(lambda: owner(postgres_url, session))
    gone = time.monotonic()
    workers[first].process.send_signal(number)
    second = until(lambda: (now := owner(postgres_url, session)) != first and now)
    # The machine of a test is busy with others: twice what is promised, but who hands over is not taken for dead.
    assert time.monotonic() - gone < (2 * (DEAD_AFTER + 1) if number == signal.SIGKILL else DEAD_AFTER)
    assert second in workers
    assert len(until(lambda: answers(url, session))) == 1


@pytest.mark.behaviour("scale:streams:moves")
def test_a_stream_goes_on_at_another_server_in_the_middle_of_an_answer(start: Start) -> None:
    urls = [start("start", "server", "--port", "0", "--no-worker").url for _ in range(2)]
    start("start", "worker")
    an_agent(urls[0], "scripted/demo")
    session = call(urls[0], "/sessions", {"agent": "helper", "message": "help"})["id"]
    seen: list[tuple[str, Any]] = []
    for n in range(100):
        last = seen[-1][0] if seen else "0"
        seen += frames(urls[n % 2], session, last, 7)
        if seen[-1][1]["type"] == "chat_response":
            break
    events = [event for _, event in seen]
    said = "".join(event["text"] for event in events if event["type"] == "token")
    assert said == events[-1]["content"]
    entries = [event["seq"] for event in events if "seq" in event]
    assert entries == list(range(1, len(entries) + 1))
    kinds = [event["type"] for event in events]
    assert "token" not in kinds[kinds.index("assistant_message") :]
    assert n > 1


def frames(url: str, session: str, last: str, count: int) -> list[tuple[str, Any]]:
    """So many events behind a place, each with its id; fewer when the answer is complete."""
    headers = {"accept": "text/event-stream", "last-event-id": last}
    request = urllib.request.Request(f"{url}/sessions/{session}/events", headers=headers)
    found: list[tuple[str, Any]] = []
    with urllib.request.urlopen(request, timeout=GUARD) as response:
        id = ""
        while len(found) < count and not (found and found[-1][1]["type"] == "chat_response"):
            name, _, value = response.readline().decode().rstrip("\n").partition(": ")
            if name == "id":
                id = value
            elif name == "data":
                found.append((id, msgspec.json.decode(value)))
    return found


@pytest.mark.behaviour("scale:workers:storm")
def test_no_message_is_lost_or_answered_twice_while_workers_come_and_go(start: Start) -> None:
    url = start("start", "server", "--port", "0", "--no-worker").url
    workers = [start("start", "worker") for _ in range(2)]
    an_agent(url, "scripted/echo")
    sessions = [call(url, "/sessions", {"agent": "helper", "message": "0"})["id"] for _ in range(10)]
    for n in range(1, 20):
        for session in sessions:
            call(url, f"/sessions/{session}/messages", {"message": str(n)})
        if n in (5, 12):
            workers.pop(0).process.send_signal(signal.SIGKILL if n == 5 else signal.SIGTERM)
            workers.append(start("start", "worker"))
    for session in sessions:
        until(partial(at_rest, url, session))
        assert len(answers(url, session)) == 20


@pytest.mark.behaviour("scale:workers:zombie")
def test_what_a_frozen_worker_writes_after_its_death_is_refused(start: Start, postgres_url: str) -> None:
    url = start("start", "server", "--port", "0", "--no-worker").url
    workers = {started.worker: started for started in (start("start", "worker"), start("start", "worker"))}
    an_agent(url, "scripted/demo")
    session = call(url, "/sessions", {"agent": "helper", "message": "help"})["id"]
    first = until(lambda: owner(postgres_url, session))
    workers[first].process.send_signal(signal.SIGSTOP)
    until(lambda: owner(postgres_url, session) not in (first, None))
    workers[first].process.send_signal(signal.SIGCONT)
    until(lambda: at_rest(url, session))
    call(url, f"/sessions/{session}/messages", {"message": "help"})
    until(lambda: len(answers(url, session)) == 2 and at_rest(url, session))
    assert len(answers(url, session)) == 2
    assert workers[first].process.poll() is None
