from collections.abc import AsyncIterator
from contextlib import nullcontext

import pytest

from flux.tools.base import Done, NeedsInput, ToolContext, ToolOutcome
from flux.tools.function import tool_of
from tests.crash.databases import fresh_schema
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


@pytest.fixture(scope="package", params=["sqlite", "postgres"])
async def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A running server on each kind of database, that api mode is put in front of."""
    tools = {"authorize": tool_of(authorize, effect="idempotent")}
    home = tmp_path_factory.mktemp("home")
    with fresh_schema(request.getfixturevalue("postgres")) if request.param == "postgres" else nullcontext("") as url:
        async with serving(home, in_process=True, database_url=url, tools=tools) as running:
            yield running
