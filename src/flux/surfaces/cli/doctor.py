"""`flux doctor` and `flux health`."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click

import flux
from flux.agents.define.memory import FIELD, with_subagents
from flux.errors import FluxError
from flux.settings import Settings
from flux.store.database import hide_password
from flux.surfaces.cli.connect import connect, live_server, run
from flux.surfaces.cli.options import format_option, print_json, server_option, settings_for


class Finding(NamedTuple):
    """One line of the report. `remedy` is empty when all is well."""

    what: str
    found: str
    ok: bool
    remedy: str = ""


@click.command()
@format_option()
@server_option
def doctor(format_: str, server: str | None) -> int:
    """What is configured, what is missing, how to fix it."""
    settings = settings_for(server)
    findings = [*_machine(settings), *_providers(settings), run(_server(settings)), *run(_memories(settings))]
    if format_ == "json":
        print_json([finding._asdict() for finding in findings])
    else:
        for finding in findings:
            click.echo(f"{'ok     ' if finding.ok else 'missing'}  {finding.what}: {finding.found}")
            if finding.remedy:
                click.echo(f"         {finding.remedy}")
    return 0 if all(finding.ok for finding in findings if finding.what in ("home", "server")) else 1


@click.command()
@format_option()
@server_option
def health(format_: str, server: str | None) -> None:
    """Ask the server in force whether it is well."""
    answer = run(_health(settings_for(server)))
    if format_ == "json":
        print_json(answer)
    else:
        click.echo(f"{answer['status']} (flux {answer['version']})")


async def _health(settings: Settings) -> dict[str, Any]:
    async with connect(settings, worker=False) as client:
        return await client.get("/ready")


def _machine(settings: Settings) -> Iterator[Finding]:
    yield Finding("flux", f"{flux.__version__} on Python {sys.version.split()[0]}", True)
    remedy = _home_problem(settings.home)
    yield Finding("home", str(settings.home), not remedy, remedy)
    path = shutil.which("rg")
    yield Finding("rg", path or "not found", path is not None, "" if path else "optional: install it for faster search")
    yield _sandbox(settings)


def _sandbox(settings: Settings) -> Finding:
    """Where agents act that name no sandbox."""
    from flux.sandboxes.factories import isolation_problem, processes_are_limited

    problem = isolation_problem()
    auto = settings.sandbox if settings.sandbox != "auto" else "local" if problem else "isolated"
    asks = "shell, write_file and edit_file ask first" if auto == "local" else "nothing asks first"
    found = f"{auto}, by setting" if settings.sandbox != "auto" else auto
    if problem:
        return Finding("sandbox", f"{found}; {asks}", False, f"optional: isolated cannot work here: {problem}")
    if not processes_are_limited():
        remedy = "a worker that is not root, on Linux 5.14 or later, also limits the processes of an isolated sandbox"
        return Finding("sandbox", f"{found}; {asks}", True, remedy)
    return Finding("sandbox", f"{found}; {asks}", True)


def _home_problem(home: Path) -> str:
    """Why the home cannot be used; empty when it can."""
    if home.exists() and not home.is_dir():
        return "this is a file; set FLUX_HOME to a directory you can write to"
    made = next(folder for folder in (home, *home.parents) if folder.exists())
    return "" if os.access(made, os.W_OK | os.X_OK) else "set FLUX_HOME to a directory you can write to"


def _providers(settings: Settings) -> Iterator[Finding]:
    from flux.models.registry import BUILT_IN, ModelRegistry, provider_settings

    try:
        registry = ModelRegistry(os.environ, provider_settings(settings.providers), keys=settings.keys)
    except FluxError as error:
        yield Finding("providers", "the settings cannot be used", False, str(error))
        return
    for name in (*BUILT_IN, *settings.providers):
        try:
            registry.check(f"{name}/any")
        except FluxError as error:
            yield Finding(f"provider {name}", "no key", False, str(error))
        else:
            found = "not asked: it needs no key" if name == "ollama" else "has a key"
            secret = settings.keys.get(name)
            yield Finding(f"provider {name}", f"its key is the secret {secret}" if secret else found, True)


async def _server(settings: Settings) -> Finding:
    configured = settings.server or live_server(settings.home)
    where = configured or f"embedded, database {hide_password(settings.database)}"
    try:
        async with connect(settings, worker=False) as client:
            await client.get("/ready")
    except FluxError as error:
        return Finding("server", where, False, str(error))
    return Finding("server", where, True)


async def _memories(settings: Settings) -> list[Finding]:
    """Long-term memories that the workers of several machines do not share."""
    if settings.database.startswith("sqlite:"):
        return []
    try:
        async with connect(settings, worker=False) as client:
            found = [row["name"] async for row in client.pages("/agents", limit=200) if _in_files(row["definition"])]
    except FluxError:
        return []  # said already
    remedy = (
        "each machine has a file of its own: leave provider and connection out of long_term_memory, or use postgresql"
    )
    return [Finding("memory for all workers", f"SQLite files of {', '.join(found)}", False, remedy)] if found else []


def _in_files(definition: dict[str, Any]) -> bool:
    return any((one.get(FIELD) or {}).get("provider") == "sqlite" for one in with_subagents(definition))
