"""Asks the agent of each ticket for its state: a bounded piece of work, whose steps are remembered."""

from agents.support import default as support


async def run(ctx):
    found = {}
    for ticket in (ctx.payload or {}).get("tickets", []):
        harness = await ctx.init(support, id=ticket, name=ticket)
        session = await harness.session("triage")
        found[ticket] = (await session.prompt("call ticket_status {}")).text
    return found
