"""A typed async function as a tool."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from pydantic import BaseModel

from flux.tools.base import Done, Effect, Predicate, Tool, ToolContext, ToolOutcome
from flux.tools.schema import signature_of


def tool_of(
    function: Callable[..., Awaitable[Any]],
    *,
    effect: Effect = "once",
    timeout: float | None = None,
    requires_approval: bool | Predicate = False,
    source: str = "builtin",
) -> Tool:
    """A tool from a function: its name, docstring, type hints and defaults are what the model sees.

    A parameter of type ToolContext gets the context. A result that is no ToolOutcome is shown as text
    or JSON. `timeout` is in seconds. DefinitionInvalid when the function's signature cannot be used.
    """
    signature = signature_of(function)

    async def run(args: dict[str, Any], context: ToolContext) -> ToolOutcome:
        bound = signature.bind(args)
        if signature.context is not None:
            bound[signature.context] = context
        return outcome_of(await function(**bound))

    return Tool(
        name=getattr(function, "__name__", type(function).__name__),
        description=signature.description,
        parameters=signature.parameters,
        run=run,
        effect=effect,
        timeout=timeout,
        requires_approval=requires_approval,
        source=source,
    )


def renamed(tool: Tool, name: str, arguments: Mapping[str, str]) -> Tool:
    """The same tool under another name, with other names of arguments: the new one of each old one."""
    old = {new: known for known, new in arguments.items()}
    schema = tool.parameters
    properties = {arguments.get(key, key): value for key, value in schema.get("properties", {}).items()}
    parameters = {**schema, "properties": properties}
    if "required" in schema:
        parameters["required"] = [arguments.get(key, key) for key in schema["required"]]

    async def run(args: dict[str, Any], context: ToolContext) -> ToolOutcome:
        return await tool.run({old.get(key, key): value for key, value in args.items()}, context)

    return msgspec.structs.replace(tool, name=name, parameters=parameters, run=run)


def outcome_of(value: Any) -> ToolOutcome:
    """What a function returned, as an outcome: text as it is, anything else as JSON."""
    if isinstance(value, ToolOutcome):
        return value
    if isinstance(value, str):
        return Done(value)
    return Done(msgspec.json.encode(value, enc_hook=_jsonable).decode())


def _jsonable(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else str(value)
