"""The tools by which a model handles references."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from flux.tools.base import Done, Failed, Tool, ToolContext, ToolOutcome
from flux.tools.function import tool_of
from flux.tools.references import encoded, load, part, shown

Handle = Annotated[str, Field(description="The handle, such as ref:table:…")]


def reference_tools() -> tuple[Tool, ...]:
    """What a model does with a reference."""
    return (
        tool_of(resolve_ref, effect="read", source="plan").named("resolveRef"),
        tool_of(glimpse_ref, effect="read", source="plan").named("glimpseRef"),
    )


async def resolve_ref(ref: Handle, context: ToolContext) -> ToolOutcome:
    """Make sure of a reference before its handle is given as an argument that takes one: the tool gets the value."""
    try:
        found = await load(ref, context)
    except LookupError as error:
        return Failed(str(error.args[0]))
    return Done(shown(found, ref, len(encoded(found))))


async def glimpse_ref(
    ref: Handle,
    context: ToolContext,
    start: Annotated[int, Field(ge=0, description="The first row, line, item or byte to show.")] = 0,
    count: Annotated[int, Field(ge=1, description="How many; of bytes, how many times 16.")] = 20,
    columns: Annotated[list[str], Field(description="Of a table: only these columns.")] = [],  # noqa: B006 - a schema
    path: Annotated[str, Field(description="Of a JSON value: the place in it, such as items.0.name.")] = "",
) -> ToolOutcome:
    """Look at more of a referenced value than its glimpse shows; there is a cap."""
    try:
        return Done(part(await load(ref, context), start, count, columns, path))
    except LookupError as error:
        return Failed(str(error.args[0]))
