"""The example of roles: at a terminal, killed in the middle, judged by its cases, and exported."""

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.acceptance.test_cli import environment

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "inventory"


def variables(folder: Path) -> dict[str, str]:
    return {**environment(folder), "PYTHONPATH": str(EXAMPLE), "INVENTORY_DB": str(folder / "shop.db")}


def flux(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flux", *arguments],
        cwd=folder, env=variables(folder), capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip


@contextmanager
def talking(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(EXAMPLE / "inventory.py"), *arguments]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=folder, env=variables(folder), text=True, **pipes) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            process.kill()


def until(process: subprocess.Popen[str], said: str) -> str:
    """Read up to a text."""
    assert process.stdout is not None
    heard = ""
    while not heard.endswith(said):
        piece = process.stdout.read(1)
        assert piece, heard
        heard += piece
    return heard


def answer(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdin is not None
    process.stdin.write(text + "\n")
    process.stdin.flush()


def orders(folder: Path) -> list[tuple[str, int]]:
    with sqlite3.connect(folder / "shop.db") as shop:
        found: list[tuple[str, int]] = shop.execute("select sku, count from orders").fetchall()
    shop.close()
    return found


@pytest.mark.behaviour("examples:inventory:killed")
def test_the_shop_goes_on_after_a_kill_between_two_actions(tmp_path: Path) -> None:
    with talking(tmp_path) as process:
        assert "pears: Order by order_item" in until(process, "y/n> ")
        answer(process, "y")
        assert "remove_item" in until(process, "y/n> ")
    assert orders(tmp_path) == [("pear", 20)]
    with talking(tmp_path) as process:
        assert "remove_item" in until(process, "y/n> ")
        answer(process, "n")
        assert process.stdout is not None
        rest = process.stdout.read()
    assert "unicorns: failed" in rest
    assert "plums: denied" in rest
    assert "This is what came of it" in rest
    assert orders(tmp_path) == [("pear", 20)]


@pytest.mark.behaviour("eval:command")
def test_the_cases_of_the_example_pass_and_one_that_does_not_is_exit_code_one(tmp_path: Path) -> None:
    done = flux(tmp_path, "eval", str(EXAMPLE / "cases.yaml"), "--report", str(tmp_path / "report.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 of 2 cases passed." in done.stderr
    assert json.loads((tmp_path / "report.json").read_text())["passed"] == 2
    agent = {"name": "hi", "model": "scripted/echo", "system_prompt": "Echo."}
    (tmp_path / "agent.yaml").write_text(json.dumps(agent))
    wrong = {"name": "wrong", "input": "hello", "expect": {"text": {"contains": "goodbye"}}}
    right = {"name": "right", "input": "hello", "expect": {"text": {"contains": "hello"}}}
    (tmp_path / "cases.yaml").write_text(json.dumps({"file": "agent.yaml", "cases": [wrong, right]}))
    failed = flux(tmp_path, "eval", "cases.yaml", "--format", "json")
    assert failed.returncode == 1
    assert [case["passed"] for case in json.loads(failed.stdout)["cases"]] == [False, True]
    assert "lacks 'goodbye'" in json.loads(failed.stdout)["cases"][0]["faults"][0]
    assert flux(tmp_path, "eval", "cases.yaml", "--case", "none").returncode == 2
    nowhere = flux(tmp_path, "eval", "cases.yaml", "--report", "nowhere/report.json")
    assert (nowhere.returncode, nowhere.stderr) == (
        2,
        "Error: --report nowhere/report.json: No such file or directory\n",
    )


@pytest.mark.behaviour("roles:export:command")
def test_an_agent_of_a_runtime_is_exported_as_yaml_that_is_stored_and_runs(tmp_path: Path) -> None:
    told = flux(tmp_path, "agent", "export", "inventory:runtime")
    assert (told.returncode, "choose one with --agent: clerk, planner, buyer, counter" in told.stderr) == (2, True)
    made = flux(tmp_path, "agent", "export", "inventory:runtime", "--agent", "counter")
    assert made.returncode == 0, made.stderr
    assert "function: inventory:read_stock" in made.stdout
    (tmp_path / "counter.yaml").write_text(made.stdout.replace("shop/counter", "scripted/demo"))
    assert flux(tmp_path, "agent", "apply", "counter.yaml").returncode == 0
    said = flux(tmp_path, "chat", "counter.yaml", "-p", "call read_stock")
    assert '"ref":"ref:table:' in said.stdout, said.stdout + said.stderr
    assert os.path.exists(tmp_path / "shop.db")
