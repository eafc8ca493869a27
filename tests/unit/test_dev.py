"""./dev, loaded as a module: what it decides, not what pip or uv then do."""

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = str(Path(__file__).parents[2] / "dev")


@pytest.fixture
def dev() -> dict[str, Any]:
    return runpy.run_path(SCRIPT)["main"].__globals__  # type: ignore[no-any-return]


@pytest.mark.behaviour("house:dev:installs-once")
def test_an_installed_lock_is_current_until_it_changes(dev: dict[str, Any], tmp_path: Path) -> None:
    venv = tmp_path / ".venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").touch()
    dev.update(ROOT=str(tmp_path), VENV=str(venv), PYTHON=str(venv / "bin" / "python"))
    lock = tmp_path / "requirements.lock"
    lock.write_text("a==1")
    assert not dev["installed"]("requirements.lock")
    dev["write"](dev["stamp"]("requirements.lock"), dev["digest"]("requirements.lock"))
    assert dev["installed"]("requirements.lock")
    lock.write_text("a==2")
    assert not dev["installed"]("requirements.lock")


@pytest.mark.behaviour("house:dev:tests-use-no-account")
def test_tests_see_no_keys_and_no_settings(dev: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = {
        "OPENAI_API_KEY",
        "ANTHROPIC_API_KEY",
        "GOOGLE_API_KEY",
        "GEMINI_API_KEY",
        "OLLAMA_HOST",
        "FLUX_HOME",
    }
    kept = {"FLUX_TEST_REQUIRE", "PATH", "TEST_DATABASE_URL"}
    for name in hidden | kept:
        monkeypatch.setenv(name, "x")
    seen = dev["test_environment"]().keys()
    assert kept <= seen
    assert not hidden & seen


@pytest.mark.behaviour("house:dev:old-python")
def test_an_old_python_is_told_what_to_do(dev: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 2))
    with pytest.raises(SystemExit, match=r"needs Python 3\.11 or newer.*try `python3\.11 dev`"):
        dev["main"](["run"])


@pytest.mark.parametrize("argv", [[], ["--help"]])
def test_help_lists_each_command(dev: dict[str, Any], capsys: pytest.CaptureFixture[str], argv: list[str]) -> None:
    assert dev["main"](argv) == 0
    shown = capsys.readouterr().out
    assert all(f"./dev {name} " in shown for name in dev["COMMANDS"])


def test_an_unknown_command_is_named_with_those_there_are(
    dev: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert dev["main"](["nonsense"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert all(name in line for name in ("nonsense", *dev["COMMANDS"]))
