"""What a test run does about programs a machine lacks; judged from outside, on a run of its own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.behaviour("house:tests:lacking-tools")

TESTS = """
import pytest

@pytest.mark.parametrize("n", [1, 2])
def test_that_needs_it(require_tool, n):
    require_tool("no-such-program")

async def test_that_needs_what_is_there(require_tool):
    assert require_tool("sh").endswith("/sh")
"""


def run_tests(directory: Path, **environment: str) -> str:
    shutil.copy(Path(__file__).parents[1] / "conftest.py", directory)
    (directory / "test_it.py").write_text(TESTS)
    (directory / "pytest.ini").write_text("[pytest]\nanyio_mode = auto\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    ours = {name: value for name, value in os.environ.items() if name != "FLUX_TEST_REQUIRE"}
    return subprocess.run(
        command, cwd=directory, env=ours | environment, capture_output=True, text=True, check=False
    ).stdout


def test_they_are_named_once_and_their_tests_skipped(tmp_path: Path) -> None:
    shown = run_tests(tmp_path)
    assert "1 passed, 2 skipped" in shown
    assert shown.count("Not on this machine: no-such-program") == 1


def test_they_are_failures_when_all_is_required(tmp_path: Path) -> None:
    shown = run_tests(tmp_path, FLUX_TEST_REQUIRE="all")
    assert "1 passed" in shown
    assert "2 failed" in shown
