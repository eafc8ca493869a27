"""The main job, with real processes: a terminal, an OpenAI-compatible server over HTTP, kill -9, resume."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest

from flux.trust import trust
from tests.aimock import KEY, Aimock, aimock

PROMPT = r"\x1b\[0m>"
FLUX = [sys.executable, "-m", "flux"]
AGENT = """\
name: tidy
model: local/test-model
system_prompt: You tidy up notes.
tools: [system_tools]
sandbox: local
tool_approvals: {edit_file: false}
"""


def _call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": json.dumps(arguments)}


def _turn(index: int, **response: Any) -> dict[str, Any]:
    return {"match": {"userMessage": "Tidy my notes", "turnIndex": index}, "response": response}


FIXTURES = [
    _turn(
        0, content="Let me look.", toolCalls=[_call("list_directory", path="."), _call("read_file", path="notes.txt")]
    ),
    _turn(1, toolCalls=[_call("edit_file", path="notes.txt", old_string="mlik", new_string="milk")]),
    _turn(2, toolCalls=[_call("shell", command="wc -l < notes.txt >> counted.txt && cat counted.txt")]),
    _turn(3, content="All tidy: the typo is gone."),
    {"match": {"userMessage": "Thank you"}, "response": {"content": "You are welcome."}},
]


@pytest.fixture
def provider(require_tool: Callable[[str], str], tmp_path: Path) -> Iterator[Aimock]:
    with aimock(require_tool("llmock"), FIXTURES, tmp_path) as running:
        yield running


@pytest.fixture
def workspace(tmp_path: Path, provider: Aimock) -> Path:
    folder = tmp_path / "workspace"
    folder.mkdir()
    (folder / "agent.yaml").write_text(AGENT)
    (folder / "notes.txt").write_text("mlik\nbread\n")
    (folder / "flux.toml").write_text(
        f'[flux.ai.providers.local]\nbase_url = "{provider.url}/v1"\napi_key_env = "LOCAL_KEY"\n'
    )
    trust({"HOME": str(tmp_path)}, folder / "flux.toml")
    return folder


def _flux(workspace: Path, *arguments: str) -> pexpect.spawn[str]:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(workspace.parent),
        "FLUX_HOME": str(workspace.parent / "home"),
        "LOCAL_KEY": KEY,
        "TERM": "xterm-256color",
        "LANG": "C.UTF-8",
    }
    command = [*FLUX, *arguments]
    return pexpect.spawn(
        command[0], command[1:], cwd=str(workspace), env=environment, encoding="utf-8", timeout=20, dimensions=(30, 100)
    )


@pytest.mark.behaviour("sessions:main-job:end-to-end")
def test_an_agent_works_asks_is_killed_and_finishes(workspace: Path, provider: Aimock) -> None:
    terminal = _flux(workspace, "chat", "agent.yaml")
    terminal.expect("Flux Agent — tidy")
    terminal.expect(r"Session: ([0-9a-f-]{36})")
    assert isinstance(terminal.match, re.Match)
    session = terminal.match.group(1)
    terminal.expect(PROMPT)
    terminal.sendline("Tidy my notes")
    terminal.expect("list_directory")
    terminal.expect("edit_file")
    terminal.expect(r"\[a\]pprove")
    assert (workspace / "notes.txt").read_text() == "milk\nbread\n"
    assert not (workspace / "counted.txt").exists()

    terminal.kill(signal.SIGKILL)
    terminal.wait()

    terminal = _flux(workspace, "agent", "session", "resume", session)
    terminal.expect(r"\[a\]pprove")
    terminal.delaybeforesend = 1.0  # a person reads the question first: keys that come at once do not count
    terminal.send("a")
    terminal.expect("All tidy: the typo is gone.")
    terminal.sendline("Thank you")
    terminal.expect("You are welcome.")
    terminal.sendeof()
    terminal.expect(f"Session: {session}")
    terminal.expect(f"flux agent session resume {session}")
    terminal.expect(pexpect.EOF)
    terminal.close()

    assert terminal.exitstatus == 0
    assert (workspace / "counted.txt").read_text().split() == ["2"]
    calls = [entry for entry in provider.journal() if entry["path"].endswith("/chat/completions")]
    assert len(calls) == len(FIXTURES)
