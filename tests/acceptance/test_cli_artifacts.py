"""`flux agent session artifacts`: what a session has kept, listed and read."""

import json
from pathlib import Path

import pytest

from tests.acceptance.test_cli import Flux, complains, create, flux

__all__ = ["flux"]


@pytest.mark.behaviour("cli:sessions:artifacts")
def test_a_long_output_is_listed_and_written_whole(flux: Flux, tmp_path: Path) -> None:
    assert create(flux).returncode == 0
    (tmp_path / "more.yaml").write_text("tool_approvals: {shell: false}\n")
    assert flux("agent", "update", "helper", "--file", "more.yaml").returncode == 0
    said = flux("chat", "helper", "-p", "run seq 30000 50000")
    assert said.returncode == 0, said.stderr
    (row,) = json.loads(flux("agent", "session", "list", "--format", "json").stdout)
    (kept,) = json.loads(flux("agent", "session", "artifacts", row["id"][:8], "--format", "json").stdout)
    assert kept["media_type"] == "text/plain"
    assert kept["id"] in flux("agent", "session", "artifacts", row["id"]).stdout
    whole = flux("agent", "session", "artifacts", row["id"], kept["id"][:12]).stdout
    assert whole == "\n".join(["exit_code: 0", "stdout:", *map(str, range(30000, 50001)), "stderr: (empty)"])
    complains(flux("agent", "session", "artifacts", row["id"], "zzz"), 1, "no artifact 'zzz'")
    complains(flux("agent", "session", "artifacts", "zzz"), 1, "flux agent session list")
