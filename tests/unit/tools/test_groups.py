from typing import Any

import pytest

from flux.errors import DefinitionInvalid
from flux.tools.groups import GROUPS, resolve
from flux.tools.shell import blocked_by
from flux.tools.workspace import DEFAULT_BLOCKLIST

ALL = [
    "shell", "read_file", "write_file", "edit_file", "file_info", "find_files", "grep", "list_directory",
    "directory_tree",
]  # fmt: skip


def names(*entries: Any) -> list[str]:
    return [tool.name for tool in resolve(entries)]


@pytest.mark.behaviour("tools:groups:names")
def test_groups_and_single_names() -> None:
    assert names("system_tools") == ALL
    assert names("files") == ALL[1:5]
    assert names("read_file", {"shell": None}, {"search": {}}, "ask_user", "web_fetch") == [
        "read_file", "shell", "find_files", "grep", "ask_user", "web_fetch",
    ]  # fmt: skip
    assert names("read_file", "files", "files") == ALL[1:5]
    assert names() == []
    assert set(GROUPS) == {"system_tools", "shell", "files", "search", "directory", "workspace"}


@pytest.mark.behaviour("tools:groups:effects")
def test_effects() -> None:
    effects = {tool.name: tool.effect for tool in resolve(["system_tools", "ask_user"])}
    other = {"shell": "once", "edit_file": "once", "write_file": "idempotent", "ask_user": "idempotent"}
    assert effects == {**dict.fromkeys(ALL, "read"), **other}


def read_timeout(*entries: Any) -> float | None:
    return next(tool.timeout for tool in resolve(entries) if tool.name == "read_file")


@pytest.mark.behaviour("tools:groups:precedence")
def test_the_later_configured_group_wins_and_a_bare_name_never_does() -> None:
    five, six = {"files": {"timeout": 5}}, {"system_tools": {"timeout": 6}}
    assert read_timeout(five, six) == 6
    assert read_timeout(six, five) == 5
    assert read_timeout(five, "read_file", "files", "system_tools") == 5
    assert read_timeout("read_file", "files", five) == 5
    assert names("read_file", six) == ["read_file", "shell", *ALL[2:]]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("read_fil", r"unknown tool or group 'read_fil'; did you mean 'read_file'\? \(valid: system_tools, "),
        ("zzz", "unknown tool or group 'zzz'; valid: ask_user, catalog, directory, directory_tree"),
        ({"fils": {}}, "did you mean 'files'"),
        ({"files": {"workspce": "."}}, r"unknown files setting 'workspce'; did you mean 'workspace'\?"),
        ({"files": {"timeout": "long"}}, r"files: Expected `float`, got `str` - at `\$.timeout`"),
        ({"files": {"timeout": 0}}, "files: Expected `float` > 0"),
        ({"files": 5}, "the settings of files must be a mapping"),
        ({"system_tools": None, "workspace": "x"}, "indent workspace below system_tools"),
        ({"read_file": {}}, "read_file takes no settings"),
        ({"files": {"requires_approval": ["write_fil"]}}, "unknown tool 'write_fil'; did you mean 'write_file'"),
        ({}, "an entry is a name or a mapping of one group"),
        (5, "an entry is a name or a mapping of one group"),
        ({"file": "./tools.py"}, "a file of tools belongs to a stored agent"),
    ],
)
@pytest.mark.behaviour("tools:groups:invalid")
def test_mistakes_are_named(entry: Any, message: str) -> None:
    with pytest.raises(DefinitionInvalid, match=message):
        resolve([entry])


@pytest.mark.behaviour("tools:groups:approval")
def test_approval_is_for_all_tools_or_those_named() -> None:
    def asking(setting: Any) -> list[str]:
        return [tool.name for tool in resolve([{"files": {"requires_approval": setting}}]) if tool.requires_approval]

    assert asking(False) == []
    assert asking(["write_file", "edit_file"]) == ["write_file", "edit_file"]
    assert asking(True) == ALL[1:5]


@pytest.mark.behaviour("tools:groups:approval-by-sandbox")
def test_by_default_what_can_change_the_host_asks_first() -> None:
    def asking(sandbox: str, *entries: Any) -> list[str]:
        return [tool.name for tool in resolve(entries, sandbox=sandbox) if tool.requires_approval]

    asks = ["shell", "write_file", "edit_file"]
    for entries in (["system_tools"], [{"system_tools": {"timeout": 5}}], ["ask_user", *ALL]):
        assert asking("local", *entries) == asks
        assert asking("isolated", *entries) == []
        assert asking("virtual", *entries) == []
    named: dict[str, Any] = {"system_tools": {"requires_approval": ["grep"]}}
    assert asking("local", named) == asking("isolated", named) == ["grep"]
    assert asking("local", {"shell": {"requires_approval": False}}) == []
    assert asking("isolated", {"shell": {"requires_approval": True}}) == ["shell"]
    (shell,) = resolve(["shell"], sandbox="isolated")
    assert "`isolated`" in shell.description


def test_the_shell_says_where_it_runs() -> None:
    (tool,) = resolve(["shell"], sandbox="isolated")
    assert "`isolated`" in tool.description
    assert "30 seconds" in tool.description


@pytest.mark.parametrize(
    ("command", "blocked"),
    [
        ("sudo ls", "sudo"),
        ("ls;sudo ls", "sudo"),
        ("echo pseudo sudoku", None),
        ("rm  -rf   /", "rm -rf /"),
        ("rm -rf /; ls", "rm -rf /"),
        ("rm -rf /*", "rm -rf /"),
        ("rm -rf /tmp/x", None),
        ("mkfs.ext4 /dev/sda1", "mkfs.ext4"),
        (":(){ :|:& };:", ":(){ :|:& };:"),
        ("git commit -m 'fix'", None),
    ],
)
@pytest.mark.behaviour("tools:shell:blocklist")
def test_the_blocklist_is_about_whole_words(command: str, blocked: str | None) -> None:
    assert blocked_by(command, DEFAULT_BLOCKLIST) == blocked
