"""Budgets before a model call: what it may spend is reserved, or the run ends."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from flux.agents.define.definition import Limit
from flux.agents.history.cuts import used_tokens
from flux.agents.history.transcript import Transcript
from flux.agents.turn.steps import exceeded
from flux.engine.running.run import Run
from flux.messages import Usage
from flux.store import budgets
from flux.store.database import Steps
from flux.store.executions import Spent

#: An answer of fewer tokens is not worth a call.
LEAST_OUTPUT = 16

#: Why so many tokens and US dollars may not be spent besides; None: they may.
Refuses = Callable[[int, float], str | None]


class Allowed(Struct, frozen=True):
    """What a model call may spend: `tokens` in all, `output` of them in its answer, and US dollars."""

    tokens: int
    output: int
    cost: float

    def on_top_of(self, spent: Spent) -> Spent:
        """What is spent when the call spends all that."""
        return Spent(spent.tokens + Usage(input=self.tokens), spent.cost + self.cost)


def allowed(log: Transcript, output: int, refuses: Refuses) -> Allowed | str:
    """What the next call may spend when its answer may have `output` tokens, or fewer; else why it may not be made.

    The prompt is estimated, and a token costs what it has cost so far.
    """
    prompt = used_tokens(log)
    price = log.cost / log.tokens if log.tokens else 0.0
    while True:
        tokens = prompt + output
        why = refuses(tokens, tokens * price)
        if why is None:
            return Allowed(tokens, output, tokens * price)
        if output <= LEAST_OUTPUT:
            return f"the next model call does not fit: {why}"
        output = max(output // 2, LEAST_OUTPUT)


async def reserved_for_agent(run: Run, agent: str, limit: Limit, log: Transcript, output: int) -> Allowed | str:
    """Reserve from the budget of an agent, which all its sessions share."""

    def program() -> Steps[Allowed | str]:
        spent, paid = yield from budgets.taken(run.scope, agent, run.id)

        def refuses(tokens: int, cost: float) -> str | None:
            return exceeded("agent", limit, spent + tokens, paid + cost)

        found = exceeded("agent", limit, spent, paid) or allowed(log, output, refuses)
        if isinstance(found, Allowed):
            yield from budgets.reserve(run.scope, agent, run.id, found.tokens, found.cost)
        return found

    return await run.database.write(program())
