"""`@task` functions as tools."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Mapping
from contextlib import suppress
from types import ModuleType
from typing import Any

from flux.engine.task import task
from flux.errors import DefinitionInvalid
from flux.tools.base import Effect, Predicate, Tool, ToolContext, ToolOutcome
from flux.tools.declared import EFFECTS
from flux.tools.function import outcome_of
from flux.tools.schema import Signature, signature_of

logger = logging.getLogger(__name__)


def tool_of_task(made: task[..., Any], *, source: str = "code") -> Tool:
    """A tool from a task: its name, docstring and type hints are what the model sees, its options what holds.

    Its effect is "once" unless it says otherwise.

    :raises DefinitionInvalid: the function's signature or an option cannot be used
    """
    signature = signature_of(made.function)

    async def run(args: dict[str, Any], context: ToolContext) -> ToolOutcome:
        given = signature.bind(args)
        if signature.context is not None:
            given[signature.context] = context
        return outcome_of(await _call(made, given))

    return Tool(
        name=made.name,
        description=signature.description,
        parameters=signature.parameters,
        run=run,
        effect=_effect(made),
        timeout=_timeout(made),
        requires_approval=_approval(made, signature),
        source=source,
    )


def tasks_in(module: ModuleType) -> dict[str, task[..., Any]]:
    """The tasks that a module defines itself, by name."""
    found = [value for value in vars(module).values() if isinstance(value, task)]
    return {one.name: one for one in found if getattr(one.function, "__module__", None) == module.__name__}


async def _call(made: task[..., Any], given: Mapping[str, Any]) -> Any:
    """Call the task: the one place where a tool does. A plain function runs in a thread, or all would wait for it."""
    if inspect.iscoroutinefunction(made.function):
        return await made(**given)
    value = await asyncio.to_thread(made.function, **given)
    return await value if inspect.isawaitable(value) else value


def _effect(made: task[..., Any]) -> Effect:
    effect = made.options.effect or "once"
    if effect not in EFFECTS:
        raise DefinitionInvalid(f"tool {made.name}: effect must be one of {', '.join(EFFECTS)}")
    known: Effect = effect  # type: ignore[assignment]
    return known


def _timeout(made: task[..., Any]) -> float | None:
    timeout: Any = made.options.timeout
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or timeout < 0:
        raise DefinitionInvalid(f"tool {made.name}: timeout must be a number of seconds")
    return float(timeout) or None


def _approval(made: task[..., Any], signature: Signature) -> bool | Predicate:
    rule: Any = made.options.requires_approval
    if isinstance(rule, bool):
        return rule
    if not callable(rule) or inspect.iscoroutinefunction(rule):
        raise DefinitionInvalid(f"tool {made.name}: requires_approval must be True, False or a plain function")

    def asks(args: Mapping[str, Any]) -> bool:
        with suppress(Exception):
            return bool(rule(**signature.bind(dict(args))))
        logger.warning("requires_approval of the tool %s failed, so a person is asked", made.name)
        return True

    return asks
