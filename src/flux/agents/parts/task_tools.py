"""`@task` functions as tools of a session: each call runs under a journal of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from flux.agents.turn.kits import Kit
from flux.agents.turn.loop import Session
from flux.engine.workflows.nested import Rested, run_nested
from flux.engine.workflows.services import Services
from flux.engine.workflows.task import task
from flux.errors import ExecutionError, ExecutionTimeoutError
from flux.tools.base import Effect, Failed, Later, Tool, ToolContext, ToolOutcome
from flux.tools.function import outcome_of
from flux.tools.tasks import effect_of, in_thread, rule_of_task, task_signature

#: Makes the arguments of a task from those of a call.
Bind = Callable[[dict[str, Any], ToolContext], dict[str, Any]]
Run = Callable[[dict[str, Any], ToolContext], Awaitable[ToolOutcome]]


class TaskTools:
    """Makes tools of the tasks that an agent made in code was given."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def __call__(self, session: Session) -> Kit | None:
        """The kit; None when the agent has no tasks."""
        if session.given is None or not session.given.tasks:
            return None
        return Kit(tuple(task_tool(one, session, self._services) for one in session.given.tasks))


def task_tool(one: task[..., Any], session: Session, services: Services, *, source: str = "tasks") -> Tool:
    """A task as a tool of a session.

    :raises DefinitionInvalid: its signature or an option cannot be used
    """
    signature, effect = task_signature(one), effect_of(one)
    # The gate asks, not the task.
    called = task(in_thread(one.function), one.options).with_options(requires_approval=False)

    def bind(args: dict[str, Any], context: ToolContext) -> dict[str, Any]:
        bound = signature.bind(args)
        return bound if signature.context is None else bound | {signature.context: context}

    return Tool(
        name=one.name,
        description=signature.description,
        parameters=signature.parameters,
        run=running(called, effect, bind, session, services),
        effect=kept_effect(effect),
        requires_approval=rule_of_task(one, signature),
        source=source,
        part_of_run=True,
    )


def kept_effect(effect: Effect) -> Effect:
    """The journal knows what was done, so a call may be taken up again whatever its effect."""
    return "read" if effect == "read" else "idempotent"


def running(called: task[..., Any], effect: Effect, bind: Bind, session: Session, services: Services) -> Run:
    """What runs a task as a tool: under a journal of the call."""

    async def run(args: dict[str, Any], context: ToolContext) -> ToolOutcome:
        bound = bind(args, context)
        # What came to wait by itself was not interrupted, whatever its effect.
        rested = session.log.has_rested(context.call)
        work = called.with_options(effect=None if rested else effect)
        try:
            value = await run_nested(session.run, services, context.call, lambda: work(**bound))
        except ExecutionError as error:
            return Failed(str(error), timeout=isinstance(error, ExecutionTimeoutError))
        return Later(value.due) if isinstance(value, Rested) else outcome_of(value)

    return run
