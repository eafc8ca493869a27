import asyncio
import os
import shutil
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flux.sandboxes.base import Entry, HostSandbox
from flux.sandboxes.host import LocalSandbox

Operation = Callable[[LocalSandbox, str], Awaitable[object]]

OPERATIONS: dict[str, Operation] = {
    "read": lambda sandbox, path: sandbox.read(path),
    "write": lambda sandbox, path: sandbox.write(path, b"x"),
    "stat": lambda sandbox, path: sandbox.stat(path),
    "list": lambda sandbox, path: sandbox.list(path),
    "exists": lambda sandbox, path: sandbox.exists(path),
    "mkdir": lambda sandbox, path: sandbox.mkdir(path),
    "remove": lambda sandbox, path: sandbox.remove(path, recursive=True),
    "resolve": lambda sandbox, path: sandbox.resolve(path),
    "walk": lambda sandbox, path: sandbox.walk(path, skip=frozenset(), depth=9, limit=99),
}


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory beside the workspace with one file in it."""
    path = tmp_path / "outside"
    path.mkdir()
    (path / "secret").write_text("secret")
    return path


@pytest.fixture
def workspace(tmp_path: Path, outside: Path) -> Path:
    """A workspace with links that lead out of it and links that do not."""
    path = tmp_path / "workspace"
    (path / "directory").mkdir(parents=True)
    (path / "directory/file").write_text("inside")
    (path / "inner").symlink_to("directory")
    (path / "out").symlink_to(outside)
    (path / "out-file").symlink_to("../outside/secret")
    (path / "dangling").symlink_to(outside / "new")
    (path / "loop").symlink_to("loop")
    return path


@pytest.fixture
def sandbox(workspace: Path) -> LocalSandbox:
    return LocalSandbox(workspace, {})


def content(path: Path) -> dict[str, str]:
    """Every file below a directory."""
    return {str(file.relative_to(path)): file.read_text() for file in path.rglob("*") if file.is_file()}


ESCAPES = ["..", "../outside/secret", "directory/../../outside/secret", "/etc/passwd", "/", "out/secret", "out/new"]


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("path", [*ESCAPES, "out/.."])
@pytest.mark.behaviour("sandbox:local:confined")
async def test_no_operation_leaves_the_workspace(
    sandbox: LocalSandbox, outside: Path, operation: str, path: str
) -> None:
    with pytest.raises(PermissionError) as caught:
        await OPERATIONS[operation](sandbox, path)
    assert str(caught.value) == f"{path!r} is outside the workspace"
    assert content(outside) == {"secret": "secret"}


@pytest.mark.parametrize("operation", sorted(set(OPERATIONS) - {"remove"}))
@pytest.mark.parametrize("path", ["out", "out-file", "dangling"])
@pytest.mark.behaviour("sandbox:local:links")
async def test_links_that_lead_out_are_not_followed(
    sandbox: LocalSandbox, outside: Path, operation: str, path: str
) -> None:
    with pytest.raises(PermissionError, match="is outside the workspace"):
        await OPERATIONS[operation](sandbox, path)
    assert content(outside) == {"secret": "secret"}


@pytest.mark.behaviour("sandbox:local:remove")
async def test_removing_a_link_removes_the_link(sandbox: LocalSandbox, workspace: Path, outside: Path) -> None:
    for name in ("out", "out-file", "dangling", "inner", "loop"):
        await sandbox.remove(name, recursive=True)
    assert content(outside) == {"secret": "secret"}
    assert os.listdir(workspace) == ["directory"]
    with pytest.raises(OSError, match="Directory not empty"):
        await sandbox.remove("directory")
    await sandbox.remove("directory", recursive=True)
    for root in (".", str(workspace), "x/.."):
        with pytest.raises(PermissionError, match="the workspace itself cannot be removed"):
            await sandbox.remove(root, recursive=True)


NAMES = st.sampled_from(["..", ".", "directory", "file", "inner", "out", "out-file", "dangling", "loop", "new", ""])


@settings(max_examples=150, deadline=None)
@given(path=st.lists(NAMES, min_size=1, max_size=6).map("/".join), absolute=st.booleans())
@pytest.mark.behaviour("sandbox:local:confined")
def test_any_path_stays_inside_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, path: str, absolute: bool
) -> None:
    base = tmp_path_factory.mktemp("any")
    outside = base / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    workspace = base / "workspace"
    (workspace / "directory").mkdir(parents=True)
    (workspace / "directory/file").write_text("inside")
    for name, target in (("inner", "directory"), ("out", "../outside"), ("out-file", "../outside/secret"),
                         ("dangling", "../outside/new"), ("loop", "loop")):  # fmt: skip
        (workspace / name).symlink_to(target)
    sandbox = LocalSandbox(workspace, {})
    asked = f"{workspace}/{path}" if absolute else path

    async def try_all() -> None:
        for operation in OPERATIONS.values():
            try:
                result = await operation(sandbox, asked)
            except OSError:
                continue
            assert result != b"secret"

    asyncio.run(try_all())
    assert content(outside) == {"secret": "secret"}
    assert set(os.listdir(base)) == {"outside", "workspace"}


@pytest.fixture
def swapped(workspace: Path, outside: Path) -> Iterator[Path]:
    """A name that is a directory and a link out of the workspace in turn, as fast as can be."""
    name, real, link = workspace / "swap", workspace / "swap-real", workspace / "swap-link"
    real.mkdir()
    (real / "secret").write_text("inside")
    link.symlink_to(outside)
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for path in (real, link):
                try:
                    path.rename(name)
                    name.rename(path)
                except OSError:  # a write made the directory between the two
                    shutil.rmtree(name, ignore_errors=True)

    thread = threading.Thread(target=swap)
    thread.start()
    yield name
    stop.set()
    thread.join()


@pytest.mark.behaviour("sandbox:local:races")
async def test_a_link_put_in_the_way_meanwhile_is_not_followed(
    sandbox: LocalSandbox, swapped: Path, outside: Path
) -> None:
    for _ in range(400):
        for operation in ("read", "write"):
            try:
                result = await OPERATIONS[operation](sandbox, "swap/secret")
            except OSError:
                continue
            assert result in (None, b"inside", b"x")
    assert content(outside) == {"secret": "secret"}


async def test_paths_inside_work_by_any_name(sandbox: LocalSandbox, workspace: Path) -> None:
    for path in ("directory/file", "inner/file", "./inner/../directory/file", f"{workspace}/inner/file"):
        assert await sandbox.read(path) == b"inside"
        assert await sandbox.resolve(path) == f"{workspace}/directory/file"
    await sandbox.write("inner/new/file", b"new")
    assert (workspace / "directory/new/file").read_text() == "new"
    assert await sandbox.list("inner") == ("file", "new")
    assert isinstance(sandbox, HostSandbox)
    linked = LocalSandbox(workspace / "inner", {})
    assert linked.cwd == f"{workspace}/directory"


@pytest.mark.behaviour("sandbox:local:write")
async def test_a_file_is_replaced_whole(sandbox: LocalSandbox, workspace: Path) -> None:
    path = workspace / "directory/file"
    path.chmod(0o640)
    with path.open() as before:
        await sandbox.write("directory/file", b"new")
        assert before.read() == "inside"
    assert path.stat().st_mode & 0o777 == 0o640
    assert os.listdir(workspace / "directory") == ["file"]
    with pytest.raises(IsADirectoryError):
        await sandbox.write("directory", b"x")


async def test_special_files_are_refused_at_once(sandbox: LocalSandbox, workspace: Path) -> None:
    os.mkfifo(workspace / "fifo")
    for operation in ("read", "write"):
        with pytest.raises(OSError, match="Not a regular file"):
            await OPERATIONS[operation](sandbox, "fifo")


async def test_stat_and_exists(sandbox: LocalSandbox) -> None:
    found = await sandbox.stat("inner")
    assert (found.is_directory, found.is_file, found.is_symbolic_link) == (True, False, True)
    assert (await sandbox.stat("directory/file")).size == 6
    assert await sandbox.exists("inner/file")
    assert not await sandbox.exists("inner/nothing")
    assert not await sandbox.exists("directory/file/below")
    with pytest.raises(FileNotFoundError, match="'inner/nothing'"):
        await sandbox.stat("inner/nothing")


async def test_mkdir_makes_parents_and_may_be_repeated(sandbox: LocalSandbox, workspace: Path) -> None:
    for _ in range(2):
        await sandbox.mkdir("inner/a/b")
    assert (workspace / "directory/a/b").is_dir()
    with pytest.raises(NotADirectoryError):
        await sandbox.mkdir("directory/file")


async def test_walk(sandbox: LocalSandbox) -> None:
    entries = await sandbox.walk(".", skip=frozenset(), depth=9, limit=99)
    links = [Entry(name, "link") for name in ("inner", "loop", "out", "out-file")]
    inside = [Entry("directory", "directory"), Entry("directory/file", "file")]
    assert list(entries) == [Entry("dangling", "link"), *inside, *links]
    assert len(await sandbox.walk(".", skip=frozenset({"directory"}), depth=9, limit=99)) == 6
    assert len(await sandbox.walk(".", skip=frozenset(), depth=1, limit=99)) == 6
    assert len(await sandbox.walk(".", skip=frozenset(), depth=9, limit=2)) == 2
