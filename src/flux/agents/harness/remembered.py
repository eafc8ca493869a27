"""What tasks that do something in a session are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from flux.agents.code.errors import AbortError
from flux.agents.code.outcome import CANCELLED, Outcome
from flux.agents.harness.commands import Command, CommandRun
from flux.agents.turn.kits import Given
from flux.engine.running.run import Executor, Run
from flux.engine.workflows.journal import Journal
from flux.engine.workflows.place import Body, here
from flux.errors import InvalidInput
from flux.events import Stored, UserSaid
from flux.sandboxes.base import Sandbox, ShellResult
from flux.store import log
from flux.store.executions import Spent


class Commanding:
    """Runs a command in a driven session."""

    said: UserSaid

    def __init__(self, command: Command, given: Given, sandbox: Sandbox, settle: Executor) -> None:
        self._command = command
        self._given = given
        self._sandbox = sandbox
        self._settle = settle
        self._inner: CommandRun | None = None

    async def __call__(self, run: Run) -> None:
        """Run it; the second time, after something broke, only end what was begun."""
        if self._inner is not None:
            await self._settle(run)
            return
        began, call = self._command.entries(run.run_id or run.id, self.said, self._given.definition)
        self._inner = CommandRun(self._command, call, self._sandbox, self._settle)
        await run.append(*began)
        await self._inner(run)

    def came_to(self) -> ShellResult:
        """What came of it."""
        if self._inner is None:
            raise AbortError(CANCELLED)
        return self._inner.came_to()


async def written(journal: Journal, id: str) -> list[Stored]:
    """The entries of a session that is driven; none where it is not there."""
    run = journal.run
    rows = await journal.outside(run.database.read(log.read(run.scope, id)))
    return [row.stored() for row in rows]


def since(entries: Sequence[Stored], message: str) -> Sequence[Stored]:
    """The entries from a message on."""
    at = next((n for n, one in enumerate(entries) if isinstance(one.entry, UserSaid) and one.entry.id == message), 0)
    return entries[at:]


def body_here() -> Body:
    """The call of the task whose body this is.

    :raises InvalidInput: it is none
    """
    place = here()
    if place is None or place.body is None:
        raise InvalidInput("this works in a task of a workflow only")
    return place.body


def kept_of(outcome: Outcome, spent: Spent) -> dict[str, Any]:
    """What a task remembers of an operation."""
    kept: dict[str, Any] = msgspec.to_builtins({"outcome": outcome, "spent": spent})
    return kept


def found_in(kept: dict[str, Any]) -> tuple[Outcome, Spent]:
    """What `kept_of` kept."""
    return msgspec.convert(kept["outcome"], Outcome), msgspec.convert(kept["spent"], Spent)
