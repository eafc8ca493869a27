"""A support desk in one program: an agent per ticket, with tools that close over it, a critic, and typed answers.

It runs offline, by a scripted model:

    python examples/harness/triage.py

Give it a real one with MODEL=anthropic/claude-sonnet-5-5 and a key.
"""

import asyncio
import os
import sys
from typing import Any, Literal

from pydantic import BaseModel

from flux import (
    AgentCreateContext,
    ResultUnavailableError,
    configure_provider,
    create_agent,
    define_agent_profile,
    init_agent,
    tool,
)
from flux.models.base import ModelRequest
from flux.testing import Call, Reply, ScriptedModel

TICKETS = {"ticket-8472": "The export of my report fails with a time-out since Monday."}


class Triage(BaseModel):
    """What is to be done with a ticket."""

    urgency: Literal["low", "high"]
    team: str
    summary: str


critic = define_agent_profile(
    name="critic",
    description="Reads a draft and says what is wrong with it.",
    instructions="You are the critic. Name the one thing that is worst about the draft.",
)


def build(ctx: AgentCreateContext) -> dict[str, Any]:
    """The agent of one ticket."""

    @tool(effect="read")
    async def read_ticket() -> str:
        """Read the ticket that this conversation is about."""
        return TICKETS[ctx.id]

    return {
        "model": os.environ.get("MODEL", "offline/desk"),
        "instructions": f"You help with the support case {ctx.id}. Read the ticket first.",
        "tools": [read_ticket],
        "subagents": [critic],
    }


default = create_agent(build, name="support_desk")


async def main() -> None:
    async with await init_agent(default, id="ticket-8472") as harness:
        session = await harness.session("triage")
        answer = await session.prompt("What is to be done?", result=Triage)
        print(f"{answer.data.urgency}: {answer.data.team}, {answer.data.summary}")
        draft = await session.prompt("Draft a reply to the customer.")
        print(draft.text)
        verdict = await session.task(f"Criticise this draft: {draft.text}", agent="critic")
        print(verdict.text)
        await harness.fs.write_file("reply.txt", draft.text)
        print((await session.shell("wc -w < reply.txt")).stdout.strip(), "words")
        try:
            await session.prompt("Who is the customer's landlord?", result=Triage)
        except ResultUnavailableError as error:
            print(f"no result: {error.reason}")
        print(f"{answer.usage.total_tokens > 0 and len(await session.history())} messages")


def offline(request: ModelRequest) -> Reply:
    """What a model might say."""
    said = str(request.messages[-1])
    if request.system.startswith("You are the critic"):
        return Reply("It promises a date.")
    if "landlord" in said:
        return Reply("", calls=(Call("give_up", {"reason": "nothing here says so"}),))
    if "Draft a reply" in said:
        return Reply("We have found the cause and will have it fixed by Friday.")
    if "time-out" in said:
        ticket = {"urgency": "high", "team": "reports", "summary": "exports time out"}
        return Reply("", calls=(Call("finish", ticket),))
    return Reply("", calls=(Call("read_ticket"),))


if __name__ == "__main__":
    configure_provider("offline", model=lambda name: ScriptedModel(offline, name=f"offline/{name}"))
    sys.exit(asyncio.run(main()))
