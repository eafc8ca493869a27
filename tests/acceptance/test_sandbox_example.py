"""The coding agent in an isolated sandbox."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flux.sandboxes.factories import isolation_problem

ROOT = Path(__file__).parents[2]


@pytest.mark.behaviour("examples:agents:isolated-coder")
@pytest.mark.skipif(bool(isolation_problem()), reason=f"no isolated sandbox works here: {isolation_problem()}")
def test_the_isolated_coder_mends_a_project(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "FLUX_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "examples/agents/isolated_coder.py", str(project)],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert done.stdout.endswith("It sorts now, and the tests pass.\n\nthe tests pass\n"), done.stderr
    assert "sorted(values)" in (project / "median.py").read_text()
