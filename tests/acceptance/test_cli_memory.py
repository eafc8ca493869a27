"""`flux memory` as a person meets it."""

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

Flux = Callable[..., subprocess.CompletedProcess[str]]

#: An agent that stores what it is told to.
STORE = """
import asyncio, sys
from pathlib import Path
from flux.agents.process import open_process
from flux.settings import load_settings
from flux.store.database import LOCAL

async def main():
    async with open_process(load_settings(), environment={}, workspace=Path("."), worker=False) as process:
        for argument in sys.argv[1:]:
            area, key, value = argument.split("=")
            await process.memory_stores.own.put(LOCAL, area, key, value)

asyncio.run(main())
"""


def environment(folder: Path, **more: str) -> dict[str, str]:
    return more | {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "FLUX_HOME": str(folder / "home"),
        "LANG": "C.UTF-8",
    }


@pytest.fixture
def program(tmp_path: Path) -> Flux:
    """Run Python in an empty folder with an empty home."""

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path, env=environment(tmp_path, **variables), capture_output=True, text=True, timeout=50,
            check=False,
        )  # fmt: skip

    return run


@pytest.fixture
def flux(program: Flux) -> Flux:
    return lambda *arguments, **variables: program("-m", "flux", *arguments, **variables)


@pytest.mark.behaviour("cli:memory:life")
def test_memories_are_listed_shown_and_forgotten(flux: Flux, program: Flux) -> None:
    assert flux("memory", "list").stderr == "No memories yet; agents with long_term_memory store some.\n"
    assert program("-c", STORE, "user:1=city=Rome", "user:1=food=pasta", "user:2=city=Oslo\x1b[2J").returncode == 0
    listed = flux("memory", "list").stdout.splitlines()
    assert listed[0].split() == ["SCOPE", "KEY", "UPDATED", "VALUE"]
    assert [line.split()[:2] for line in listed[1:]] == [["user:1", "city"], ["user:1", "food"], ["user:2", "city"]]
    assert "\x1b" not in "".join(listed)
    rows = json.loads(flux("memory", "list", "--scope", "user:1", "--limit", "1", "--format", "json").stdout)
    assert [(row["scope"], row["key"], row["preview"]) for row in rows] == [("user:1", "city", '"Rome"')]
    assert flux("memory", "show", "food").stdout == "pasta\n"
    shown = json.loads(flux("memory", "show", "city", "--scope", "user:1", "--format", "json").stdout)
    assert (shown["scope"], shown["value"]) == ("user:1", "Rome")
    unclear = flux("memory", "forget", "city")
    assert (unclear.returncode, unclear.stderr.count("\n")) == (2, 1)
    assert "several scopes have a memory 'city': 'user:1', 'user:2'" in unclear.stderr
    assert flux("memory", "forget", "city", "--scope", "user:1").stdout == "Forgot city of user:1.\n"
    missing = flux("memory", "show", "city", "--scope", "user:1")
    assert (missing.returncode, missing.stderr) == (
        1,
        "Error: there is no memory 'city' in the scope 'user:1'; `flux memory list` shows those that exist\n",
    )
    for key in ("", "..", "k" * 300):
        wrong = flux("memory", "show", key)
        assert (wrong.returncode, "memory key" in wrong.stderr) == (2, True)


@pytest.mark.behaviour("cli:memory:agents")
def test_the_memory_of_an_agent_lies_where_its_definition_says(flux: Flux, tmp_path: Path) -> None:
    (tmp_path / "helper.yaml").write_text(
        "name: helper\nmodel: scripted/demo\nsystem_prompt: Help.\n"
        "long_term_memory:\n  provider: sqlite\n  connection: helper.db\n"
    )
    assert flux("agent", "apply", "helper.yaml").returncode == 0
    assert "connection: helper.db" in flux("agent", "show", "helper").stdout
    assert flux("memory", "list", "--agent", "helper", "--format", "json").stdout == "[]\n"
    file = tmp_path / "home" / "memories" / "helper.db"
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("select count(*) from memories").fetchone() == (0,)
    assert file.stat().st_mode & 0o077 == 0
    nobody = flux("memory", "list", "--agent", "nobody")
    assert (nobody.returncode, nobody.stderr.count("\n")) == (1, 1)


@pytest.mark.behaviour("cli:memory:agents")
def test_no_command_shows_the_url_of_a_memory_and_an_export_can_be_applied(flux: Flux, tmp_path: Path) -> None:
    (tmp_path / "helper.yaml").write_text(
        "name: helper\nmodel: scripted/demo\nsystem_prompt: Help.\nlong_term_memory:\n  provider: postgresql\n"
        "  connection: postgresql://flux:hunter22@127.0.0.1:1/notesdb?connect_timeout=2\n"
    )
    applied = flux("agent", "apply", "helper.yaml", "--format", "json")
    assert applied.returncode == 0
    exported = flux("agent", "export", "helper")
    shown = [
        applied, exported, flux("agent", "show", "helper"), flux("agent", "show", "helper", "--effective"),
        flux("agent", "list", "--format", "json"), flux("agent", "update", "helper", "--description", "d"),
        flux("memory", "list", "--agent", "helper"), flux("--debug", "memory", "list", "--agent", "helper"),
    ]  # fmt: skip
    for result in shown:
        assert not [p for p in ("hunter22", "127.0.0.1", "notesdb") if p in result.stdout + result.stderr]
    assert [result.returncode for result in shown] == [0, 0, 0, 0, 0, 0, 1, 1]
    (tmp_path / "again.yaml").write_text(exported.stdout)
    assert flux("agent", "apply", "again.yaml").returncode == 0
    (tmp_path / "other.yaml").write_text(exported.stdout.replace("name: helper", "name: other"))
    refused = flux("agent", "apply", "other.yaml")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "*** stands for a hidden one, but none is stored" in refused.stderr
    helper = tmp_path / "helper.yaml"
    helper.write_text(helper.read_text().replace("provider: postgresql", "provider: sqlite"))
    for debug in ((), ("--debug",)):
        wrong = flux(*debug, "agent", "apply", "helper.yaml")
        assert wrong.returncode == 2
        assert "takes the name of a file or secret:NAME" in wrong.stderr
        assert "hunter22" not in wrong.stderr


@pytest.mark.behaviour("cli:doctor:memory")
def test_the_doctor_warns_of_files_of_memories_where_several_machines_work(
    flux: Flux, tmp_path: Path, postgres_url: str
) -> None:
    def doctor(**variables: str) -> list[dict[str, Any]]:
        found = json.loads(flux("doctor", "--format", "json", **variables).stdout)
        return [finding for finding in found if "memory" in finding["what"]]

    definition = "name: helper\nmodel: scripted/demo\nsystem_prompt: Help.\nlong_term_memory: "
    (tmp_path / "file.yaml").write_text(definition + "{provider: sqlite, connection: m.db}\n")
    (tmp_path / "own.yaml").write_text(definition + "{}\n")
    assert flux("agent", "apply", "file.yaml").returncode == 0
    assert doctor() == []
    shared = {"FLUX_DATABASE_URL": postgres_url}
    assert flux("agent", "apply", "file.yaml", **shared).returncode == 0
    (warned,) = doctor(**shared)
    assert (warned["found"], warned["ok"]) == ("SQLite files of helper", False)
    assert "use postgresql" in warned["remedy"]
    assert flux("agent", "apply", "own.yaml", **shared).returncode == 0
    assert doctor(**shared) == []
