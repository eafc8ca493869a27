"""The files of the repository itself."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.house import leaks, project_files

ROOT = Path(__file__).parents[2]
PIN = re.compile(r"^([a-z0-9-]+)==(\S+)(?: ; [^\\]+)? \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.M)


@pytest.mark.behaviour("house:files:portable")
def test_no_file_names_a_registry_or_a_machine_path(require_tool: Callable[[str], str]) -> None:
    require_tool("git")
    assert [leak for path, text in project_files(ROOT).items() for leak in leaks(path, text)] == []


@pytest.mark.behaviour("house:locks:hashed")
def test_locks_hold_nothing_but_hashed_pins() -> None:
    run, dev = ((ROOT / name).read_text() for name in ("requirements.lock", "requirements-dev.lock"))
    assert PIN.sub("", run) == PIN.sub("", dev) == ""
    assert set(PIN.findall(run)) <= set(PIN.findall(dev))


@pytest.mark.behaviour("house:locks:hashed")
def test_node_packages_have_exact_versions() -> None:
    packages = json.loads((ROOT / "tests" / "package.json").read_text())["dependencies"]
    assert all(re.fullmatch(r"\d+\.\d+\.\d+(-alpha\.\d+)?", version) for version in packages.values())


@pytest.mark.parametrize("command", ["dev", ".ci/run"])
def test_commands_are_executable(command: str) -> None:
    assert os.access(ROOT / command, os.X_OK)
