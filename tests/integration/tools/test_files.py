import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from flux.sandboxes.host import LocalSandbox
from flux.tools import files
from flux.tools.base import Done, Failed

Call = Callable[..., Awaitable[Done | Failed]]


@pytest.mark.behaviour("tools:files:read")
async def test_lines_are_numbered_and_paged(call: Call, workspace: Path) -> None:
    (workspace / "a.txt").write_bytes(b"one\r\ntwo\n\nfour\n")
    assert await call("read_file", path="a.txt") == Done("     1\tone\n     2\ttwo\n     3\t\n     4\tfour")
    more = "     2\ttwo\n     3\t\n[lines 2 to 3 of 4; read on with offset=3]"
    assert await call("read_file", path="a.txt", offset=1, limit=2) == Done(more)
    beyond = "(the file has 4 lines; nothing is left after offset 9)"
    assert await call("read_file", path="a.txt", offset=9) == Done(beyond)
    (workspace / "empty").touch()
    assert await call("read_file", path="empty") == Done("(the file is empty)")


@pytest.mark.behaviour("tools:files:long")
async def test_a_long_file_is_read_in_pages_and_a_long_line_is_cut(call: Call, workspace: Path) -> None:
    (workspace / "long.txt").write_text("x" * 3_000 + "\n" + "line\n" * 9_999)
    seen, offset = list[str](), 0
    while True:
        page = await call("read_file", path="long.txt", offset=offset, settings={"max_output_chars": 5_000})
        assert len(page.content) <= 5_000
        *lines, note = page.content.split("\n")
        seen += lines
        if not note.startswith("["):
            seen.append(note)
            break
        offset = int(note.rpartition("=")[2].rstrip("]"))
    assert seen[0] == "     1\t" + "x" * 2_000 + " [... 1000 more characters in this line]"
    assert [line.split("\t")[0].strip() for line in seen] == [str(n) for n in range(1, 10_001)]


@pytest.mark.behaviour("tools:files:binary")
async def test_a_binary_file_is_named_and_not_shown(call: Call, workspace: Path) -> None:
    (workspace / "x.bin").write_bytes(b"\x7fELF\0" + bytes(2_000))
    shown = Done("x.bin is a binary file of 2,005 bytes; it is not shown.")
    assert await call("read_file", path="x.bin") == shown


@pytest.mark.behaviour("tools:files:errors")
async def test_errors_are_one_line_with_the_path_as_it_was_given(call: Call, workspace: Path) -> None:
    (workspace / "directory").mkdir()
    expected = {
        "nope/a.txt": "nope/a.txt: no such file or directory",
        "directory": "directory: is a directory",
        "../x": "'../x' is outside the workspace",
        "/etc/passwd": "'/etc/passwd' is outside the workspace",
        "a\0b": "a\0b: a path cannot hold a nul character",
        "n" * 300: "n" * 300 + ": file name too long",
    }
    for path, message in expected.items():
        assert await call("read_file", path=path) == Failed(message)


@pytest.mark.behaviour("tools:files:write")
async def test_writing_makes_directories_and_keeps_the_mode(call: Call, workspace: Path) -> None:
    assert await call("write_file", path="a/b/run.sh", content="é\n") == Done("a/b/run.sh: 3 bytes written")
    path = workspace / "a/b/run.sh"
    path.chmod(0o750)
    await call("write_file", path="a/b/run.sh", content="new")
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o750
    assert os.listdir(path.parent) == ["run.sh"]
    assert isinstance(await call("write_file", path="x", content="\ud800"), Failed)


@pytest.mark.behaviour("tools:files:edit")
async def test_an_edit_is_literal_and_must_match_once(call: Call, workspace: Path) -> None:
    path = workspace / "a.py"
    path.write_text("a.b(\\1)\naxb\nlast\nlast\n")
    assert await call("edit_file", path="a.py", old_string="a.b(\\1)", new_string="\\g<0>$1") == Done(
        "a.py: 1 replaced, line 1"
    )
    many = "a.py: old_string occurs 2 times; add text around it, or set replace_all"
    assert await call("edit_file", path="a.py", old_string="last", new_string="x") == Failed(many)
    none = await call("edit_file", path="a.py", old_string="missing", new_string="x", replace_all=True)
    assert isinstance(none, Failed)
    assert "occurs 0 times" in none.content
    done = Done("a.py: 2 replaced, the first in line 3")
    assert await call("edit_file", path="a.py", old_string="last", new_string="x", replace_all=True) == done
    assert path.read_text() == "\\g<0>$1\naxb\nx\nx\n"
    assert isinstance(await call("edit_file", path="a.py", old_string="", new_string="x"), Failed)
    assert isinstance(await call("edit_file", path="a.py", old_string="x", new_string="x"), Failed)


@pytest.mark.behaviour("tools:files:line-ends")
async def test_an_edit_keeps_crlf_and_bytes_that_are_no_utf8(call: Call, workspace: Path) -> None:
    path = workspace / "dos.txt"
    path.write_bytes(b"one\r\ntwo\r\nthr\xe9e\r\n")
    await call("edit_file", path="dos.txt", old_string="one\ntwo", new_string="1\n2\r\n2b")
    assert path.read_bytes() == b"1\r\n2\r\n2b\r\nthr\xe9e\r\n"
    utf16 = "one".encode("utf-16")
    (workspace / "utf16.txt").write_bytes(utf16)
    assert await call("read_file", path="utf16.txt") == Done("     1\tone")
    refused = Failed("utf16.txt is UTF-16; only UTF-8 files can be edited")
    assert await call("edit_file", path="utf16.txt", old_string="one", new_string="1") == refused
    path.write_bytes(b"one\r\ntwo\nthree")
    await call("edit_file", path="dos.txt", old_string="two\nthree", new_string="2\n3")
    assert path.read_bytes() == b"one\r\n2\n3"


@pytest.mark.behaviour("tools:files:one-writer")
async def test_edits_of_one_file_wait_for_each_other(call: Call, workspace: Path) -> None:
    (workspace / "real").mkdir()
    (workspace / "link").symlink_to("real")
    path = workspace / "real/a.txt"
    path.write_text("".join(f"<{n}>" for n in range(40)))
    names = ["real/a.txt", "link/a.txt", "./real/../link/a.txt", str(path)]
    edits = (call("edit_file", path=names[n % 4], old_string=f"<{n}>", new_string=f"[{n}]") for n in range(40))
    assert all(isinstance(outcome, Done) for outcome in await asyncio.gather(*edits))
    assert path.read_text() == "".join(f"[{n}]" for n in range(40))
    assert len(files._writers) == 0


async def test_file_info(call: Call, workspace: Path) -> None:
    (workspace / "a.txt").write_text("12345")
    (workspace / "l").symlink_to("a.txt")
    os.utime(workspace / "a.txt", (0, 0))
    size = "size: 5 bytes\nmodified: 1970-01-01T00:00:00+00:00"
    assert await call("file_info", path="a.txt") == Done(f"path: a.txt\ntype: file\n{size}")
    linked = Done(f"path: l\ntype: file (through a symbolic link)\n{size}")
    assert await call("file_info", path="l") == linked
    assert "type: directory" in (await call("file_info", path=".")).content


@pytest.mark.behaviour("tools:groups:workspace")
async def test_a_group_is_confined_to_its_own_workspace(call: Call, workspace: Path, sandbox: LocalSandbox) -> None:
    await sandbox.write("inner/a.txt", b"a")
    await sandbox.write("outer.txt", b"b")
    settings = {"workspace": "inner"}
    assert await call("read_file", path="a.txt", settings=settings) == Done("     1\ta")
    outside = Failed("'../outer.txt' is outside the workspace")
    assert await call("read_file", path="../outer.txt", settings=settings) == outside
    missing = await call("read_file", path="a.txt", settings={"workspace": "nowhere"})
    assert missing == Failed(f"the workspace {workspace}/nowhere is not a directory")
