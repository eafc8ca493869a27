"""The example of a harness runs offline, as it is, and prints what it says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "harness" / "triage.py"
SAYS = """high: reports, exports time out
We have found the cause and will have it fixed by Friday.
It promises a date.
12 words
no result: nothing here says so
13 messages
"""


@pytest.mark.behaviour("examples:harness:run")
def test_the_example_prints_what_it_says(tmp_path: Path) -> None:
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "FLUX_HOME": str(tmp_path / "flux")}
    command = [sys.executable, str(EXAMPLE)]
    ran = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=50, check=False)
    assert (ran.stdout, ran.stderr, ran.returncode) == (SAYS, "", 0)
