"""Typed plans for a session: storing them, with a person's approval, and executing those that are approved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from flux.agents.define.approval import Predicate, judged, plan_need
from flux.agents.define.definition import AgentDefinition
from flux.agents.define.named import CheckPlan
from flux.agents.define.typed_plan import TypedPlan
from flux.agents.parts.plan_execution import Execution
from flux.agents.plans.checks import Checked, actions_of, check_plan
from flux.agents.plans.references import reference_tools
from flux.agents.plans.state import STOPPED, StoredPlan, after, current, drafted
from flux.agents.turn.kits import Kit
from flux.agents.turn.loop import Session
from flux.engine.workflows.services import Services
from flux.errors import PlanInvalid
from flux.events import PlanReview
from flux.tools.base import Answer, Done, Failed, NeedsInput, Tool, ToolContext, ToolOutcome
from flux.tools.function import tool_of
from flux.tools.rules import ApprovalRequest, Need

NO_PLAN = "There is no plan yet; storePlan stores one."
STORE = "Store a new version of the plan. A person may have to approve it; the result says what came of that."
STORES = """Store the plan with `storePlan`: the whole of it, each time. Give each action an `id`; name in `depends_on`
those that must be done before. Where an action needs what another one gives, write
`{"result_of": "ID", "path": "a.b"}` in the place of the value. Faults come back with their paths: put them right and
store again."""
EXECUTES = """`executePlan` executes the plan once it is approved, each action by its tool, and reports how each ended.
When it was not approved, or an action failed, say so: only a new version that is approved can be executed again."""


class PlanSource(Protocol):
    """What the process knows of an agent's plan: the tools of its actions, predicates, and its further check."""

    def plan_check(self, plan: TypedPlan) -> CheckPlan | None:
        """What checks more than the schema."""
        ...

    def action_tools(self, definition: AgentDefinition) -> Mapping[str, Tool]:
        """The tools of actions by their types."""
        ...

    def predicates_of(self, definition: AgentDefinition) -> Mapping[str, Predicate]:
        """Predicates by id, those that the definition names too."""
        ...


class PlanKits:
    """Makes the kit of sessions whose agent works with a typed plan."""

    def __init__(self, source: PlanSource, services: Services) -> None:
        self._source = source
        self._services = services

    async def __call__(self, session: Session) -> Kit | None:
        """The kit; None when the agent has no plan."""
        definition = session.policy.definition
        kind = definition.plan
        if kind is None or definition.approval_mode == "never":
            return None
        predicates = self._source.predicates_of(definition)
        desk = PlanDesk(session, kind, predicates, self._source.plan_check(kind))
        tools: list[Tool] = []
        if "store" in kind.may:
            tools.append(desk.store_tool())
        tools.append(tool_of(desk.get_plan, effect="read", source="plan").named("getPlan"))
        if "execute" in kind.may:
            execution = Execution(session, kind, self._source.action_tools(definition), predicates, self._services)
            tools += [execution.tool(), *reference_tools()]
        return Kit(tuple(tools), _section(kind))


class PlanDesk:
    """Where a session stores its plan and looks at it. The log is the truth."""

    def __init__(
        self, session: Session, kind: TypedPlan, predicates: Mapping[str, Predicate], check: CheckPlan | None
    ) -> None:
        self._session = session
        self._kind = kind
        self._predicates = predicates
        self._check = check

    def store_tool(self) -> Tool:
        """`storePlan`: the model is shown the whole schema; faults are found by us, because that tells more."""
        schema = dict(self._kind.json_schema)
        definitions = schema.pop("$defs", {})
        shape = {"type": "object", "required": ["plan"]}
        return Tool(
            name="storePlan",
            description=f"{STORE} {self._kind.description}".strip(),
            parameters={**shape, "properties": {"plan": schema}, "$defs": definitions},
            checked={**shape, "properties": {"plan": {"type": "object"}}},
            run=self._store,
            effect="idempotent",
            source="plan",
            part_of_run=True,
        )

    async def get_plan(self) -> ToolOutcome:
        """Look at the plan: its newest version, its state, and how its actions ended."""
        plan = await current(self._session.run, self._kind.name)
        return Done(msgspec.json.encode(plan.told()).decode() if plan is not None else NO_PLAN)

    async def _store(self, args: dict[str, Any], context: ToolContext) -> ToolOutcome:
        run, plan = self._session.run, await current(self._session.run, self._kind.name)
        answer = context.answer
        if answer is not None and isinstance(answer.question, PlanReview) and plan is not None:
            return self._decided(plan, answer, context.call)
        if plan is not None and plan.call == context.call and plan.state == "awaiting_approval":
            return self._review(plan)  # it was interrupted before it had asked
        if plan is not None and plan.call == context.call and plan.state == "approved":
            return Done(_approved(plan))
        if plan is not None and plan.state == "executing" and not plan.stale:
            return Failed(f"Version {plan.version} of the plan is being executed; wait for its report.")
        try:
            checked = self._checked(args["plan"])
        except PlanInvalid as error:
            return Failed(f"The plan does not fit: {error}")
        asks, rule = await self._asks(checked)
        if plan is not None and plan.stale:
            await run.append(plan.to("cancelled", context.call, reason=STOPPED))
        entry = drafted(self._kind.name, plan, checked, context.call)
        draft = after(plan, entry)
        waiting = draft.to("awaiting_approval", context.call, rule=rule)
        plan = after(draft, waiting)
        if asks:
            await run.append(entry, waiting)
            return self._review(plan)
        approved = plan.to("approved", context.call, rule=rule)
        return Done(_approved(after(plan, approved)), (entry, waiting, approved))

    def _checked(self, value: Mapping[str, Any]) -> Checked:
        checked = check_plan(self._kind, value)
        faults = self._check(checked.value) if self._check is not None else []
        if faults:
            raise PlanInvalid("; ".join(faults), faults=faults)
        return checked

    async def _asks(self, checked: Checked) -> tuple[bool, str]:
        """Whether a person is asked; decided once, the log keeps it."""
        definition = self._session.policy.definition
        need, rule = plan_need(definition.approvals)
        if definition.approval_mode == "always":
            need, rule = Need(ask=True), "approval_mode: always"
        request = ApprovalRequest("plans", definition.name, self._kind.name, checked.value)
        return need.asks(await judged(need.predicates, self._predicates, request)), rule

    def _review(self, plan: StoredPlan) -> NeedsInput:
        steps = [_step(self._kind, action) for action in actions_of(self._kind, plan.value)]
        return NeedsInput("plan", {"steps": steps, "digest": plan.digest, "plan": plan.name})

    def _decided(self, plan: StoredPlan, answer: Answer, call: str) -> ToolOutcome:
        if plan.state != "awaiting_approval":
            return Failed(f"Version {plan.version} of the plan is {plan.state}.")
        asked = answer.question
        if isinstance(asked, PlanReview) and asked.digest != plan.digest:
            return Failed("The plan has changed since it was shown; store it again.")
        reason = f": {answer.reason}" if answer.reason else ""
        if answer.decision == "approve":
            return Done(_approved(plan), (plan.to("approved", call),))
        said = f"Version {plan.version} of the plan was rejected by a person{reason}"
        return Failed(said, entries=(plan.to("rejected", call, reason=answer.reason or ""),))


def _approved(plan: StoredPlan) -> str:
    return f"Version {plan.version} of the plan is approved and may be executed."


def _step(kind: TypedPlan, action: Any) -> dict[str, Any]:
    """An action as people are shown it."""
    tool = kind.actions[action.type]
    named = tool if isinstance(tool, str) else tool.get("function", action.type)
    args = msgspec.json.encode(action.args).decode()
    return {
        "name": action.id,
        "description": f"{action.type} by {named}: {args}",
        "depends_on": list(action.needs),
        "state": "pending",
    }


def _section(kind: TypedPlan) -> str:
    said = [f"# The plan {kind.name}", kind.description]
    said += [STORES] if "store" in kind.may else []
    said += [EXECUTES] if "execute" in kind.may else []
    return "\n\n".join(part for part in said if part)
