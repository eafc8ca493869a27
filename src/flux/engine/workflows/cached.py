"""Results of tasks that are kept beyond their execution."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from flux.engine.encoding.values import encode_value
from flux.engine.workflows.journal import Journal
from flux.engine.workflows.options import Called
from flux.store import cache


async def find(journal: Journal, called: Called) -> Any:
    """The kept result of the same call, as it is stored; None when there is none."""
    run = journal.run
    return await journal.outside(run.database.read(cache.get(run.scope, _key(journal, called))))


async def remember(journal: Journal, called: Called, value: Any) -> None:
    """Keep a result for every later call with the same arguments."""
    run = journal.run
    await journal.outside(run.database.write(cache.put(run.scope, _key(journal, called), value)))


def _key(journal: Journal, called: Called) -> str:
    same = [journal.run.execution.workflow, called.name, encode_value(dict(called.arguments))]
    return hashlib.sha256(msgspec.json.encode(same, order="deterministic")).hexdigest()
