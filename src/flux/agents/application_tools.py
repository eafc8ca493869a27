"""Tools of the application, made with `define_tool` or `@tool`, as tools of a session."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from flux.agents.define.tool import ToolCallContext, ToolDefinition, define_tool
from flux.agents.named import load
from flux.engine.task import task
from flux.errors import DefinitionInvalid
from flux.tools.base import Failed, Tool, ToolContext, ToolOutcome
from flux.tools.cancel import CancelSignal
from flux.tools.function import outcome_of
from flux.tools.references import Ref, kept, loaded, with_references

#: The key of an entry of `tools` that names a function, as `module:attribute`.
FUNCTION = "function"


def application_tool(made: ToolDefinition) -> Tool:
    """A tool of the application as one that a session can call. References in its arguments are loaded for it."""

    async def run(args: dict[str, Any], context: ToolContext) -> ToolOutcome:
        signal = CancelSignal()
        ctx = ToolCallContext(session=context.session, call_id=context.call, signal=signal, progress=context.output)
        try:
            with with_references(await loaded(made.parameters, args, context)):
                value = await _called(made, args, ctx, context)
        except LookupError as error:
            return Failed(str(error.args[0]) if error.args else str(error))
        except asyncio.CancelledError:
            signal.cancel()
            raise
        return await kept(value, context) if isinstance(value, Ref) else outcome_of(value)

    return Tool(
        name=made.name,
        description=made.description,
        parameters=made.parameters,
        run=run,
        effect=made.effect,
        timeout=made.timeout,
        requires_approval=made.requires_approval,
        source=made.source,
        approval=made.approval,
    )


async def _called(made: ToolDefinition, args: dict[str, Any], ctx: ToolCallContext, context: ToolContext) -> Any:
    if inspect.iscoroutinefunction(made.execute):
        return await made.invoke(args, ctx, context)
    value = await asyncio.to_thread(made.invoke, args, ctx, context)
    return await value if inspect.isawaitable(value) else value


def is_function(entry: Any) -> bool:
    """Whether an entry of `tools` names a function."""
    return isinstance(entry, Mapping) and list(entry) == [FUNCTION] and isinstance(entry[FUNCTION], str)


@lru_cache(maxsize=1024)
def function_tool(reference: str) -> Tool:
    """The tool of a function, or of what `define_tool` made, by its `module:attribute`. Imports the module.

    :raises DefinitionInvalid: there is no such thing, or it cannot be a tool
    """
    found = load(reference)
    if isinstance(found, ToolDefinition):
        return application_tool(found)
    if isinstance(found, task | type) or not callable(found):
        raise DefinitionInvalid(f"tools: {reference} is no function, and no tool of define_tool or @tool")
    return application_tool(define_tool(str(getattr(found, "__name__", "")), found))
