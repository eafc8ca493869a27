from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from flux.tools.base import Done, Failed

Call = Callable[..., Awaitable[Done | Failed]]


def fill(workspace: Path) -> None:
    for name in ("src/pkg/a.py", "src/b.py", ".git/config", "z.txt"):
        (workspace / name).parent.mkdir(parents=True, exist_ok=True)
        (workspace / name).touch()
    (workspace / "out").symlink_to("/etc")


@pytest.mark.behaviour("tools:directory:list")
async def test_a_directory_is_listed(call: Call, workspace: Path) -> None:
    assert await call("list_directory", path=".") == Done("(the directory is empty)")
    fill(workspace)
    assert await call("list_directory") == Done(".git/\nout@\nsrc/\nz.txt")
    assert await call("list_directory", path="z.txt") == Failed("z.txt: not a directory")
    assert await call("list_directory", path="out") == Failed("'out' is outside the workspace")


@pytest.mark.behaviour("tools:directory:tree")
async def test_a_tree_is_indented_and_does_not_enter_links_or_tool_directories(call: Call, workspace: Path) -> None:
    fill(workspace)
    tree = ".git/ (not shown)\nout@\nsrc/\n  b.py\n  pkg/\n    a.py\nz.txt"
    assert await call("directory_tree") == Done(tree)
    flat = ".git/ (not shown)\nout@\nsrc/\n  b.py\n  pkg/\nz.txt"
    assert await call("directory_tree", max_depth=2) == Done(flat)


@pytest.mark.behaviour("tools:directory:capped")
async def test_long_listings_are_capped_with_the_total(call: Call, workspace: Path) -> None:
    for number in range(2_000):
        (workspace / f"{number:04}").touch()
    for name in ("list_directory", "directory_tree"):
        *lines, note = (await call(name)).content.split("\n")
        assert lines == [f"{number:04}" for number in range(1_000)]
        assert note == "[1,000 of 2,000 entries are shown]"


async def test_strange_names_stay_on_their_line(call: Call, workspace: Path) -> None:
    (workspace / "two\nlines").touch()
    (workspace / b"caf\xe9".decode("utf-8", "surrogateescape")).touch()
    assert await call("list_directory") == Done("caf\\udce9\ntwo\\nlines")
