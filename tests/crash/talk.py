"""The workflow of the crash tests that talks for an agent. Its source is given to the agent as it stands."""

from __future__ import annotations

from typing import Any

from flux import ExecutionContext, TaskMetadata, pause, task, workflow
from flux.agents.types import ChatResponseOutput, SessionEndOutput
from flux.errors import ExecutionInterrupted
from tests.crash.stage import at_hand

LOGIN = {"type": "elicitation", "elicitation_id": "el", "url": "https://example.org", "message": "Log in"}


@task.with_options(metadata=True, effect="once")
async def pay(amount: str, *, metadata: TaskMetadata) -> str:
    """Must never happen twice."""
    at_hand().effects.add("pay", amount=amount, call=metadata.task_id)
    return f"paid {amount}"


@workflow.with_options(namespace="agents")
async def talk(ctx: ExecutionContext[Any]) -> None:
    """Pays, asks for a login, and leaves."""
    said, turn = "ready", 0
    while True:
        given = await pause("turn", output=ChatResponseOutput(said, turn))
        turn += 1
        match given["message"].split():
            case ["pay", amount]:
                try:
                    said = await pay(amount)
                except ExecutionInterrupted:
                    said = f"unknown {amount}"
            case ["login"]:
                answer = await pause("login", output=LOGIN)
                said = answer["elicitation_response"]["action"]
            case _:
                await pause("end", output=SessionEndOutput("user_exit", turn))
