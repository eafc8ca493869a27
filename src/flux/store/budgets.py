"""What agents with a budget of their own have spent in all their sessions, and what their calls under way may spend."""

from __future__ import annotations

from flux.store.database import Scope, Steps

#: Holds the row of the agent, so that two that reserve at once see each other.
HOLD = """
insert into spendings (tenant, agent, tokens, cost) values (:tenant, :agent, 0, 0)
on conflict (tenant, agent) do update set tokens = spendings.tokens
returning tokens, cost"""

RESERVED = """
select coalesce(sum(tokens), 0), coalesce(sum(cost), 0) from reservations
where tenant = :tenant and agent = :agent and execution_id <> :id"""

RESERVE = """
insert into reservations (execution_id, tenant, agent, tokens, cost) values (:id, :tenant, :agent, :tokens, :cost)
on conflict (tenant, agent, execution_id) do update set tokens = excluded.tokens, cost = excluded.cost"""

SPEND = """
insert into spendings (tenant, agent, tokens, cost) values (:tenant, :agent, :tokens, :cost)
on conflict (tenant, agent) do update
  set tokens = spendings.tokens + excluded.tokens, cost = spendings.cost + excluded.cost"""


def taken(scope: Scope, agent: str, id: str) -> Steps[tuple[int, float]]:
    """What an agent has spent, and what calls of other executions than `id` may spend now: tokens, and US dollars."""
    about = {"tenant": scope.tenant, "agent": agent, "id": id}
    spent = (yield HOLD, about)[0]
    reserved = (yield RESERVED, about)[0]
    return int(spent[0] + reserved[0]), float(spent[1] + reserved[1])


def reserve(scope: Scope, agent: str, id: str, tokens: int, cost: float) -> Steps[None]:
    """Note what the next model call of an execution may spend, instead of what was noted before."""
    yield RESERVE, {"tenant": scope.tenant, "agent": agent, "id": id, "tokens": tokens, "cost": cost}


def spend(scope: Scope, agent: str, id: str, tokens: int, cost: float) -> Steps[None]:
    """Count what an execution has spent; its call is over."""
    about = {"tenant": scope.tenant, "agent": agent, "id": id}
    yield "delete from reservations where tenant = :tenant and agent = :agent and execution_id = :id", about
    if tokens or cost:
        yield SPEND, {**about, "tokens": tokens, "cost": cost}
