"""The support desk: one instance for each ticket, whose id scopes what its tools can see."""

import os

from flux import create_agent, define_agent_profile, define_tool

#: Offline by default; FLUX_MODEL=anthropic/claude-haiku-4-5 and a key give a real one.
MODEL = os.environ.get("FLUX_MODEL", "scripted/demo")

TICKETS = {
    "ticket-1": {"customer": "Ada", "order": "A-17", "state": "open"},
    "ticket-2": {"customer": "Bob", "order": "B-3", "state": "waiting"},
}

writer = define_agent_profile(
    name="writer", description="Writes replies to customers.", instructions="Be brief and kind."
)


def build(ctx):
    def ticket_status():
        return TICKETS.get(ctx.id, {"state": "unknown"})

    def refund(amount: int) -> str:
        return f"refunded {amount} for {ctx.id}"

    return {
        "model": MODEL,
        "instructions": f"Help the customer of {ctx.id}. Look at the ticket before you answer.",
        "tools": [
            define_tool("ticket_status", ticket_status, description="What is known of this ticket.", effect="read"),
            define_tool("refund", refund, description="Pay back an amount.", requires_approval=True),
        ],
        "subagents": [writer],
    }


default = create_agent(build)
