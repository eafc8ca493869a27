"""The workflow of examples/agents/custom_workflow.yaml: a greeting, one agent, and an end after ten turns."""

import os

from flux import ExecutionContext, pause, workflow
from flux.agents.types import ChatResponseOutput, SessionEndOutput
from flux.tasks.ai import agent
from flux.tasks.ai.memory import working_memory

MODEL = os.environ.get("FLUX_MODEL") or "scripted/examples/agents/scripts/concierge.yaml"
MAX_TURNS = 10


@workflow.with_options(namespace="agents")
async def concierge(ctx: ExecutionContext[dict[str, str]]) -> None:
    """Greet, answer ten messages, and end the session with the next one."""
    answer = await agent(
        "You are the concierge of a hotel. Answer in one sentence.",
        model=MODEL,
        working_memory=working_memory(window=20),
    )
    said, turn = "Welcome! What can I do for you?", 0
    while True:
        given = await pause("turn", output=ChatResponseOutput(said, turn))
        if turn == MAX_TURNS:
            await pause("end", output=SessionEndOutput("max_turns", turn))
        said, turn = await answer(given["message"]), turn + 1
