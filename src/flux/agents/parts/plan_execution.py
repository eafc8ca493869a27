"""`executePlan`: each action of an approved plan by its tool, through the gate, and remembered one by one."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from flux.agents.define.approval import Predicate, judged
from flux.agents.define.typed_plan import TypedPlan
from flux.agents.history.results import Keeper
from flux.agents.plans.checks import Action, actions_of, digest_of, with_results
from flux.agents.plans.state import STOPPED, StoredPlan, after, current
from flux.agents.turn import gate
from flux.agents.turn.loop import Session
from flux.agents.turn.questions import question_of
from flux.engine.dispatching.upkeep import to_the_end
from flux.engine.workflows.nested import Rested, run_nested
from flux.engine.workflows.pause import sleep
from flux.engine.workflows.questions import ask_person
from flux.engine.workflows.services import Services
from flux.engine.workflows.task import task
from flux.errors import ApprovalRejected, ExecutionError, ExecutionInterrupted, ExecutionTimeoutError, PlanInvalid
from flux.messages import ToolCall
from flux.store import interrupts
from flux.tools.base import Answer, Done, Failed, Later, NeedsInput, Tool, ToolContext, ToolOutcome
from flux.tools.kept import cut
from flux.tools.references import as_handles
from flux.tools.rules import ApprovalRequest
from flux.tools.schema import validate

#: Characters of an action's result in the report; others take it whole.
SHOWN = 400
DESCRIPTION = """Execute the approved plan: every action by its tool, in the order of what depends on what, and at the
same time where nothing does. Returns how each action ended."""


class Ended(Struct, frozen=True):
    """How an action ended; `value` is its result, as JSON, and `said` what there is to read."""

    id: str
    status: str
    said: str = ""
    value: Any = None

    def told(self) -> dict[str, Any]:
        """It in the report."""
        shown = self.said if len(self.said) <= SHOWN else f"{self.said[:SHOWN]}…"
        return {"id": self.id, "status": self.status, **({"result": shown} if shown else {})}


class Execution:
    """Executes the plans of one session on this worker."""

    def __init__(
        self,
        session: Session,
        kind: TypedPlan,
        tools: Mapping[str, Tool],
        predicates: Mapping[str, Predicate],
        services: Services,
    ) -> None:
        self._session = session
        self._kind = kind
        self._tools = tools
        self._predicates = predicates
        self._services = services

    def tool(self) -> Tool:
        """`executePlan`. Its journal knows what was done, so it may be taken up again."""
        version = {"type": "integer", "minimum": 1, "description": "Only if this is the newest version of the plan."}
        return Tool(
            name="executePlan",
            description=DESCRIPTION,
            parameters={"type": "object", "properties": {"version": version}},
            run=self._run,
            effect="idempotent",
            source="plan",
            part_of_run=True,
        )

    async def _run(self, args: dict[str, Any], context: ToolContext) -> ToolOutcome:
        run = self._session.run
        plan = await current(run, self._kind.name)
        problem = self._problem(plan, args.get("version"), context.call)
        if plan is None or problem is not None:
            return self._refused(plan, problem or "There is no plan to execute.", context.call)
        if plan.state == "approved":
            entry = plan.to("executing", context.call)
            await run.append(entry)
            plan = after(plan, entry)
        ended: dict[str, Ended] = {}
        try:
            outcome = await run_nested(run, self._services, context.call, lambda: self._all(plan, context, ended))
        except asyncio.CancelledError:
            if not run.draining.is_set():
                await to_the_end(self._cancelled(plan, ended, context.call))
            raise
        if isinstance(outcome, Rested):
            return Later(outcome.due)
        return self._report(plan, ended, context.call)

    def _problem(self, plan: StoredPlan | None, version: int | None, call: str) -> str | None:
        """Why the plan cannot be executed by this call."""
        if plan is None:
            return "There is no plan to execute."
        if version is not None and version != plan.version:
            return f"Version {version} of the plan is outdated: the newest is {plan.version}, and it is {plan.state}."
        if plan.digest != digest_of(plan.value):
            return f"Version {plan.version} of the plan is not what was approved."
        if plan.state == "executing" and plan.call == call:
            return None
        if plan.stale:
            return f"Version {plan.version} of the plan was stopped while it was executed; store what is left to do."
        if plan.state == "executing":
            return f"Version {plan.version} of the plan is being executed already."
        if plan.state != "approved":
            return f"Version {plan.version} of the plan is {plan.state}: only an approved plan is executed."
        return None

    def _refused(self, plan: StoredPlan | None, problem: str, call: str) -> ToolOutcome:
        stale = plan is not None and plan.stale
        entries = (plan.to("cancelled", call, reason=STOPPED),) if plan is not None and stale else ()
        return Failed(problem, entries=entries)

    async def _cancelled(self, plan: StoredPlan, ended: Mapping[str, Ended], call: str) -> None:
        told = self._told(plan, ended)
        await self._session.run.append(plan.to("cancelled", call, reason=STOPPED, actions=told))

    def _report(self, plan: StoredPlan, ended: Mapping[str, Ended], call: str) -> ToolOutcome:
        told = self._told(plan, ended)
        failed = [one["id"] for one in told if one["status"] != "done"]
        entry = plan.to("failed" if failed else "completed", call, actions=told)
        text = msgspec.json.encode({"plan": plan.name, "version": plan.version, "state": entry.state, "actions": told})
        if failed:
            return Failed(f"Not every action was done: {', '.join(failed)}. {text.decode()}", entries=(entry,))
        return Done(text.decode(), (entry,))

    def _told(self, plan: StoredPlan, ended: Mapping[str, Ended]) -> tuple[dict[str, Any], ...]:
        actions = actions_of(self._kind, plan.value)
        return tuple(ended.get(action.id, Ended(action.id, "not run")).told() for action in actions)

    # The code whose tasks the journal remembers

    async def _all(self, plan: StoredPlan, context: ToolContext, ended: dict[str, Ended]) -> None:
        """Every action, each in a branch of its own, in the order of the plan: so that a branch is found again."""
        actions = actions_of(self._kind, plan.value)
        slots = asyncio.Semaphore(self._session.policy.definition.max_concurrent_tools)
        done: dict[str, asyncio.Task[Ended]] = {}

        async def branch(action: Action) -> Ended:
            needed = [await asyncio.shield(done[id]) for id in action.needs]
            ended[action.id] = await self._one(action, needed, plan, context, slots)
            return ended[action.id]

        for action in actions:
            done[action.id] = asyncio.create_task(branch(action), name=f"action {action.id}")
        try:
            await asyncio.gather(*done.values())
        finally:
            for one in done.values():
                one.cancel()

    async def _one(
        self,
        action: Action,
        needed: list[Ended],
        plan: StoredPlan,
        context: ToolContext,
        slots: asyncio.Semaphore,
    ) -> Ended:
        missing = [one.id for one in needed if one.status != "done"]
        if missing:
            return Ended(action.id, "skipped", f"{', '.join(missing)} was not done")
        tool = self._tools[action.type]
        try:
            args = self._arguments(action, tool, {one.id: one.value for one in needed})
        except PlanInvalid as error:
            return Ended(action.id, "failed", str(error))
        try:
            return await self._gated(action, tool, args, context, slots)
        except ApprovalRejected as error:
            return Ended(action.id, "denied", str(error))
        except ExecutionInterrupted as error:
            return Ended(action.id, "interrupted", str(error))
        except ExecutionTimeoutError as error:
            return Ended(action.id, "failed", f"[timed out] {error}")
        except ExecutionError as error:
            return Ended(action.id, "failed", str(error))

    def _arguments(self, action: Action, tool: Tool, results: Mapping[str, Any]) -> dict[str, Any]:
        found = validate(tool.parameters, as_handles(tool.parameters, with_results(action.args, results)))
        if found.errors:
            raise PlanInvalid(f"the arguments do not fit {tool.name}: {'; '.join(found.errors)}")
        return found.args

    async def _gated(
        self, action: Action, tool: Tool, args: dict[str, Any], context: ToolContext, slots: asyncio.Semaphore
    ) -> Ended:
        async def decide(action: str, tool: str, digest: str) -> dict[str, str]:
            return await self._decision(args, self._by_name(tool))

        async def act(action: str, args: dict[str, Any]) -> dict[str, Any]:
            async with slots:
                return await self._act(action, tool, args, context, tuple(answers))

        digest = interrupts.digest_of(tool.name, args)
        decided = await _task("gate", decide)(action.id, tool.name, digest)
        if decided["verdict"] == "deny":
            return Ended(action.id, "denied", f"[denied: {decided['rule']}]")
        answers: list[Answer] = []
        call = _task(tool.name, act).with_options(
            effect="once" if tool.effect == "once" else None, timeout=tool.timeout or 0
        )
        # Each time that it acts is a task of its own: what it came to wait for lies between two of them.
        found = await call.with_options(requires_approval=decided["verdict"] == "ask")(action.id, args)
        while "said" not in found:
            answers += await self._awaited(action, found, context.call)
            found = await call(action.id, args)
        return Ended(action.id, "done", found["said"], found["value"])

    async def _awaited(self, action: Action, found: Mapping[str, Any], within: str) -> tuple[Answer, ...]:
        """Wait for what an action needs: a time, or a person, however long that takes.

        :raises ApprovalRejected: a person has rejected what it wanted to do
        """
        if "seconds" in found:
            await sleep(found["seconds"])
            return ()
        needed = NeedsInput(found["kind"], found["asked"])
        run, digest = self._session.run, str(needed.payload.get("digest", ""))
        question, answer = await ask_person(
            needed.kind, action.id, lambda id, call: question_of(needed, id, call, run, within), digest
        )
        if needed.kind == "plan" and answer.decision != "approve":
            raise ApprovalRejected(f"rejected by {answer.by}{f': {answer.reason}' if answer.reason else ''}")
        return (Answer(answer.decision, answer.content, answer.reason, question),)

    def _by_name(self, name: str) -> Tool:
        return next(tool for tool in self._tools.values() if tool.name == name)

    async def _decision(self, args: dict[str, Any], tool: Tool) -> dict[str, str]:
        """The gate's; the journal keeps it, so that nothing is asked twice."""
        run, definition = self._session.run, self._session.policy.definition
        need, _ = gate.needed(tool, args, definition)
        request = ApprovalRequest("tools", definition.name, tool.name, args)
        verdicts = await judged(need.predicates, self._predicates, request)
        grants = await run.database.read(interrupts.grants(run.scope, run.id))
        decision = gate.decide(tool, args, definition, grants, verdicts)
        return {"verdict": decision.verdict, "rule": decision.rule}

    async def _act(
        self, action: str, tool: Tool, args: dict[str, Any], context: ToolContext, answers: tuple[Answer, ...]
    ) -> dict[str, Any]:
        """Run the tool: what it said, or what it waits for. The id of its call is the same after a crash."""
        call = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{context.call}/action/{action}"))
        keeper = Keeper(self._session.run, ToolCall(call, tool.name))
        # It cannot ask while it goes on: what it asks is written down when it has come to rest.
        inner = ToolContext(
            session=context.session,
            call=call,
            sandbox=context.sandbox,
            output=context.output,
            answers=answers,
            resources=context.resources,
            keep=keeper.keep,
            recall=context.recall,
        )
        outcome = await tool.run(args, inner)
        match outcome:
            case Failed(content=content):
                raise ExecutionError(content)
            case NeedsInput(kind=kind, payload=payload):
                return {"kind": kind, "asked": payload}
            case Later(due=due):
                if due is None:
                    raise ExecutionError(f"{tool.name} waits for something else than a time or a person")
                return {"seconds": max(0.0, due - self._session.now())}
        said = await cut(outcome.content, tool.max_output_chars, inner)
        whole = len(outcome.content) <= tool.max_output_chars
        return {"said": said, "value": _value(outcome.content) if whole else said}


def _task(name: str, function: Callable[..., Awaitable[Any]]) -> task[..., Any]:
    made: task[..., Any] = task(function)
    return made.with_options(name=name.replace("{", "").replace("}", ""))


def _value(content: str) -> Any:
    """A result as others take it: JSON where it is, else the text."""
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return content
