"""The chat in a pipe: the answer on standard output, everything else on standard error."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.terminal.conftest import RUNNER, environment

GUARD_SECONDS = 30


def pipe(home: Path, text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(RUNNER), str(home), *arguments],
        input=text,
        capture_output=True,
        text=True,
        timeout=GUARD_SECONDS,
        env=environment(),
        check=False,
    )


@pytest.mark.behaviour("terminal:pipe:plain")
def test_the_answer_is_plain_text(tmp_path: Path) -> None:
    done = pipe(tmp_path, "echo hi\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "You said 'echo hi'.\n", "")


@pytest.mark.behaviour("terminal:pipe:plain")
def test_tool_lines_are_on_standard_error(tmp_path: Path) -> None:
    done = pipe(tmp_path, "parallel")
    assert (done.returncode, done.stdout) == (0, "All done.\n")
    assert 'Calling list_directory(path=".")... Done.\n' in done.stderr


@pytest.mark.behaviour("terminal:pipe:problems")
def test_a_failed_run_is_exit_code_1(tmp_path: Path) -> None:
    done = pipe(tmp_path, "fail")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "Error: the key was refused\n")


@pytest.mark.behaviour("terminal:pipe:problems")
def test_an_approval_says_how_to_give_it(tmp_path: Path) -> None:
    done = pipe(tmp_path, "two")
    assert done.returncode == 1
    assert done.stdout == "Two commands.\n"
    assert "The agent waits for an answer of yours. Give it with:\n  flux chat --session " in done.stderr


@pytest.mark.behaviour("terminal:pipe:problems")
def test_nothing_to_send(tmp_path: Path) -> None:
    done = pipe(tmp_path, " \n")
    assert (done.returncode, done.stderr) == (1, "Nothing to send: the input is empty.\n")


@pytest.mark.behaviour("terminal:safety:controls-shown")
def test_control_sequences_do_not_pass_through_a_pipe(tmp_path: Path) -> None:
    done = pipe(tmp_path, "evil")
    assert "\x1b" not in done.stdout + done.stderr
    assert "␛]0;stolen␇" in done.stdout
