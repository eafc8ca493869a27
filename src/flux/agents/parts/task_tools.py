"""`@task` functions as tools of a session: each call runs under a journal of its own."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from flux.agents.turn.kits import Kit
from flux.agents.turn.loop import Session
from flux.engine.workflows.nested import Rested, run_nested
from flux.engine.workflows.services import Services
from flux.engine.workflows.task import task
from flux.errors import DefinitionInvalid, ExecutionError, ExecutionTimeoutError
from flux.tools.base import Effect, Failed, Later, Predicate, Tool, ToolContext, ToolOutcome
from flux.tools.declared import EFFECTS, filled
from flux.tools.function import outcome_of
from flux.tools.schema import Signature, signature_of

logger = logging.getLogger(__name__)


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
    signature = task_signature(one)
    # The gate asks, not the task.
    called = task(_in_thread(one.function), one.options).with_options(requires_approval=False)
    effect = _effect(one)

    async def run(args: dict[str, Any], context: ToolContext) -> ToolOutcome:
        bound = signature.bind(args)
        if signature.context is not None:
            bound[signature.context] = context
        # What came to wait by itself was not interrupted, whatever its effect.
        rested = session.log.has_rested(context.call)
        work = called.with_options(effect=None if rested else effect)
        try:
            value = await run_nested(session.run, services, context.call, lambda: work(**bound))
        except ExecutionError as error:
            return Failed(str(error), timeout=isinstance(error, ExecutionTimeoutError))
        return Later(value.due) if isinstance(value, Rested) else outcome_of(value)

    return Tool(
        name=one.name,
        description=signature.description,
        parameters=signature.parameters,
        run=run,
        # The journal knows what was done, so a call may be taken up again whatever its effect.
        effect="read" if effect == "read" else "idempotent",
        requires_approval=_approval(one, signature),
        source=source,
        part_of_run=True,
    )


def task_signature(one: task[..., Any]) -> Signature:
    """What a task takes from a model.

    :raises DefinitionInvalid: its signature or an option cannot be used
    """
    _effect(one)
    timeout: Any = one.options.timeout
    if not isinstance(timeout, int | float) or timeout < 0:
        raise DefinitionInvalid(f"tool {one.name}: timeout must be a number of seconds")
    options = {name for name in one.options.__struct_fields__ if getattr(one.options, name)}
    return _signature(one.function, filled(options))


def _effect(one: task[..., Any]) -> Effect:
    """What is not said is done once at most, as for any tool."""
    effect: Any = one.options.effect or "once"
    if effect not in EFFECTS:
        raise DefinitionInvalid(f"tool {one.name}: effect must be one of {', '.join(EFFECTS)}")
    found: Effect = effect
    return found


@functools.lru_cache(maxsize=1024)
def _signature(function: Callable[..., Any], given: frozenset[str]) -> Signature:
    return signature_of(function, given)


def _in_thread(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as one that does not hold up the others: a plain one runs in a thread."""
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
        return function

    @functools.wraps(function)
    async def called(*args: Any, **kwargs: Any) -> Any:
        value = await asyncio.to_thread(function, *args, **kwargs)
        return await value if inspect.isawaitable(value) else value

    return called


def _approval(one: task[..., Any], signature: Signature) -> bool | Predicate:
    rule: Any = one.options.requires_approval
    if isinstance(rule, bool):
        return rule
    if not callable(rule) or inspect.iscoroutinefunction(rule):
        raise DefinitionInvalid(f"tool {one.name}: requires_approval must be True, False or a plain function")

    def asks(args: Mapping[str, Any]) -> bool:
        with suppress(Exception):
            return bool(rule(**signature.bind(dict(args))))
        logger.warning("requires_approval of the tool %s failed, so a person is asked", one.name)
        return True

    return asks
