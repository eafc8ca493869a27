"""The `flux` command: a tree of commands, each imported only when it is used."""

from __future__ import annotations

import gc
import importlib
import re
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import click

import flux
from flux import redaction
from flux.errors import FluxError, InvalidInput
from flux.suggest import unknown
from flux.surfaces.visible import visible

FAILED = 1
USAGE = 2
INTERRUPTED = 130
#: How click ends a message about a name it does not know.
GUESS = re.compile(r"\. \(?Did you mean(.*\?)\)?$")


class LazyGroup(click.Group):
    """A group in sections, whose commands are `module:attribute` with a line of help until they are needed."""

    def __init__(self, *args: Any, sections: dict[str, dict[str, tuple[str, str]]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._sections = sections
        self._lazy = {name: entry for section in sections.values() for name, entry in section.items()}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order they are told."""
        return list(self._lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in self._lazy:
            return None
        module, _, attribute = self._lazy[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; an unknown one is named with the nearest."""
        if args and args[0] not in self._lazy and not args[0].startswith("-"):
            ctx.fail(unknown("command", args[0], self._lazy))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The lists of commands, without importing them."""
        width = max(map(len, self._lazy))
        for title, section in self._sections.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), help_) for name, (_, help_) in section.items()])


CLI = "flux.surfaces.cli"


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    sections={
        "Agents": {
            "chat": (f"{CLI}.chat:chat", "Talk to an agent in this terminal."),
            "agent": (f"{CLI}.agent:agent", "Create, change and start agents."),
            "eval": (f"{CLI}.eval:evaluate", "Run cases against agents, and say which do as they should."),
            "memory": (f"{CLI}.memory:memory", "Look at what agents noted down, and forget it."),
            "schema": (f"{CLI}.schema:schema", "Print the JSON Schema of an agent's YAML."),
        },
        "Workflows and executions": {
            "workflow": (f"{CLI}.workflow:workflow", "Register workflows, run them, look at them."),
            "execution": (f"{CLI}.execution:execution", "Find executions, look at them, decide what they ask."),
            "schedule": (f"{CLI}.schedule:schedule", "Start workflows and agents at given times."),
            "config": (f"{CLI}.config:config", "Set and look up configuration values of workflows."),
            "secrets": (f"{CLI}.secrets:secrets", "Set and look up secrets of workflows."),
        },
        "Projects in Python": {
            "init": (f"{CLI}.init:init", "Write a project that runs."),
            "dev": (f"{CLI}.dev:dev", "Serve the agents and workflows of a project; reload on change."),
            "run": (f"{CLI}.run:run_workflow", "Run a workflow of the project."),
        },
        "Running a server": {
            "start": (f"{CLI}.start:start", "Start a server or a worker."),
            "server": (f"{CLI}.start:server", "Make a key for the first admin; also starts a server."),
            "worker": (f"{CLI}.worker:worker", "Start workers, see those there are, let one go."),
            "health": (f"{CLI}.doctor:health", "Ask a server whether it is well."),
            "doctor": (f"{CLI}.doctor:doctor", "Show what is configured, what is missing, how to fix it."),
            "db": (f"{CLI}.db:db", "Look at the database, bring it up to date, copy it."),
            "webhook": (f"{CLI}.webhook:webhook", "Tell other programs what becomes of sessions."),
            "trust": (f"{CLI}.trust:trust", "Allow this folder's flux.toml and .flux to be used."),
        },
        "Who may do what": {
            "auth": (f"{CLI}.auth:auth", "Log in at a server, and see who you are."),
            "principals": (f"{CLI}.principals:principals", "Say who may call a server with auth; make keys."),
            "roles": (f"{CLI}.roles:roles", "Say what principals may do."),
            "audit": (f"{CLI}.audit:audit", "See who decided, changed, started or read what."),
        },
    },
)
@click.version_option(flux.__version__, prog_name="flux")
@click.option("--debug", is_flag=True, help="Show the trace of an error.")
def cli(debug: bool) -> None:
    """Flux: LLM agents as durable resources."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 usage, 130 interrupted."""
    gc.set_threshold(20_000, 20, 50)  # what is loaded stays: looking through it as it grows costs a tenth of it
    args = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in args
    try:
        result = cli.main([arg for arg in args if arg != "--debug"], standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(USAGE)
    except click.ClickException as error:
        click.echo(f"Error: {_one_line(error)}", err=True)
        sys.exit(USAGE)
    except (KeyboardInterrupt, click.Abort):
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(FAILED)
    except Exception as error:  # noqa: BLE001 - the last handler: a person gets one line, --debug the trace
        if debug:
            click.echo(redaction.text(traceback.format_exc()), err=True, nl=False)
        click.echo(f"Error: {_said(error)}", err=True)
        sys.exit(USAGE if isinstance(error, InvalidInput) else FAILED)
    sys.exit(result if isinstance(result, int) else 0)


def _said(error: Exception) -> str:
    """What failed, in one line: by the caller's mistake, by what the machine refuses, or by a fault of ours."""
    if isinstance(error, FluxError):
        return visible(redaction.text(str(error)))
    if isinstance(error, OSError) and error.strerror:  # a full disk, a file that is not ours
        about = f" ({visible(str(error.filename))})" if error.filename else ""
        return f"the system refused: {error.strerror}{about}"
    return f"a fault in Flux ({redaction.text(f'{type(error).__name__}: {error}')}); --debug shows where"


def _one_line(error: click.ClickException) -> str:
    """What click says, in one line and in the words of Flux's own errors."""
    text = " ".join(error.format_message().split()).rstrip(".")
    text = GUESS.sub(r"; did you mean\1", text).replace("integer range", "whole number")
    if text[1:2].islower():  # not a name such as VALUE
        text = text[:1].lower() + text[1:]
    context = getattr(error, "ctx", None)
    if context is None:
        return text
    return f"{text}{' See' if text.endswith('?') else '; see'} `{context.command_path} --help`"
