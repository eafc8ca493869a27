"""`@task` functions as a model sees them: their signature, effect and rule; and those that a file of tools holds."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import ModuleType
from typing import Any

from flux.engine.workflows.task import task
from flux.errors import DefinitionInvalid
from flux.tools.base import Effect, Predicate
from flux.tools.declared import EFFECTS, declared_tools, filled
from flux.tools.schema import Signature, signature_of
from flux.tools.tool_file import ToolFile

logger = logging.getLogger(__name__)


def task_signature(one: task[..., Any]) -> Signature:
    """What a task takes from a model.

    :raises DefinitionInvalid: its signature or an option cannot be used
    """
    effect_of(one)
    timeout: Any = one.options.timeout
    if not isinstance(timeout, int | float) or timeout < 0:
        raise DefinitionInvalid(f"tool {one.name}: timeout must be a number of seconds")
    return _signature(one.function, given_to(one))


def given_to(one: task[..., Any]) -> frozenset[str]:
    """The parameters that a task fills itself."""
    return filled({name for name in one.options.__struct_fields__ if getattr(one.options, name)})


def effect_of(one: task[..., Any]) -> Effect:
    """What is not said is done once at most, as for any tool.

    :raises DefinitionInvalid: there is no such effect
    """
    effect: Any = one.options.effect or "once"
    if effect not in EFFECTS:
        raise DefinitionInvalid(f"tool {one.name}: effect must be one of {', '.join(EFFECTS)}")
    found: Effect = effect
    return found


@functools.lru_cache(maxsize=1024)
def _signature(function: Callable[..., Any], given: frozenset[str]) -> Signature:
    return signature_of(function, given)


def in_thread(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as one that does not hold up the others: a plain one runs in a thread."""
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
        return function

    @functools.wraps(function)
    async def called(*args: Any, **kwargs: Any) -> Any:
        value = await asyncio.to_thread(function, *args, **kwargs)
        return await value if inspect.isawaitable(value) else value

    return called


def rule_of_task(one: task[..., Any], signature: Signature) -> bool | Predicate:
    """Whether a call of it asks, or a function that says so of its arguments.

    :raises DefinitionInvalid: it is none
    """
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


def tasks_of(file: ToolFile, module: ModuleType) -> list[task[..., Any]]:
    """The tasks that a file declares, as its module has them, checked.

    :raises DefinitionInvalid: one is missing, or is none that a model could call
    """
    # Asked of the type: a module may hold objects that answer to any name.
    found: list[Any] = [value for value in vars(module).values() if issubclass(type(value), task)]
    tasks = {one.name: one for one in found if getattr(one.function, "__module__", None) == module.__name__}
    made: list[task[..., Any]] = []
    for declared in _declared(file):
        if declared.name not in tasks:
            raise DefinitionInvalid(f"{file.name}: when it is loaded, it has no task {declared.name}")
        one = tasks[declared.name]
        try:
            rule_of_task(one, task_signature(one))
        except DefinitionInvalid as error:
            raise DefinitionInvalid(f"{file.name}: line {declared.line}: {error}") from error
        made.append(one)
    return made


_declared = functools.lru_cache(maxsize=256)(declared_tools)
