"""A configuration value, as a task that remembers it."""

from __future__ import annotations

from typing import Any

from flux.engine.workflows.elsewhere import elsewhere
from flux.engine.workflows.journal import journal_here
from flux.engine.workflows.task import task
from flux.errors import InvalidInput


@task
async def get_config(name: str) -> Any:
    """The value of a config; the same again when the workflow goes on.

    :raises ConfigNotFound: it is not set
    :raises InvalidInput: outside a workflow
    """
    if (way := elsewhere()) is not None:
        return await way.ask("config", name=name)
    journal = journal_here()
    if journal is None:
        raise InvalidInput("get_config() works inside a workflow only")
    found = await journal.outside(journal.services.configs(journal.run.scope, [name]))
    return found[name]
