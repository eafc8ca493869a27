"""A small shop whose agents follow scripts, and what tests do with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from flux.events import Entry, PlanChanged
from flux.messages import AssistantMessage, ToolResult, UserMessage, text_of
from flux.models.base import ModelRequest
from flux.models.scripted import Turn
from flux.roles import (
    PlanSpec,
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
)
from flux.settings import Settings
from flux.store import executions, log
from flux.testing import Call, Reply, ScriptedModel

MODEL = "test/one"


class CreateItem(BaseModel):
    """Add an item."""

    sku: str
    count: int = Field(default=1, ge=0)


class Move(BaseModel):
    """Put some of an item somewhere else."""

    item: int
    place: str


class Restock(BaseModel):
    """A change of the stock."""

    summary: str
    actions: list[TaggedUnion[CreateItem, Move]]


class Shelf:
    """What the tools have done."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.broken: set[str] = set()
        self.running = 0
        self.most = 0

    async def create_item(self, sku: str, count: int = 1) -> dict[str, Any]:
        """Add an item to the stock."""
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0)
        self.running -= 1
        if sku in self.broken:
            raise ValueError(f"{sku} is not for sale")
        self.done.append(f"create {sku} {count}")
        return {"id": len(self.done), "sku": sku}

    async def move(self, item: int, place: str) -> str:
        """Move an item."""
        self.done.append(f"move {item} {place}")
        return f"moved to {place}"


#: What each agent says: turns by how many answers there are, or a function of the request.
Script = Mapping[str, Any]


def create(id: str, sku: str, *after: str, **more: Any) -> dict[str, Any]:
    """An action of a plan."""
    return {"type": "CreateItem", "id": id, "sku": sku, "depends_on": list(after), **more}


def call(agent: str, prompt: str) -> Reply:
    """The coordinator calls somebody."""
    return Reply("", calls=(Call("call_agent", {"agent": agent, "prompt": prompt}),))


def store(*actions: dict[str, Any]) -> Reply:
    """The planner stores a plan."""
    return Reply("", calls=(Call("storePlan", {"plan": {"summary": "new stock", "actions": list(actions)}}),))


def results(request: ModelRequest) -> str:
    """What the newest calls gave."""
    return next((m.content for m in reversed(request.messages) if isinstance(m, ToolResult)), "")


def said(request: ModelRequest) -> str:
    """What was said last."""
    return next((text_of(m.parts) for m in reversed(request.messages) if isinstance(m, UserMessage)), "")


EXECUTE = Reply("", calls=(Call("executePlan"),))
USUAL: Script = {
    "boss": [call("planner", "plan it"), call("doer", "do it"), Reply("All done.")],
    "planner": [store(create("a", "apple"), create("b", "pear", "a")), lambda r: Reply(results(r))],
    "doer": [EXECUTE, lambda r: Reply(results(r))],
    "counter": [Reply("Seven.")],
}


def plan_of(shelf: Shelf, **rules: Any) -> PlanSpec:
    """The plan, with its tools."""
    return define_plan(
        "restock",
        schema=Restock,
        actions={
            CreateItem: define_tool("create_item", shelf.create_item, approval=rules.get("create_item", "default")),
            Move: define_tool("move", shelf.move, approval=rules.get("move", "default")),
        },
    )


class Shop:
    """A runtime, its shelf and its models by agent."""

    def __init__(self, script: Script, tenant: str = "acme", **options: Any) -> None:
        self.shelf: Shelf = options.pop("shelf", None) or Shelf()
        self.script = script
        self.models: dict[str, ScriptedModel] = {}
        plan = plan_of(self.shelf, **options.pop("tool_rules", {}))
        common = {"model": None, "prompt": "Do your work."}
        more = options.pop("agents", {})

        def of(name: str) -> dict[str, Any]:
            return {**common, "model": f"test/{name}", **more.get(name, {})}

        self.runtime = define_runtime(
            tenant=define_tenant(tenant),
            agents=[
                define_coordinator("boss", routes=["planner", "doer", "counter"], **of("boss")),
                define_planner("planner", plan=plan, **of("planner")),
                define_executor("doer", plan=plan, **of("doer")),
                define_specialist("counter", **of("counter")),
            ],
            providers={"test": self.model},
            **options,
        )

    def model(self, name: str) -> ScriptedModel:
        """The model of an agent."""
        if name not in self.models:
            self.models[name] = ScriptedModel(lambda request: self._turn(name, request), name=f"test/{name}")
        return self.models[name]

    def _turn(self, name: str, request: ModelRequest) -> Turn:
        """By the script as it is now; of a list, by how many answers there are."""
        turns = self.script[name]
        if callable(turns):
            whole: Turn = turns(request)
            return whole
        given = sum(isinstance(message, AssistantMessage) for message in request.messages)
        found: Any = turns[min(given, len(turns) - 1)]
        made: Turn = found(request) if callable(found) else found
        return made

    @asynccontextmanager
    async def open(self, home: Path, **more: Any) -> AsyncIterator[Runtime]:
        """The runtime on a home."""
        settings = Settings(home=home, synchronous="normal", **more)
        async with self.runtime.on(settings=settings, environment={}, workspace=home) as runtime:
            yield runtime


async def entries(runtime: Runtime, session: str) -> list[Entry]:
    """The log of a session."""
    process = await runtime.process()
    rows = await process.database.read(log.read(runtime.scope, session))
    return [stored.entry for row in rows if isinstance((stored := row.stored()).entry, Entry)]


async def states(runtime: Runtime, session: str) -> list[tuple[int, str]]:
    """The states that the plan of a session went through."""
    process = await runtime.process()
    row = await process.database.read(executions.get(runtime.scope, session))
    assert row is not None
    rows = await process.database.read(log.read_in_tree(runtime.scope, row.root, PlanChanged))
    return [(e.revision, e.state) for one in rows if isinstance(e := one.stored().entry, PlanChanged)]


def ended(result_plan: dict[str, Any] | None) -> dict[str, str]:
    """How the actions of a plan ended."""
    assert result_plan is not None
    return {action["id"]: action["status"] for action in result_plan.get("actions", ())}
