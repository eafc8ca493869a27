"""`flux schema`: schemas for editors."""

from __future__ import annotations

import click

from flux.surfaces.cli.options import (
    Commands,
    print_json,
)


@click.group(cls=Commands)
def schema() -> None:
    """Print a JSON Schema."""


@schema.command("agent")
def schema_agent() -> None:
    """The schema of an agent's YAML; editors complete from it."""
    from flux.agents.define.yaml import yaml_schema

    print_json(yaml_schema())
