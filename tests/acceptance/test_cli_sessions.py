"""`flux agent session`: forked, renamed, sent to and exported."""

import json
from pathlib import Path

import pytest

from flux.export import read_jsonl
from tests.acceptance.test_cli import Flux, complains, create, flux

__all__ = ["flux"]


@pytest.mark.behaviour("cli:sessions:manage")
def test_a_session_is_forked_renamed_and_sent_to(flux: Flux, tmp_path: Path) -> None:
    assert create(flux).returncode == 0
    assert flux("chat", "helper", "-p", "hello there").returncode == 0
    (row,) = json.loads(flux("agent", "session", "list", "--format", "json").stdout)
    forked = json.loads(flux("agent", "session", "fork", row["id"][:8], "--at", "1", "--format", "json").stdout)
    assert (forked["head"], forked["state"], forked["title"]) == (2, "idle", None)
    assert flux("agent", "session", "fork", row["id"], "--name", "b").stdout.startswith("Session: ")
    complains(flux("agent", "session", "fork", row["id"], "--at", "999"), 2, "the session has the entries 1 to")
    assert flux("agent", "session", "export", row["id"], "--output", "s.md", "--format", "markdown").returncode == 0
    assert "## User" in (tmp_path / "s.md").read_text()
    assert read_jsonl(flux("agent", "session", "export", row["id"]).stdout.splitlines()).session["id"] == row["id"]
    assert flux("agent", "session", "rename", forked["id"], "A title").stdout.endswith(": A title\n")
    sent = json.loads(flux("agent", "session", "send", forked["id"], "hi", "--key", "k", "--format", "json").stdout)
    again = flux("agent", "session", "send", forked["id"], "hi", "--key", "k", "--mode", "queue", "--format", "json")
    assert (json.loads(again.stdout)["seq"], json.loads(again.stdout)["repeated"]) == (sent["seq"], True)
    complains(flux("agent", "session", "send", forked["id"], "no", "--mode", "reject"), 1, "is working")


@pytest.mark.behaviour("cli:webhooks")
def test_webhooks_are_made_listed_and_deleted(flux: Flux) -> None:
    complains(flux("webhook", "create", "audit", "http://127.0.0.1/hook"), 2, "https://", "webhook_hosts")
    assert "whsec_" in flux("webhook", "create", "audit", "https://1.1.1.1/hook", "--event", "run.failed").stdout
    (row,) = json.loads(flux("webhook", "list", "--format", "json").stdout)
    assert (row["name"], row["events"]) == ("audit", ["run.failed"])
    assert "URL:     https://1.1.1.1/hook" in flux("webhook", "show", "audit").stdout
    assert json.loads(flux("webhook", "deliveries", "audit", "--format", "json").stdout) == []
    complains(flux("webhook", "redeliver", "audit", "msg_1"), 1, "no delivery 'msg_1'")
    assert flux("webhook", "delete", "audit").returncode == 0
    complains(flux("webhook", "show", "audit"), 1, "flux webhook list")
