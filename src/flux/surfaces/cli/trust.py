"""`flux trust`: allow what a folder brings along."""

from __future__ import annotations

import os
from pathlib import Path

import click

from flux.errors import InvalidInput
from flux.surfaces.cli.options import printable
from flux.trust import trust as allow


@click.command()
def trust() -> None:
    """Allow this folder's flux.toml, as it is now, and its .flux to be used."""
    here = Path.cwd()
    found = [path for path in (here / "flux.toml", here / ".flux") if path.exists()]
    if not found:
        raise InvalidInput(f"there is neither a flux.toml nor a .flux in {here}")
    for path in found:
        if path.is_file():
            for line in path.read_text(errors="replace").splitlines():
                click.echo(f"  {printable(line)}")
        try:
            allow(os.environ, path)
        except OSError as error:
            raise InvalidInput(f"cannot remember that: {error}") from error
        click.echo(f"Trusted {path}.")
