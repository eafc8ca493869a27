"""Telling how far a task is."""

from __future__ import annotations

from typing import Any

from flux.engine.encoding.values import json_value
from flux.engine.workflows.elsewhere import elsewhere
from flux.engine.workflows.journal import journal_here
from flux.engine.workflows.place import here


async def progress(value: Any) -> None:
    """Show a value to whoever watches the execution; it is not kept. Outside a workflow nothing happens."""
    if (way := elsewhere()) is not None:
        await way.ask("progress", value=json_value(value))
        return
    journal, place = journal_here(), here()
    if journal is None or place is None:
        return
    call, name = (place.body.call, place.body.name) if place.body else (journal.run.id, "")
    journal.show(json_value(value), call, name)
