"""`flux init`, `flux dev` and `flux run`, as a developer meets them."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from tests.acceptance.test_cli import Flux, complains, environment
from tests.acceptance.test_cli import flux as flux  # noqa: PLC0414 - the fixture


@contextmanager
def developing(folder: Path, root: str) -> Iterator[tuple[str, IO[str]]]:
    """`flux dev` on a free port: its address, and all that it says."""
    command = [sys.executable, "-m", "flux", "dev", "--port", "0", "--project", root]
    with subprocess.Popen(
        command, cwd=folder, env=environment(folder), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        said = until(process.stdout, "Flux dev on ")
        try:
            yield said.split()[3], process.stdout
        finally:
            process.terminate()
        assert process.wait(20) == 130


def until(said: IO[str], words: str) -> str:
    """The line with these words."""
    for line in said:
        if words in line:
            return line
    raise AssertionError(f"it never said {words!r}")


def post(url: str, body: Any) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


@pytest.mark.behaviour("project:dev:reload")
def test_a_project_is_begun_served_changed_broken_and_mended(flux: Flux, tmp_path: Path) -> None:
    assert "cd shop && flux dev" in flux("init", "shop").stdout
    file = tmp_path / "shop" / "workflows" / "greet.py"
    written = file.read_text()
    with developing(tmp_path, "shop") as (url, said):
        run = f"{url}/workflows/greet?wait=result"
        assert post(run, {"payload": {"name": "Ada"}})["result"] == "Hello, Ada!"
        file.write_text(written.replace("Hello", "Welcome"))
        until(said, "workflows/greet.py changed")
        until(said, "Flux dev on ")
        assert post(run, {"payload": {"name": "Ada"}})["result"] == "Welcome, Ada!"
        file.write_text("import nothing_of_this_name\n")
        until(said, "nothing_of_this_name")
        until(said, "it starts again when a file changes")
        file.write_text(written)
        until(said, "Flux dev on ")
        assert post(run, {})["result"] == "Hello, world!"


@pytest.mark.behaviour("project:run:embedded")
def test_a_workflow_of_the_project_runs_without_a_server(flux: Flux, tmp_path: Path) -> None:
    flux("init", "shop")
    given = ("run", "greet", "--project", "shop", "--payload", '{"name": "Ada"}', "--format", "json")
    shown = json.loads(flux(*given).stdout)
    assert (shown["state"], shown["output"]) == ("COMPLETED", "Hello, Ada!")
    complains(flux("run", "gret", "--project", "shop"), 1, "did you mean 'greet'")
    complains(flux("run", "greet", "--project", "shop", "--payload", "{x"), 2, "--payload is not JSON")
    complains(flux("run", "greet", "--project", "nowhere"), 2, "there is no folder")
    complains(flux("init", "shop"), 2, "not empty")
    complains(flux("init", "../9"), 2, "cannot be called")
    complains(flux("init", "."), 2, "not empty")
    complains(flux("dev", "--host", "0.0.0.0"), 2, "--allow-remote")
