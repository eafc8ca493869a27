"""A process whose agents plan and execute before it is killed, and the judge of what each action has really done."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from flux.agents.plans.state import newest
from flux.engine.intake.answers import Decision
from flux.errors import InterruptDecided, SessionNotFound
from flux.events import Entry, PlanChanged, SubagentChanged, ToolDone
from flux.messages import AssistantMessage
from flux.models.base import Model, ModelRequest
from flux.roles import (
    PendingApproval,
    Runtime,
    TaggedUnion,
    define_coordinator,
    define_executor,
    define_plan,
    define_planner,
    define_runtime,
    define_tenant,
    define_tool,
)
from flux.store import executions, log
from flux.store.database import Scope
from flux.store.opening import open_database
from flux.testing import Call, Reply, ScriptedModel
from tests.crash import judge
from tests.crash.opening import settings_of
from tests.crash.stage import Stage

OWNER = Scope("shop", "local")


class Pay(BaseModel):
    """Pay something; never twice."""

    bill: str


class Label(BaseModel):
    """Label something; again does no harm."""

    paid: str


class Ask(BaseModel):
    """Ask the person something."""

    question: str


class Books(BaseModel):
    """What is to be done."""

    actions: list[TaggedUnion[Pay, Label, Ask]]


PLAN = [
    {"type": "Pay", "id": "rent", "bill": "rent"},
    {"type": "Label", "id": "label", "paid": {"result_of": "rent", "path": "bill"}},
    {"type": "Pay", "id": "loan", "bill": "loan", "depends_on": ["label"]},
    {"type": "Pay", "id": "broken", "bill": "broken"},
    {"type": "Label", "id": "never", "paid": "x", "depends_on": ["broken"]},
    {"type": "Ask", "id": "whom", "question": "Whom to tip?"},
    {"type": "Pay", "id": "tip", "bill": {"result_of": "whom"}},
]
SCRIPTS: dict[str, list[Reply]] = {
    "boss": [
        Reply(calls=(Call("call_agent", {"agent": "planner", "prompt": "plan"}),)),
        Reply(calls=(Call("call_agent", {"agent": "doer", "prompt": "do"}),)),
        Reply("All is done."),
    ],
    "planner": [Reply(calls=(Call("storePlan", {"plan": {"actions": PLAN}}),)), Reply("stored")],
    "doer": [Reply(calls=(Call("executePlan"),)), Reply("executed")],
}


def runtime_of(stage: Stage) -> Runtime:
    """The runtime of this process."""

    async def pay(bill: str) -> dict[str, str]:
        """Pay a bill."""
        if bill == "broken":
            raise ValueError("there is no such bill")
        stage.effects.add("pay", bill=bill)
        stage.reach(f"paid-{bill}")
        return {"bill": bill}

    async def label(paid: str) -> str:
        """Label it."""
        stage.effects.add("label", paid=paid)
        stage.reach("labelled")
        return f"labelled {paid}"

    def model(name: str) -> Model:
        def turn(request: ModelRequest) -> Reply:
            given = sum(isinstance(message, AssistantMessage) for message in request.messages)
            return SCRIPTS[name][min(given, len(SCRIPTS[name]) - 1)]

        return ScriptedModel(turn, name=f"crash/{name}")

    gated = define_tool("pay", pay, approval={"kind": "dynamic", "value": "loans"})
    tools: dict[Any, Any] = {Pay: gated, Label: define_tool("label", label, effect="idempotent"), Ask: "ask_user"}
    plan = define_plan("books", schema=Books, actions=tools)
    return define_runtime(
        tenant=define_tenant(OWNER.tenant),
        agents=[
            define_coordinator("boss", model="crash/boss", prompt="Work.", routes=["planner", "doer"]),
            define_planner("planner", model="crash/planner", prompt="Plan.", plan=plan),
            define_executor("doer", model="crash/doer", prompt="Do.", plan=plan),
        ],
        providers={"crash": model},
        predicates={"loans": lambda request: request.args["bill"] == "loan"},
    )


@asynccontextmanager
async def opened(stage: Stage) -> AsyncIterator[Runtime]:
    """The runtime on the plan's home."""
    plan = stage.plan
    runtime = runtime_of(stage).on(
        settings=settings_of(stage),
        environment=dict(os.environ),
        workspace=stage.home,
        observer=stage.commits,
        worker=plan.worker,
    )
    async with runtime:
        stage.process = await runtime.process()
        yield runtime


async def books(stage: Stage) -> None:
    """A plan that is stored, approved, executed with a question in between, and told about."""
    async with opened(stage) as runtime:
        try:
            result = await runtime.settled("desk")
        except SessionNotFound:
            result = await runtime.run("Do it.", session="desk")
        while result.state == "waiting":
            for question in result.pending_approvals:
                with suppress(InterruptDecided):
                    await _answer(runtime, question)
            result = await runtime.settled("desk")
        stage.seen.add("result", state=result.state, text=result.text)


async def _answer(runtime: Runtime, question: PendingApproval) -> None:
    if question.kind != "input":
        await runtime.respond_to_approval(question.id, approved=True)
        return
    sessions = (await runtime.process()).sessions
    await sessions.answer(OWNER, question.session, question.id, Decision("answer", content="ana"))


SCENARIOS: dict[str, Callable[[Stage], Awaitable[None]]] = {"books": books}


def faults(home: Path, database: str = "") -> list[str]:
    """What is wrong with a home in which `books` has come to its end."""
    url = database or f"sqlite:///{home / 'flux' / 'flux.db'}"
    plan, logs = asyncio.run(_found(url))
    wrong = [fault for one in logs for fault in judge.log_faults(one)]
    if plan is None:
        return [*wrong, "there is no plan"]
    changes = [entry for one in logs for entry in one if isinstance(entry, PlanChanged)]
    wrong += _along(changes)
    ended = {action["id"]: action["status"] for action in plan["actions"]}
    effects = judge.effects(home)
    for action, bill in (("rent", "rent"), ("loan", "loan"), ("tip", "ana")):
        paid = sum(effect.name == "pay" and effect.detail["bill"] == bill for effect in effects)
        wrong += _judged(bill, ended[action], paid)
    if ended["whom"] != "done":
        wrong.append(f"the question of an action is {ended['whom']}")
    labelled = sum(effect.name == "label" for effect in effects)
    if (ended["label"] == "done") != (labelled > 0) and ended["label"] != "skipped":
        wrong.append(f"label is {ended['label']} and was done {labelled} times")
    if (ended["broken"], ended["never"]) not in (("failed", "skipped"), ("interrupted", "skipped")):
        wrong.append(f"what must fail ended so: {ended}")
    return wrong


def _judged(bill: str, status: str, paid: int) -> list[str]:
    fits = {"done": paid == 1, "interrupted": paid in (0, 1), "skipped": paid == 0}
    return [] if fits.get(status, False) else [f"{bill} is {status} and was paid {paid} times"]


def _along(changes: list[PlanChanged]) -> list[str]:
    states = [(change.revision, change.state) for change in changes]
    wanted = [(1, state) for state in ("draft", "awaiting_approval", "approved", "executing", "failed")]
    return [] if states == wanted else [f"the plan went through {states}"]


async def _found(url: str) -> tuple[dict[str, Any] | None, list[list[Entry]]]:
    database = await open_database(url)
    try:
        (row,) = await database.read(executions.list_sessions(OWNER, limit=10))
        plan = await newest(database, OWNER, row.id)
        own = await database.read(log.read(OWNER, row.id))
        started = [e for one in own if isinstance(e := one.stored().entry, SubagentChanged) and e.status == "started"]
        below = dict.fromkeys(entry.child for entry in started)
        logs = [own, *[await database.read(log.read(OWNER, child)) for child in below]]
        found = [[e for one in rows if isinstance(e := one.stored().entry, Entry)] for rows in logs]
        done = [e for one in found for e in one if isinstance(e, ToolDone) and e.name == "executePlan"]
        assert len(done) == 1, done
        return (plan.told() if plan is not None else None), found
    finally:
        await database.close()
