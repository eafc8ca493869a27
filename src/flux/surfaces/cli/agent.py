"""`flux agent`: create, change, look at and start agents."""

from __future__ import annotations

import os
from contextlib import aclosing
from pathlib import Path
from typing import Any

import click

from flux.client.agents import AgentsClient
from flux.errors import AgentNotFound, InvalidInput, Unauthorized
from flux.surfaces.cli.connect import connect, run
from flux.surfaces.cli.find import find_session
from flux.surfaces.cli.options import (
    MODEL,
    Command,
    Commands,
    examples,
    format_option,
    limit_option,
    print_json,
    print_table,
    server_option,
    settings_for,
    when,
)
from flux.surfaces.cli.rows import asked, first, listed
from flux.surfaces.cli.session import session
from flux.surfaces.terminal.problems import page_problem, start_problem

FIELDS = (
    click.option("--file", "file", type=click.Path(exists=True, path_type=Path), help="A YAML file, or a directory."),
    click.option("--model", metavar=MODEL, help="The model, such as openai/gpt-5.1."),
    click.option("--system-prompt", metavar="TEXT", help="The instructions."),
    click.option(
        "--system-prompt-file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="A file with the instructions.",
    ),
    click.option("--description", metavar="TEXT", help="What the agent is for."),
    click.option("--tools", multiple=True, metavar="NAME", help="A tool or group of tools; may be repeated."),
    click.option("--tools-file", type=click.Path(), help="A Python file: its top-level @task functions are tools."),
    click.option("--workflow-file", type=click.Path(), help="A Python file whose workflow talks for the agent."),
    click.option("--mcp-server", "mcp_servers", multiple=True, metavar="URL", help="An MCP server; may be repeated."),
    click.option("--skills-dir", type=click.Path(), help="A directory of skills; they are stored with the agent."),
    click.option("--strict", is_flag=True, help="Refuse skills that break the published rules."),
    click.option("--planning/--no-planning", default=None, help="Let the agent make plans and work by them."),
    click.option("--max-tool-calls", type=int, metavar="N", help="Answers of one run that may call tools."),
    click.option("--max-tokens", type=int, metavar="N", help="Longest visible answer, in tokens."),
    click.option(
        "--reasoning-effort",
        type=click.Choice(["low", "medium", "high"]),
        help="How long a model that can reason does so.",
    ),
)


def field_options(command: Command) -> Command:
    """One option per field that has one; flags win over the file."""
    for option in reversed(FIELDS):
        command = option(command)
    return command


@click.group(cls=Commands)
def agent() -> None:
    """Create, change and start agents."""


agent.add_command(session)


@agent.command(
    epilog=examples(
        "flux agent create helper --model openai/gpt-5.1 --system-prompt 'You help.' --tools system_tools",
        "flux agent create helper --file agent.yaml --tools-file tools.py",
    )
)
@click.argument("name")
@field_options
@format_option()
@server_option
def create(name: str, format_: str, server: str | None, **flags: Any) -> None:
    """Store a new agent."""
    fields = {"name": name} | _fields(flags) | {"name": name}
    if "system_prompt" not in fields:
        raise InvalidInput("an agent needs instructions: give --system-prompt, --system-prompt-file or --file")
    if "model" not in fields:
        raise InvalidInput("an agent needs a model: give --model, such as scripted/demo, or --file")
    _report("Created", run(_send(server, "POST", "/agents", fields)), format_)


@agent.command()
@click.argument("name")
@field_options
@format_option()
@server_option
def update(name: str, format_: str, server: str | None, **flags: Any) -> None:
    """Change an agent; fields that are not given are kept."""
    _report("Updated", run(_update(server, name, _fields(flags))), format_)


@agent.command()
@click.argument("file", type=click.Path(exists=True, path_type=Path))
@click.option("--strict", is_flag=True, help="Refuse skills that break the published rules.")
@format_option()
@server_option
def apply(file: Path, strict: bool, format_: str, server: str | None) -> None:
    """Create or update the agent that FILE describes."""
    from flux.agents.define.yaml import define_from

    definition = define_from(file, os.environ, strict=strict, warn=_warn)
    fields = definition.model_dump(mode="json", exclude_unset=True)
    _report("Applied", run(_send(server, "PUT", f"/agents/{definition.name}?create=true", fields)), format_)


@agent.command("list")
@limit_option()
@format_option()
@server_option
def list_agents(limit: int, format_: str, server: str | None) -> None:
    """List the agents."""
    found = run(listed(server, "/agents", limit))
    if format_ == "json":
        print_json(found)
        return
    rows = [
        (row["name"], row["version"], row["definition"]["model"], row["definition"].get("description") or "")
        for row in found
    ]
    print_table(("NAME", "VERSION", "MODEL", "DESCRIPTION"), rows, "No agents yet; `flux agent create` makes one.")


version_option = click.option("--version", type=click.IntRange(1), metavar="N", help="A version other than the newest.")


@agent.command()
@click.argument("name")
@limit_option()
@format_option()
@server_option
def versions(name: str, limit: int, format_: str, server: str | None) -> None:
    """List the versions of an agent, newest first."""
    found = run(asked(server, AgentsClient, lambda agents: first(limit, agents.versions(name))))
    if format_ == "json":
        print_json(found)
        return
    rows = [(row["version"], row["digest"], row["author"], when(row["created_at"])) for row in found]
    print_table(("VERSION", "DIGEST", "AUTHOR", "CREATED"), rows, "No versions.")


@agent.command(epilog=examples("flux agent show helper --version 2"))
@click.argument("name")
@version_option
@click.option("--effective", is_flag=True, help="Also what is not given: every field with its value in force.")
@format_option("yaml")
@server_option
def show(name: str, version: int | None, effective: bool, format_: str, server: str | None) -> None:
    """Show an agent; of skills and tool files only the digests, `export` prints them whole."""
    from flux.agents.define.definition import AgentDefinition
    from flux.agents.define.shipped import digests
    from flux.agents.define.yaml import overview

    found = run(_get(server, name, version))
    definition = AgentDefinition.model_validate(found["definition"])
    if format_ == "json":
        found |= {"definition": definition.model_dump(mode="json")} if effective else {}
        print_json(found | {"digests": digests(definition)})
        return
    click.echo(f"# version {found['version']}, digest {found['digest']}, {when(found['created_at'])}")
    for problem in (*found["problems"], *found.get("notes", ())):
        click.echo(f"# {problem}")
    if effective:
        for tool, permission in found.get("withheld", {}).items():
            click.echo(f"# {tool} is not offered to you: it needs the permission {permission}")
        definition = AgentDefinition.model_validate(definition.model_dump())
    click.echo(overview(definition), nl=False)


@agent.command(epilog=examples("flux agent export helper > agent.yaml"))
@click.argument("name")
@version_option
@click.option("--agent", "which", metavar="NAME", help="Of a runtime in code: which of its agents.")
@server_option
def export(name: str, version: int | None, which: str | None, server: str | None) -> None:
    """Print an agent as YAML that `apply` takes; NAME may be the `module:attribute` of a runtime in code."""
    from flux.agents.define.definition import AgentDefinition
    from flux.agents.define.yaml import to_yaml

    if ":" in name:
        from flux.surfaces.cli.coded import exported

        click.echo(exported(name, which), nl=False)
        return
    if which is not None:
        raise InvalidInput("--agent chooses an agent of a runtime in code: give its module:attribute")
    found = run(_get(server, name, version))
    click.echo(to_yaml(AgentDefinition.model_validate(found["definition"])), nl=False)


@agent.command()
@click.argument("name")
@server_option
def delete(name: str, server: str | None) -> None:
    """Delete an agent; its sessions go on."""
    run(_send(server, "DELETE", f"/agents/{name}"))
    click.echo(f"Deleted agent {name}.")


@agent.command(epilog=examples("flux agent start helper --mode web", "echo 'What is new?' | flux agent start helper"))
@click.argument("name")
@click.option("--mode", type=click.Choice(["terminal", "web", "api"]), default="terminal", show_default=True,
              help="Talk here, on a page of this machine, or serve it to programs.")  # fmt: skip
@click.option("--session", "session_id", metavar="ID", help="Go on with a session.")
@click.option("--model", metavar=MODEL, help="Use this model.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    default=8080,
    show_default=True,
    help="With web and api; 0: any.",
)
@click.option(
    "--host",
    metavar="ADDRESS",
    default="127.0.0.1",
    show_default=True,
    help="With web and api: the address to listen on.",
)
@click.option("--allow-remote", is_flag=True, help="Allow an address that other machines can reach.")
@server_option
def start(name: str, mode: str, session_id: str | None, model: str | None, server: str | None, **where: Any) -> int:
    """Talk to an agent, here or on a page, or serve it over HTTP."""
    try:
        if mode == "web":
            from flux.surfaces.cli.page import Shown, page

            return page(settings_for(server), Shown(name, session_id, model), **where)
        if mode == "api":
            from flux.surfaces.cli.api import serve

            return serve(settings_for(server), name, session_id, model, **where)
        return run(_talk(server, name, session_id, model))
    except Unauthorized as error:
        click.echo(page_problem(error) if mode == "web" else start_problem(error), err=True)
        return 1


@agent.command()
@click.argument("session_id", metavar="SESSION")
@server_option
def stop(session_id: str, server: str | None) -> None:
    """End a session for good."""
    click.echo(f"Stopped session {run(_stop(server, session_id))}.")


def _fields(flags: dict[str, Any]) -> dict[str, Any]:
    """The fields that were given: those of the file, then the flags; what they name is read."""
    from flux.agents.define.files import inline
    from flux.agents.define.yaml import load_fields

    strict = flags.pop("strict")
    file, prompt_file = flags.pop("file"), flags.pop("system_prompt_file")
    if prompt_file and flags["system_prompt"] is not None:
        raise click.UsageError("give --system-prompt or --system-prompt-file, not both")
    if prompt_file:
        flags["system_prompt"] = prompt_file.read_text()
    given = {name: value for name, value in flags.items() if value not in (None, ())}
    given |= {name: list(value) for name, value in given.items() if isinstance(value, tuple)}
    given |= {"mcp_servers": [{"url": url} for url in given["mcp_servers"]]} if "mcp_servers" in given else {}
    given = inline(given, Path(), strict=strict, warn=_warn)
    return (load_fields(file, os.environ, strict=strict, warn=_warn) if file else {}) | given


def _warn(warning: str) -> None:
    click.echo(f"Note: {warning}", err=True)


async def _send(server: str | None, method: str, path: str, body: Any = None) -> dict[str, Any]:
    async with connect(settings_for(server), worker=False) as client:
        return await client.request(method, path, body)


async def _get(server: str | None, name: str, version: int | None) -> dict[str, Any]:
    """The newest version of an agent, or an earlier one."""
    async with connect(settings_for(server), worker=False) as client:
        if version is None:
            return await AgentsClient(client).get(name)
        async with aclosing(AgentsClient(client).versions(name)) as rows:
            async for row in rows:
                if row["version"] == version:
                    return row
        raise AgentNotFound(f"agent {name!r} has no version {version}; `flux agent versions {name}` lists them")


async def _stop(server: str | None, given: str) -> str:
    async with connect(settings_for(server), worker=False) as client:
        id = await find_session(client, given)
        await client.post(f"/sessions/{id}/stop")
        return id


async def _update(server: str | None, name: str, fields: dict[str, Any]) -> dict[str, Any]:
    async with connect(settings_for(server), worker=False) as client:
        before = (await client.get(f"/agents/{name}"))["definition"]
        if "skills" in fields:
            before.pop("skills_dir", None)
        return await client.put(f"/agents/{name}", before | fields | {"name": name})


async def _talk(server: str | None, name: str, session_id: str | None, model: str | None) -> int:
    from flux.surfaces.cli.chat import Talk, talk

    settings = settings_for(server)
    async with connect(settings) as client:
        session = await find_session(client, session_id) if session_id else None
        return await talk(client, settings, Talk(agent=name, session=session, model=model))


def _report(done: str, found: dict[str, Any], format_: str) -> None:
    if format_ == "json":
        print_json(found)
        return
    click.echo(f"{done} agent {found['name']} (version {found['version']}).")
    for problem in found["problems"]:
        click.echo(f"Note: {problem}", err=True)
