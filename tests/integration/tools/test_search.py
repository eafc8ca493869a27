import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from flux.sandboxes.base import HostSandbox
from flux.sandboxes.host import LocalSandbox
from flux.tools.base import Done, Failed, ToolContext
from flux.tools.groups import resolve

Call = Callable[..., Awaitable[Done | Failed]]
Grep = Callable[..., Awaitable[Done | Failed]]


def grep_in(sandbox: LocalSandbox, timeout: float = 30) -> Grep:
    """The tool grep in a sandbox."""
    tool = next(tool for tool in resolve([{"search": {"timeout": timeout}}]) if tool.name == "grep")

    async def grep(**args: str) -> Done | Failed:
        outcome = await tool.run(args, ToolContext("s", "c", sandbox, output=lambda text: None))
        assert isinstance(outcome, Done | Failed)
        return outcome

    return grep


@pytest.fixture
def by_python(workspace: Path) -> Grep:
    return grep_in(LocalSandbox(workspace, {"PATH": "/nonexistent"}))


@pytest.fixture
def by_ripgrep(workspace: Path, require_tool: Callable[[str], str]) -> Grep:
    return grep_in(LocalSandbox(workspace, {"PATH": os.path.dirname(require_tool("rg"))}))


FILES = {
    "a.py": b"import os\nprint('hello')\n",
    "a/b.py": "# grüße\nhello = 'Hello'\r\nhello again\r\n".encode(),
    "a.b/c.txt": b"hello at the end without newline",
    "a-b.txt": b"\n\nhello\n\n",
    "deep/er/est/x.py": b"hello: " + b"x" * 6_000 + b"\nhello 2\n",
    "latin.txt": b"caf\xe9 hello\n",
    "utf16.txt": "hello".encode("utf-16"),
    "binary.bin": b"hello\0hello\n",
    "bom.txt": b"\xef\xbb\xbfhello\n",
    ".hidden/x": b"hello\n",
    ".gitignore": b"*.py\n",
    ".git/config": b"hello\n",
    "sub/node_modules/x.js": b"hello\n",
    ".venv/x.py": b"hello\n",
    "sub/x.js": b"say('hello')\n",
    "tab\tand space.txt": b"hello\n",
    "odd/!a {b}[c]*? \\ü ": b"hello odd\n",
    "odd/aab": b"hello\n",
}


def fill(workspace: Path) -> None:
    for name, data in FILES.items():
        (workspace / name).parent.mkdir(parents=True, exist_ok=True)
        (workspace / name).write_bytes(data)
    outside = workspace.parent / "outside"
    outside.mkdir()
    (outside / "x.txt").write_text("hello\n")
    (workspace / "link").symlink_to(outside)
    (workspace / "link.txt").symlink_to(outside / "x.txt")
    (workspace / "inner").symlink_to("a")
    (workspace / "odd/short").symlink_to("aab")


@pytest.mark.behaviour("tools:search:grep")
async def test_matching_lines_come_with_path_and_number(by_python: Grep, workspace: Path) -> None:
    fill(workspace)
    assert await by_python(pattern=r"hello$", include="*.{py,txt}") == Done(
        "a-b.txt:3:hello\nbom.txt:1:hello\nlatin.txt:1:caf\ufffd hello\ntab\\tand space.txt:1:hello\n"
        "utf16.txt:1:hello\n[5 matching lines in 5 files]"
    )
    assert await by_python(pattern="hello", path="a/b.py") == Done(
        "a/b.py:2:hello = 'Hello'\na/b.py:3:hello again\n[2 matching lines in 1 files]"
    )
    assert await by_python(pattern="nothing like it") == Done("no matches")
    everything = (await by_python(pattern="hello")).content
    for skipped in (".git/", "node_modules", ".venv", "binary", "link"):
        assert skipped not in everything


@pytest.mark.parametrize(
    "args",
    [
        {"pattern": "hello"},
        {"pattern": "^hello$"},
        {"pattern": "(?i)HELLO"},
        {"pattern": r"\bhello\b.*\d"},
        {"pattern": "^$"},
        {"pattern": "gr.ße"},
        {"pattern": r"'(hello|Hello)'"},
        {"pattern": "-e"},
        {"pattern": "nothing like it"},
        {"pattern": r"(h)ello.*\1"},
        {"pattern": "(?<=say\\(')hello"},
        {"pattern": "hello", "path": "a"},
        {"pattern": "hello", "path": "./a/../a/"},
        {"pattern": "hello", "path": "inner"},
        {"pattern": "hello", "path": "sub/node_modules"},
        {"pattern": "hello", "path": "a/b.py"},
        {"pattern": "hello", "path": "binary.bin"},
        {"pattern": "hello", "path": "utf16.txt"},
        {"pattern": "hello", "path": "bom.txt"},
        {"pattern": "hello", "path": "sub/node_modules/x.js"},
        {"pattern": "hello", "path": ".git/config"},
        {"pattern": "hello", "path": "odd/!a {b}[c]*? \\ü "},
        {"pattern": "hello", "path": "odd/short"},
        {"pattern": "hello", "path": "a/b.py", "include": "*.txt"},
        {"pattern": "hello", "include": "*.py"},
        {"pattern": "hello", "include": "a/**/*.py"},
        {"pattern": "hello", "include": "*.{js,txt}"},
        {"pattern": "$(touch owned)`touch owned`'\";touch owned"},
    ],
    ids=str,
)
@pytest.mark.behaviour("tools:search:same-with-ripgrep")
async def test_the_answer_is_the_same_with_and_without_ripgrep(
    by_python: Grep, by_ripgrep: Grep, workspace: Path, args: dict[str, str]
) -> None:
    fill(workspace)
    with_ripgrep = await by_ripgrep(**args)
    assert with_ripgrep == await by_python(**args)
    assert not (workspace / "owned").exists()
    assert isinstance(with_ripgrep, Done)


@pytest.mark.behaviour("tools:search:capped")
async def test_many_matches_are_capped_with_the_total(by_python: Grep, workspace: Path, call: Call) -> None:
    for number in range(2_000):
        (workspace / f"{number % 20:02}").mkdir(exist_ok=True)
        (workspace / f"{number % 20:02}/{number:04}.txt").write_text("hello\n")
    found = (await by_python(pattern="hel+o")).content.split("\n")
    assert len(found) == 201
    assert found[0] == "00/0000.txt:1:hello"
    assert found[-1] == "[2000 matching lines in 2000 files; the first 200 are shown]"
    listed = (await call("find_files", pattern="*.txt")).content.split("\n")
    assert len(listed) == 501
    assert listed[-1] == "[500 of 2000 files are shown]"


async def test_many_matches_are_capped_the_same_by_ripgrep(by_python: Grep, by_ripgrep: Grep, workspace: Path) -> None:
    for number in range(300):
        (workspace / f"{number}.txt").write_text("hello\nhello\n")
    assert await by_ripgrep(pattern="h") == await by_python(pattern="h")


@pytest.mark.behaviour("tools:search:bad-pattern")
async def test_a_bad_pattern_is_a_clear_failure(by_python: Grep) -> None:
    for pattern in ("(", "[", "*", "x" * 2_000):
        outcome = await by_python(pattern=pattern)
        assert isinstance(outcome, Failed)
        assert outcome.content.startswith("the pattern cannot be used: ")
    assert await by_python(pattern="x", path="missing") == Failed("missing: no such file or directory")
    assert await by_python(pattern="x", path="..") == Failed("'..' is outside the workspace")


@pytest.mark.behaviour("tools:search:hostile-pattern")
async def test_a_hostile_pattern_times_out_and_the_event_loop_runs_on(workspace: Path) -> None:
    (workspace / "a.txt").write_text("a" * 60 + "b")
    grep = grep_in(LocalSandbox(workspace, {"PATH": "/nonexistent"}), timeout=0.5)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.create_task(count())
    outcome = await grep(pattern="(a|aa)+$")
    counting.cancel()
    message = "not finished after 0.5 seconds; search less, or use a simpler pattern"
    assert outcome == Failed(message, timeout=True)
    assert turns > 100


@pytest.mark.behaviour("tools:search:find")
async def test_files_are_found_by_glob(call: Call, workspace: Path) -> None:
    fill(workspace)
    assert await call("find_files", pattern="*.py") == Done("a/b.py\na.py\ndeep/er/est/x.py")
    assert await call("find_files", pattern="d*/**/x.*") == Done("deep/er/est/x.py")
    assert await call("find_files", pattern="*.py", path="deep/er") == Done("deep/er/est/x.py")
    assert await call("find_files", pattern="*.rs") == Done("no files found")
    assert await call("find_files", pattern="*", path="link") == Failed("'link' is outside the workspace")
    assert await call("find_files", pattern="{a,b}" * 20) == Failed("the pattern has more than 200 alternatives")


@pytest.mark.behaviour("tools:search:large-file")
async def test_without_ripgrep_a_large_file_is_refused_or_left_out_and_never_read(
    by_python: Grep, workspace: Path
) -> None:
    (workspace / "log").write_bytes(b"hello\n")
    with (workspace / "log").open("r+b") as file:
        file.truncate(1 << 40)
    (workspace / "small").write_text("hello\n")
    refused = "log has more than 20,000,000 bytes; searching it needs ripgrep (rg) on the host"
    assert await by_python(pattern="hello", path="log") == Failed(refused)
    left_out = "[1 files of more than 20,000,000 bytes were not searched]"
    found = Done(f"small:1:hello\n[1 matching lines in 1 files]\n{left_out}")
    assert await by_python(pattern="hello") == found
    assert await by_python(pattern="bye") == Done(f"no matches {left_out}")


@pytest.mark.behaviour("tools:search:large-file")
async def test_one_large_file_is_searched_by_ripgrep_and_not_read(
    by_ripgrep: Grep, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = b"nothing to see here\n" * 1_000
    (workspace / "log").write_bytes(line * 1_500 + b"hello\n")

    async def read(self: LocalSandbox, path: str, **_: object) -> bytes:
        raise AssertionError(f"{path} was read")

    monkeypatch.setattr(LocalSandbox, "read", read)
    found = Done("log:1500001:hello\n[1 matching lines in 1 files]")
    assert await by_ripgrep(pattern="hello", path="log") == found


class Bare:
    """A local sandbox reduced to what every sandbox can do."""

    def __init__(self, sandbox: LocalSandbox) -> None:
        self.name, self.cwd = "bare", sandbox.cwd
        self.exec, self.read, self.write, self.stat = sandbox.exec, sandbox.read, sandbox.write, sandbox.stat
        self.list, self.exists, self.mkdir, self.remove = (
            sandbox.list, sandbox.exists, sandbox.mkdir, sandbox.remove,
        )  # fmt: skip
        self.close = sandbox.close


@pytest.mark.behaviour("tools:search:any-sandbox")
async def test_any_sandbox_can_be_searched(sandbox: LocalSandbox, by_python: Grep, call: Call, workspace: Path) -> None:
    fill(workspace)
    bare = Bare(sandbox)
    assert not isinstance(bare, HostSandbox)
    context = ToolContext("s", "c", bare, output=lambda text: None)
    tools = {tool.name: tool for tool in resolve(["system_tools"])}
    assert await tools["grep"].run({"pattern": "hello"}, context) == await by_python(pattern="hello")
    for name, args in (("find_files", {"pattern": "*"}), ("directory_tree", {"max_depth": 9})):
        assert await tools[name].run(args, context) == await call(name, **args)
    edit = {"path": "a.py", "old_string": "os", "new_string": "sys"}
    assert await tools["edit_file"].run(edit, context) == Done("a.py: 1 replaced, line 1")
