"""Every example of a workflow runs as it is, and prints what it says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples" / "workflows"
SAYS = {
    "approvals": "transferred 50\nPAUSED",
    "cancellation": "PAUSED",
    "dataframes": "{'rows': 2, 'sum': 29.75}",
    "determinism": "True",
    "failures": (
        "refunded 100\nworked at try 3\na hostel in Rome\nValueError: card declined\n"
        "forever took longer than its timeout of 0.05 s"
    ),
    "graph": "billed: 5 kg by bike\nbilled: 50 kg by truck",
    "hello_world": "COMPLETED Hello, Joe",
    "multiple_pause_points": "COMPLETED [1, 'L', 'R']",
    "nested_tasks": "6",
    "pause_with_input": (
        "PAUSED {'name': 'review', 'output': {'draft': 'All about tea'}}\nCOMPLETED All about tea (too short)"
    ),
    "pipelines": "{'one after the other': 169, 'side by side': [10, 8, 25]}",
    "progress": "3",
    "schedules": "all is well",
    "secrets_and_configs": "SecretNotFound: there is no secret 'api_token'; `flux secrets set api_token` sets it",
    "sleeping": "['before', 'after']",
    "subflows": "[2, 4, 6]",
    "task_map": "13",
}


@pytest.mark.behaviour("examples:workflows:run")
@pytest.mark.parametrize("name", sorted(path.stem for path in EXAMPLES.glob("*.py")))
def test_an_example_prints_what_it_says(tmp_path: Path, name: str) -> None:
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "FLUX_HOME": str(tmp_path / "flux")}
    command = [sys.executable, str(EXAMPLES / f"{name}.py")]
    ran = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=50, check=False)
    told = "workflow default/secrets_and_configs failed: " if name == "secrets_and_configs" else ""
    assert (ran.stdout.strip(), ran.returncode) == (SAYS[name], 0)
    assert ran.stderr.startswith(told)
    assert bool(ran.stderr) == bool(told)
