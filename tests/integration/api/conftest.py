from collections.abc import AsyncIterator

import pytest

from flux.tools.base import Done, NeedsInput, ToolContext, ToolOutcome
from flux.tools.function import tool_of
from tests.integration.server.serving import Served, serving

ELICITED = {
    "mode": "url",
    "message": "Authorize Flux to access GitHub",
    "server_name": "github",
    "elicitation_id": "el-1",
    "url": "https://auth.example.com/go",
}


async def authorize(context: ToolContext) -> ToolOutcome:
    """Ask the person to authorize."""
    if context.answer is None:
        return NeedsInput("elicitation", ELICITED)
    return Done(f"{context.answer.decision} {context.answer.content}")


@pytest.fixture(scope="package")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A running server that api mode is put in front of."""
    tools = {"authorize": tool_of(authorize, effect="idempotent")}
    async with serving(tmp_path_factory.mktemp("home"), in_process=True, tools=tools) as running:
        yield running
