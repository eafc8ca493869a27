"""`@task` functions as tools of a session: each call runs under a journal of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flux.agents.kits import Kit
from flux.agents.loop import Session
from flux.engine.nested import Rested, run_nested
from flux.engine.services import Services
from flux.engine.task import task
from flux.errors import ExecutionError
from flux.tools.base import Failed, Later, Predicate, Tool, ToolContext, ToolOutcome
from flux.tools.function import outcome_of
from flux.tools.schema import signature_of


class TaskTools:
    """Makes tools of the tasks that an agent made in code was given."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def __call__(self, session: Session) -> Kit | None:
        """The kit; None when the agent has no tasks."""
        if session.given is None or not session.given.tasks:
            return None
        return Kit(tuple(task_tool(one, session, self._services) for one in session.given.tasks))


def task_tool(one: task[..., Any], session: Session, services: Services) -> Tool:
    """A task as a tool of a session.

    :raises DefinitionInvalid: its signature cannot be used
    """
    signature = signature_of(one.function, _injected(one))
    # The gate asks, not the task; and what is not said is done once at most, as for any tool.
    called = one.with_options(requires_approval=False, effect=one.options.effect or "once")

    async def run(args: dict[str, Any], context: ToolContext) -> ToolOutcome:
        bound = signature.bind(args)
        try:
            value = await run_nested(session.run, services, context.call, lambda: called(**bound))
        except ExecutionError as error:
            return Failed(str(error))
        return Later(value.due) if isinstance(value, Rested) else outcome_of(value)

    return Tool(
        name=one.name,
        description=signature.description,
        parameters=signature.parameters,
        run=run,
        # The journal knows what was done, so a call may be taken up again whatever its effect.
        effect="read" if one.options.effect == "read" else "idempotent",
        requires_approval=_approval(one),
        source="tasks",
        part_of_run=True,
    )


def _injected(one: task[..., Any]) -> tuple[str, ...]:
    """The parameters that the task gets from its process."""
    options = one.options
    asked = {"secrets": options.secret_requests, "config": options.config_requests, "metadata": options.metadata}
    return tuple(name for name, wanted in asked.items() if wanted)


def _approval(one: task[..., Any]) -> bool | Predicate:
    rule = one.options.requires_approval
    if not callable(rule):
        return rule

    def asks(args: Mapping[str, Any]) -> bool:
        return bool(rule(**args))

    return asks
