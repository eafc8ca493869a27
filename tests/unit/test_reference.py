"""The generated pages of docs/reference: up to date, complete, and true where a mapping of words stands in."""

import ast
from pathlib import Path

import pytest

from flux.deltas import DELTA_TYPES
from flux.errors import SettingsInvalid
from flux.events import ENTRY_TYPES
from flux.settings import Settings, load_settings
from tools.meanings import NOT_WRITTEN, ONLY_VARIABLES, SETTINGS
from tools.reference import FOLDER, main, pages, stale

ROOT = Path(__file__).parents[2]
SAMPLES = {"synchronous": "normal", "dead_after": "40", "max_header_bytes": "7000", "sandbox": "virtual"}

pytestmark = pytest.mark.behaviour("docs:reference:generated")


@pytest.mark.docs
def test_the_pages_say_what_the_code_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"]) == 0, capsys.readouterr().out


def test_a_page_that_differs_or_is_missing_is_found(tmp_path: Path) -> None:
    (tmp_path / "same.md").write_text("text")
    (tmp_path / "other.md").write_text("old")
    wanted = {tmp_path / name: "text" for name in ("same.md", "other.md", "missing.md")}
    assert stale(wanted) == [tmp_path / "other.md", tmp_path / "missing.md"]


def test_every_setting_is_told() -> None:
    assert [*SETTINGS, "providers", "keys", "auth"] == list(Settings.__struct_fields__)


@pytest.mark.parametrize("name", SETTINGS)
def test_variables_and_keys_work_as_the_page_says(name: str, tmp_path: Path) -> None:
    sample = SAMPLES.get(name, "7")
    home = {"HOME": str(tmp_path)}
    told = load_settings({**home, f"FLUX_{name.upper()}": sample}, cwd=tmp_path)
    value = getattr(told, name)
    shown = ",".join(value) if isinstance(value, tuple) else str(value)
    assert shown.removeprefix(f"{Path.cwd()}/").removesuffix(".0") == sample
    file = tmp_path / ".config" / "flux" / "flux.toml"
    file.parent.mkdir(parents=True)
    file.write_text(f'[flux]\n{name} = "{sample}"\n')
    if name in ONLY_VARIABLES:
        with pytest.raises(SettingsInvalid, match="unknown setting"):
            load_settings(home, cwd=tmp_path)
    else:
        assert getattr(load_settings(home, cwd=tmp_path), name) == getattr(told, name)


def test_events_that_are_never_written_are_told() -> None:
    called: set[str] = set()
    for file in (ROOT / "src" / "flux").rglob("*.py"):
        calls = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
        # An entry is made by calling its class, or by a function that is given it.
        called |= {ast.unparse(part) for call in calls for part in (call.func, *call.args)}
    # Two modules import an entry by another name.
    classes = {name: {cls.__name__, f"{cls.__name__}Entry"} for name, cls in (ENTRY_TYPES | DELTA_TYPES).items()}
    assert {name for name, spelled in classes.items() if not spelled & called} == NOT_WRITTEN


def test_every_event_has_a_heading() -> None:
    page = pages()[FOLDER / "events.md"]
    assert [name for name in [*ENTRY_TYPES, *DELTA_TYPES] if f"\n### {name}\n" not in page] == []
