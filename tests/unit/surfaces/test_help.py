"""The help of the command line: every command and option is told, in words, and nothing is cut."""

import asyncio
import errno
import os
import shlex
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import click
import pytest
from click.testing import CliRunner

from flux.surfaces.cli.main import cli, main
from flux.surfaces.cli.rows import first


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from commands(inner, (*path, name))


ALL = dict(commands(cli))
GROUPS = [path for path, command in ALL.items() if isinstance(command, click.Group)]


@pytest.mark.behaviour("cli:help:complete")
@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_and_option_is_told(path: tuple[str, ...]) -> None:
    command = ALL[path]
    assert command.help
    for option in command.params:
        if isinstance(option, click.Option) and not option.hidden:
            assert option.help, option.opts
            words = option.is_flag or option.metavar or isinstance(option.type, click.Choice | click.Path)
            assert words or option.type is click.INT, option.opts


@pytest.mark.behaviour("cli:help:complete")
@pytest.mark.parametrize("path", GROUPS, ids=" ".join)
def test_a_group_tells_each_command_in_a_whole_sentence(path: tuple[str, ...]) -> None:
    said = CliRunner().invoke(cli, [*path, "--help"]).output
    assert "..." not in said.replace("[ARGS]...", "")
    for inner in (found for found in ALL if found[:-1] == path and found):
        assert f"\n  {inner[-1]} " in said


async def numbers(to: int) -> AsyncGenerator[dict[str, Any], None]:
    for number in range(to):
        yield {"number": number}


@pytest.mark.behaviour("cli:lists:more")
@pytest.mark.parametrize(("rows", "said"), [(2, ""), (3, ""), (4, "There are more than 3; --limit N shows more.\n")])
def test_a_list_that_was_cut_says_so(rows: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(asyncio.run(first(3, numbers(rows)))) == min(rows, 3)
    assert capsys.readouterr().err == said


@pytest.mark.behaviour("cli:help:remedies")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["schedule", "create", "s", "--every", "5m"], "say what to start: --workflow or --agent"),
        (["schedule", "create", "s", "--agent", "a", "--message", "b"], "say when, once: --cron, --every or --at"),
        (["schedule", "create", "s", "--agent", "a", "--every", "5m"], "say what the agent is told: --message"),
        (["agent", "create", "x", "--system-prompt", "y"], "an agent needs a model: give --model"),
        (["agent", "list", "--server", "nonsense"], "the server 'nonsense' must be an address such as http://"),
        (["workflow", "run", "w", "@/no/file"], "cannot read /no/file: No such file or directory\n"),
    ],
)
def test_what_is_missing_is_told_in_the_words_of_the_command(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith(f"Error: {said}")


@pytest.mark.behaviour("cli:help:remedies")
def test_what_the_machine_refuses_is_no_fault_of_flux(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(cli, "main", full)
    with pytest.raises(SystemExit) as stop:
        main(["schema", "agent"])
    assert (stop.value.code, capsys.readouterr().err) == (1, "Error: the system refused: No space left on device\n")


@pytest.mark.behaviour("cli:help:complete")
@pytest.mark.parametrize("path", [path for path, command in ALL.items() if command.epilog], ids=" ".join)
def test_the_examples_of_a_command_are_calls_of_it(path: tuple[str, ...]) -> None:
    examples = (ALL[path].epilog or "").partition("Examples:\n")[2].splitlines()
    assert examples
    for example in examples:
        words = shlex.split(example.rpartition(" | ")[2].partition(" > ")[0])
        assert words[0] == "flux"
        named = max((one for one in ALL if tuple(words[1 : 1 + len(one)]) == one), key=len)
        ALL[named].make_context(" ".join(named), words[1 + len(named) :], resilient_parsing=True)
