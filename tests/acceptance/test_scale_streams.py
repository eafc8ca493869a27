"""Streams between processes: what a worker streams is read through servers that do not run it."""

from __future__ import annotations

import urllib.request
from typing import Any

import msgspec
import pytest

from tests.scale.machines import GUARD, Machines, call


@pytest.mark.behaviour("scale:streams:moves")
def test_a_stream_goes_on_at_another_server_in_the_middle_of_an_answer(many: Machines) -> None:
    urls = [many.server(), many.server()]
    many.worker()
    call(urls[0], "/agents", {"name": "helper", "model": "scripted/demo"})
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
