"""`flux agent session`: forked, renamed, sent to and exported."""

import json

import pytest

from tests.acceptance.test_cli import Flux, complains, create, flux

__all__ = ["flux"]


@pytest.mark.behaviour("cli:sessions:manage")
def test_a_session_is_forked_renamed_and_sent_to(flux: Flux) -> None:
    assert create(flux).returncode == 0
    assert flux("chat", "helper", "-p", "hello there").returncode == 0
    (row,) = json.loads(flux("agent", "session", "list", "--format", "json").stdout)
    forked = json.loads(flux("agent", "session", "fork", row["id"][:8], "--at", "1", "--format", "json").stdout)
    assert (forked["head"], forked["state"], forked["title"]) == (2, "idle", None)
    assert flux("agent", "session", "fork", row["id"], "--name", "b").stdout.startswith("Session: ")
    complains(flux("agent", "session", "fork", row["id"], "--at", "999"), 2, "the session has the entries 1 to")
    assert flux("agent", "session", "rename", forked["id"], "A title").stdout.endswith(": A title\n")
    sent = json.loads(flux("agent", "session", "send", forked["id"], "hi", "--key", "k", "--format", "json").stdout)
    again = flux("agent", "session", "send", forked["id"], "hi", "--key", "k", "--mode", "queue", "--format", "json")
    assert (json.loads(again.stdout)["seq"], json.loads(again.stdout)["repeated"]) == (sent["seq"], True)
    complains(flux("agent", "session", "send", forked["id"], "no", "--mode", "reject"), 1, "is working")
