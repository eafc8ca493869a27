"""Lists that are too long to show are kept whole."""

from pathlib import Path
from typing import Any

import pytest

from flux.sandboxes.host import LocalSandbox
from flux.tools import search
from flux.tools.base import Done, ToolContext
from flux.tools.groups import resolve


@pytest.mark.behaviour("tools:lists:kept")
@pytest.mark.parametrize("path", ["/usr/local/bin:/usr/bin:/bin", ""], ids=["rg if present", "without rg"])
@pytest.mark.parametrize(
    ("name", "args", "shown", "lines"),
    [
        ("grep", {"pattern": "needle"}, 201, 1_200),
        ("find_files", {"pattern": "*.txt"}, 501, 1_200),
        ("list_directory", {"path": "."}, 1_001, 1_200),
        ("directory_tree", {"path": "."}, 1_001, 1_200),
    ],
)
async def test_the_rest_of_a_long_list_can_be_read(
    tmp_path: Path, path: str, name: str, args: dict[str, Any], shown: int, lines: int
) -> None:
    for number in range(lines):
        (tmp_path / f"f{number:04}.txt").write_text("a needle\n")
    whole, outcome = await called(tmp_path, path, name, args)
    *first, note = outcome.split("\n")
    assert len(first) == shown
    assert note == '[the whole is kept; read on with read_file("artifact://1")]'
    assert len(whole) == lines
    assert whole[: shown - 1] == first[:-1]
    assert "f1199.txt" in whole[-1]


@pytest.mark.behaviour("tools:lists:kept")
async def test_of_a_flood_of_matches_the_first_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "MAX_KEPT", 300)
    (tmp_path / "long.txt").write_text("needle\n" * 1_000)
    whole, outcome = await called(tmp_path, "", "grep", {"pattern": "needle"})
    assert "[1000 matching lines in 1 files; the first 200 are shown]" in outcome
    assert len(whole) == 301
    assert whole[-1] == "[the first 300 of 1000 matching lines]"


async def called(root: Path, path: str, name: str, args: dict[str, Any]) -> tuple[list[str], str]:
    """What was kept, and what was shown."""
    kept: list[str] = []

    async def keep(content: bytes, media_type: str) -> str:
        kept.extend(content.decode().split("\n"))
        return "artifact://1"

    (tool,) = (tool for tool in resolve(["system_tools"]) if tool.name == name)
    context = ToolContext("s", "c", LocalSandbox(root, {"PATH": path}), output=print, keep=keep)
    outcome = await tool.run(args, context)
    assert isinstance(outcome, Done)
    return kept, outcome.content
