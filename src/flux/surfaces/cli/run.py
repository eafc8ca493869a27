"""`flux run WORKFLOW`: a workflow of a project, on the project's server or in this process."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click

from flux.errors import InvalidInput
from flux.surfaces.cli.connect import connect, run
from flux.surfaces.cli.dev import home_in, project_option
from flux.surfaces.cli.options import format_option, server_option, settings_for
from flux.surfaces.cli.runs import show_execution, until_rest


@click.command("run")
@click.argument("workflow")
@click.option("--payload", default="null", metavar="JSON", help="What the workflow gets as ctx.payload.")
@click.option("--detach", is_flag=True, help="Do not wait for its end.")
@project_option
@server_option
@format_option()
def run_workflow(
    workflow: str, payload: str, detach: bool, project: Path | None, server: str | None, format_: str
) -> int:
    """Run a workflow of the project, workflows/WORKFLOW.py, and show its result."""
    try:
        given = json.loads(payload)
    except ValueError as error:
        raise InvalidInput(f"--payload is not JSON: {error}") from error
    root = (project or Path.cwd()).resolve()
    if not root.is_dir():
        raise InvalidInput(f"there is no folder {root}")
    os.chdir(root)
    home_in(root)
    return run(_run(server, root, workflow, given, detach=detach, format_=format_))


async def _run(server: str | None, root: Path, workflow: str, payload: Any, *, detach: bool, format_: str) -> int:
    async with connect(settings_for(server), project=root) as client:
        started = await client.post(f"/workflows/{workflow}", {"payload": payload})
        handle = client.execution(started["run_id"])
        row = await handle.info()
        if not detach:
            await until_rest(client, row | {"head": 1})
            row = await handle.info()
        return show_execution(row, format_)
