"""`flux agent start NAME --mode web` in a process of its own."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.web.conftest import GUARD_MS

FLUX = [sys.executable, "-m", "flux"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    found = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "FLUX_HOME": str(tmp_path / "home"), "LANG": "C.UTF-8"}
    fields = ["--model", "scripted/demo", "--system-prompt", "x"]
    subprocess.run(
        [*FLUX, "agent", "create", "helper", *fields], env=found, cwd=tmp_path, check=True, capture_output=True
    )
    return found


def refused(environment: dict[str, str], *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [*FLUX, "agent", "start", *arguments, "--mode", "web"],
        env=environment, cwd=environment["HOME"], capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.stderr.count("\n") == 1
    return done.returncode, done.stderr


@pytest.mark.behaviour("web:cli:serve")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_page_is_served_and_stops_on_a_signal(
    environment: dict[str, str], browser: "object", number: signal.Signals
) -> None:
    command = [*FLUX, "agent", "start", "helper", "--mode", "web", "--port", "0"]
    with subprocess.Popen(
        command, env=environment, cwd=environment["HOME"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        found = re.fullmatch(r"Flux Agent — helper: (http://127\.0\.0\.1:\d+/)\n", said)
        assert found is not None
        page = await browser.new_page()  # type: ignore[attr-defined]
        page.set_default_timeout(GUARD_MS)
        await page.goto(found.group(1))
        await page.fill("textarea", "hello")
        await page.press("textarea", "Enter")
        await page.locator(".answer").filter(has_text="scripted/demo").wait_for()
        process.send_signal(number)
        assert process.wait(10) == 0
        await page.close()


@pytest.mark.behaviour("web:cli:refuses")
def test_what_cannot_be_served_is_said_in_one_line(environment: dict[str, str]) -> None:
    code, said = refused(environment, "helper", "--host", "0.0.0.0")
    assert code == 2
    assert "--allow-remote" in said
    code, said = refused(environment, "nobody", "--port", "0")
    assert code == 1
    assert "nobody" in said
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, said = refused(environment, "helper", "--port", str(taken.getsockname()[1]))
    assert code == 1
    assert "in use" in said


@pytest.mark.behaviour("web:cli:remote")
def test_other_machines_are_let_in_only_with_a_warning(environment: dict[str, str]) -> None:
    command = [*FLUX, "agent", "start", "helper", "--mode", "web", "--port", "0", "--host", "0.0.0.0", "--allow-remote"]
    with subprocess.Popen(
        command, env=environment, cwd=environment["HOME"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert "Warning" in (warning := process.stderr.readline())
        assert "reverse proxy" in warning
        assert "http://0.0.0.0:" in process.stdout.readline()
        process.terminate()
