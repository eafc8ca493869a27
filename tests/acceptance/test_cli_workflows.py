"""`flux workflow` and `flux db` as a person meets them."""

import json
from pathlib import Path

import pytest

from tests.acceptance.test_cli import Flux, complains
from tests.acceptance.test_cli import flux as flux  # noqa: PLC0414 - the fixture

SOURCE = '''\
from flux import interval, workflow

@workflow.with_options(schedule=interval(hours=6))
async def hello(ctx):
    """Say hello."""

raise SystemExit("registering runs nothing")
'''


@pytest.mark.behaviour("cli:workflows:life")
def test_a_workflow_is_registered_listed_shown_and_deleted(flux: Flux, tmp_path: Path) -> None:
    file = tmp_path / "hello.py"
    file.write_text(SOURCE)
    assert "No workflows yet" in flux("workflow", "list").stderr
    for _ in range(2):
        assert flux("workflow", "register", "hello.py").stdout == "Registered default/hello (version 1).\n"
    file.write_text(SOURCE + "# changed\n")
    changed = json.loads(flux("workflow", "register", "hello.py", "--format", "json").stdout)
    assert [(row["name"], row["version"]) for row in changed] == [("hello", 2)]
    assert "default/hello  2        Say hello." in flux("workflow", "list").stdout
    shown = flux("workflow", "show", "hello").stdout
    assert "default/hello, version 2" in shown
    assert "schedule: {'type': 'interval'" in shown
    assert flux("workflow", "show", "default/hello", "--version", "1", "--source").stdout == SOURCE
    assert [row["version"] for row in json.loads(flux("workflow", "versions", "hello", "--format", "json").stdout)] == [
        2,
        1,
    ]
    assert flux("workflow", "delete", "hello").stdout == "Deleted workflow hello.\n"
    complains(flux("workflow", "show", "hello"), 1, "there is no workflow default/hello", "flux workflow list")


@pytest.mark.behaviour("cli:workflows:life")
def test_a_file_that_cannot_be_registered_is_refused_in_one_line(flux: Flux, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("x = 1\nasync def broken(:\n")
    complains(flux("workflow", "register", "broken.py"), 2, "does not parse: line 2, column 18")
    complains(flux("workflow", "register", "nowhere.py"), 2, "nowhere.py", "does not exist")


@pytest.mark.behaviour("cli:db")
def test_the_schema_of_the_database_is_told_and_made(flux: Flux, tmp_path: Path) -> None:
    before = flux("db", "status")
    assert before.returncode == 1
    assert "no schema yet; `flux db upgrade` makes it" in before.stdout
    assert not (tmp_path / "home" / "flux.db").exists()
    assert "up to date" in flux("db", "upgrade").stdout
    after = flux("db", "status", "--format", "json")
    assert (after.returncode, json.loads(after.stdout)["current"]) == (0, True)
    assert "Copied the database" in flux("db", "backup", "copy.db").stdout
    assert flux("agent", "list", FLUX_DATABASE_URL=f"sqlite:///{tmp_path}/copy.db").returncode == 0
    complains(flux("db", "backup", "copy.db"), 2, "exists already")
    complains(flux("db", "backup", "x.db", FLUX_DATABASE_URL="postgresql://x"), 2, "pg_dump")
    (tmp_path / "not.db").write_text("this is no database, however long it may be")
    complains(flux("db", "status", FLUX_DATABASE_URL=f"sqlite:///{tmp_path}/not.db"), 1, "not.db")
    complains(flux("db", "status", FLUX_DATABASE_URL="mysql://x"), 2, "must begin with sqlite:/// or postgresql://")


@pytest.mark.behaviour("cli:db")
def test_health_tells_of_the_database(flux: Flux) -> None:
    told = json.loads(flux("health", "--format", "json").stdout)
    assert (told["status"], told["database"]) == ("ok", "ok")
