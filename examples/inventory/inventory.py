"""A small shop: a plan is proposed, approved by a person, and executed action by action. Runs without a key.

    python examples/inventory/inventory.py            talk to it here
    python examples/inventory/inventory.py --serve    serve the API and a page; answer there, or with `flux`

Stop it with `kill -9` in the middle of anything and start it again: it goes on where it was. `--again` begins anew.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from flux.errors import SessionNotFound
from flux.messages import AssistantMessage, ToolResult
from flux.models.base import ModelRequest
from flux.roles import (
    ApprovalRequest,
    Ref,
    RunResult,
    Runtime,
    TaggedUnion,
    define_coordinator,
    define_executor,
    define_plan,
    define_planner,
    define_runtime,
    define_specialist,
    define_tenant,
    define_tool,
    layered_prompt,
)
from flux.testing import Call, Reply, ScriptedModel

STOCK = [("apple", 3), ("pear", 0), ("plum", 40)]


def database() -> sqlite3.Connection:
    """The shop, made when it is first opened."""
    path = Path(os.environ.get("INVENTORY_DB", "inventory.db"))
    shop = sqlite3.connect(path)
    with shop:
        shop.execute("create table if not exists stock (sku text primary key, count integer not null)")
        shop.execute("create table if not exists orders (id text primary key, sku text, count integer)")
        if not shop.execute("select 1 from stock").fetchone():
            shop.executemany("insert into stock values (?, ?)", STOCK)
    return shop


# What the agents can do


def read_stock() -> Ref:
    """Read the whole stock. The table stays outside the conversation; you get a handle and its first rows."""
    with closing(database()) as shop:
        rows = shop.execute("select sku, count from stock order by sku").fetchall()
    return Ref("table", {"columns": ["sku", "count"], "rows": [list(row) for row in rows]})


def sum_up(table: Ref) -> str:
    """Say how much there is of everything in a table."""
    return f"{sum(row[1] for row in table.value['rows'])} pieces of {len(table.value['rows'])} items"


def order_item(sku: str, count: int, ctx: Any) -> dict[str, Any]:
    """Order pieces of an item that the shop sells; the same order is made once."""
    with closing(database()) as shop, shop:
        if not shop.execute("select 1 from stock where sku = ?", (sku,)).fetchone():
            raise ValueError(f"the shop does not sell {sku}")
        shop.execute("insert or ignore into orders values (?, ?, ?)", (ctx.call_id, sku, count))
    return {"order": ctx.call_id[:8], "sku": sku, "count": count}


def remove_item(sku: str) -> str:
    """Take an item out of the stock for good."""
    with closing(database()) as shop, shop:
        shop.execute("delete from stock where sku = ?", (sku,))
    return f"{sku} is gone"


def note_order(order: str, text: str) -> str:
    """Write a note to an order."""
    return f"note to {order}: {text}"


def is_large(request: ApprovalRequest) -> bool:
    """Whether a person has to look at an order once more."""
    return int(request.args["count"]) >= 100


# The plan


class Order(BaseModel):
    """Order pieces of an item."""

    sku: str
    count: int = Field(ge=1)


class Remove(BaseModel):
    """Take an item out of the stock for good."""

    sku: str


class Note(BaseModel):
    """Write a note to an order."""

    order: str
    text: str


class StockChange(BaseModel):
    """A change of the stock."""

    reason: str
    actions: list[TaggedUnion[Order, Remove, Note]]


order_tool = define_tool("order_item", order_item, effect="idempotent", approval={"kind": "dynamic", "value": "large"})
remove_tool = define_tool("remove_item", remove_item, effect="idempotent", approval="always")
note_tool = define_tool("note_order", note_order, effect="idempotent")
PLAN = define_plan(
    "stock_change",
    schema=StockChange,
    actions={Order: order_tool, Remove: remove_tool, Note: note_tool},
    description="What is to be ordered, removed and noted.",
)

# What the models say: here by a script, so that it runs without a key

PROPOSED = [
    {"type": "Order", "id": "pears", "sku": "pear", "count": 20},
    {"type": "Note", "id": "note", "order": {"result_of": "pears", "path": "order"}, "text": "urgent"},
    {"type": "Order", "id": "unicorns", "sku": "unicorn", "count": 1},
    {"type": "Remove", "id": "plums", "sku": "plum", "depends_on": ["pears"]},
]


def called(agent: str, prompt: str) -> Reply:
    """The coordinator calls somebody."""
    return Reply(f"I ask {agent}.", calls=(Call("call_agent", {"agent": agent, "prompt": prompt}),))


def answered(request: ModelRequest) -> str:
    """What the newest call gave."""
    return next((m.content for m in reversed(request.messages) if isinstance(m, ToolResult)), "")


def handle(request: ModelRequest) -> str:
    """The handle in what the newest call gave."""
    return answered(request).partition('"ref":"')[2].partition('"')[0]


SCRIPTS: dict[str, list[Any]] = {
    "clerk": [
        called("counter", "What is in stock?"),
        called("planner", "Pears are sold out. Plan what to order."),
        called("buyer", "Execute the plan."),
        lambda request: Reply(f"This is what came of it: {answered(request)}"),
    ],
    "counter": [
        Reply(calls=(Call("read_stock"),)),
        lambda request: Reply(calls=(Call("sum_up", {"table": handle(request)}),)),
        lambda request: Reply(f"There are {answered(request)}."),
    ],
    "planner": [
        Reply(calls=(Call("storePlan", {"plan": {"reason": "pears are sold out", "actions": PROPOSED}}),)),
        lambda request: Reply(answered(request)),
    ],
    "buyer": [Reply(calls=(Call("executePlan"),)), lambda request: Reply(answered(request))],
}


def scripted(name: str) -> ScriptedModel:
    """The model of an agent."""

    def turn(request: ModelRequest) -> Reply:
        turns = SCRIPTS[name]
        # A question that was answered before starts the script anew.
        given = sum(isinstance(message, AssistantMessage) for message in request.messages) % len(turns)
        found = turns[given]
        made: Reply = found(request) if callable(found) else found
        return made

    return ScriptedModel(turn, name=f"shop/{name}")


RULES = ("rules", "Nothing is changed without an approved plan. Say what was done, and what was not.")
AGENTS = [
    define_coordinator(
        "clerk",
        model="shop/clerk",
        prompt=layered_prompt([("identity", "You run a small shop."), RULES]),
        routes=["counter", "planner", "buyer"],
    ),
    define_planner("planner", model="shop/planner", prompt="You plan changes of the stock.", plan=PLAN),
    define_executor("buyer", model="shop/buyer", prompt="You execute approved plans.", plan=PLAN),
    define_specialist("counter", model="shop/counter", prompt="You count.", tools=[read_stock, sum_up]),
]
runtime = define_runtime(
    tenant=define_tenant("shop"), agents=AGENTS, providers={"shop": scripted}, predicates={"large": is_large}
)


# A terminal of a few lines; `flux chat` and the page do the same, and more


def show(result: RunResult) -> None:
    """Say what came of a run."""
    for action in (result.plan or {}).get("actions", ()):
        sys.stdout.write(f"  {action['id']}: {action['status']}  {action.get('result', '')}\n")
    sys.stdout.write(f"{result.text or result.error}\n")


async def decide(shop: Runtime, result: RunResult) -> None:
    """Ask the person at the terminal about all that waits."""
    for question in result.pending_approvals:
        sys.stdout.write(f"\nMay this happen? {question.subject}\n")
        for step in question.args.get("steps", [{"name": question.agent, "description": str(question.args)}]):
            sys.stdout.write(f"  {step['name']}: {step['description']}\n")
        sys.stdout.write("y/n> ")
        sys.stdout.flush()
        said = await asyncio.to_thread(sys.stdin.readline)
        await shop.respond_to_approval(question.id, said.strip().lower().startswith("y"), "not now")


async def main(arguments: list[str]) -> None:
    """Serve, or run one change of the stock at the terminal."""
    async with runtime as shop:
        if "--serve" in arguments:
            ports = [int(text) for text in arguments if text.isdigit()] or [8000, 8080]
            await shop.serve(port=ports[0], page_port=ports[-1])
            return
        try:
            if "--again" in arguments:
                raise SessionNotFound
            result = await shop.settled("today")  # an earlier process may have begun
        except SessionNotFound:
            result = await shop.run("Look after the stock.", session="today")
        while result.state == "waiting":
            await decide(shop, result)
            result = await shop.settled(result.session)
        show(result)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
