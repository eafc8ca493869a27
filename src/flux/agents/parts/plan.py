"""Planning for a session: the tools by which a model makes a plan and works by it, and their part of the prompt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from pydantic import BaseModel, Field

from flux.agents.define.definition import AgentDefinition
from flux.agents.history.plan import Plan, Step, drafted, edited
from flux.agents.turn.kits import Kit
from flux.agents.turn.loop import Session
from flux.errors import PlanInvalid
from flux.events import Planned, PlanReview
from flux.tools.base import Answer, Done, Failed, NeedsInput, Tool, ToolContext, ToolOutcome
from flux.tools.function import tool_of

SECTION = """# Planning

For work of more than a few steps, make a plan with `create_plan` before you begin, and keep it true: `start_step`
before each step, `mark_step_done` with what came of it, `mark_step_failed` with the reason. Each step may start when
those it depends on are done; `get_ready_steps` lists these. When the plan turns out wrong, call `create_plan` again:
steps that are done stay."""
REVIEWED = " A person reviews each plan before its first step; what they say against it comes back to you."
IN_REVIEW = "the plan waits for a person's review; no step can change before that is decided"
NO_PLAN = "There is no plan; create_plan makes one."


class PlannedStep(BaseModel):
    """A step as the model gives it."""

    name: Annotated[str, Field(description="A short name, unique in the plan.")]
    description: Annotated[str, Field(description="What is to be done, and how to tell that it is.")] = ""
    depends_on: Annotated[list[str], Field(description="Names of steps that must be done before.")] = []


class Planner:
    """The plan of one session on this worker.

    The log is the truth. What the calls of one wave change is in the log already, but not read back before their
    wave is over: until then it is kept here.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._definition = session.policy.definition
        self._head = -1
        self._plan = Plan()
        self._asked = False

    def tools(self) -> tuple[Tool, ...]:
        """All of them. What changes a plan changes nothing else, so it may be done again after a crash."""
        changing = (self.create_plan, self.start_step, self.mark_step_done, self.mark_step_failed)
        looking = (self.get_plan, self.get_ready_steps)
        return (
            *(tool_of(function, effect="idempotent", source="planning") for function in changing),
            *(tool_of(function, effect="read", source="planning") for function in looking),
        )

    def prompt(self) -> str:
        """The section of the system prompt, with the plan as it is now."""
        plan = self.current()
        said = SECTION + (REVIEWED if self._definition.approve_plan else "")
        return f"{said}\n\nThe plan as it was here:\n\n{plan.text()}" if plan.steps and not plan.over else said

    def current(self) -> Plan:
        """The plan as it is."""
        log = self._session.log
        if log.head != self._head:
            self._head, self._plan = log.head, Plan.of(log.plan)
            calls = log.run.calls.values() if log.run else ()
            self._asked = any(state.waiting and isinstance(state.question, PlanReview) for state in calls)
        return self._plan

    async def create_plan(self, context: ToolContext, steps: list[PlannedStep]) -> ToolOutcome:
        """Make a plan, or a new one in place of what is left of the present one. Steps that are done stay.

        Args:
            steps: The steps, in the order you would do them.
        """
        before, most = self.current(), self._definition.max_plan_steps
        answer = context.answer
        try:
            if answer is not None and isinstance(answer.question, PlanReview):
                return self._approved(answer, answer.question, most)
            self._check_decided()
            plan = before.replanned(drafted(step.model_dump() for step in steps), most)
        except PlanInvalid as error:
            return Failed(str(error))
        if self._definition.approve_plan:
            self._asked = True
            return _review(plan)
        return self._changed(plan, "The plan is made.")

    async def start_step(self, step: str) -> ToolOutcome:
        """Say that you begin with a step.

        Args:
            step: The name of the step.
        """
        return self._change(lambda plan: plan.started(step), f"Step {step!r} is running.")

    async def mark_step_done(self, step: str, result: str) -> ToolOutcome:
        """Say that a step is done.

        Args:
            step: The name of the step.
            result: What came of it, in a few words.
        """
        return self._change(lambda plan: plan.done(step, result), f"Step {step!r} is done.")

    async def mark_step_failed(self, step: str, reason: str) -> ToolOutcome:
        """Say that a step cannot be done.

        Args:
            step: The name of the step.
            reason: Why.
        """
        return self._change(lambda plan: plan.failed(step, reason), f"Step {step!r} has failed.")

    async def get_plan(self) -> ToolOutcome:
        """Look at the whole plan."""
        return Done(self.current().text() or NO_PLAN)

    async def get_ready_steps(self) -> ToolOutcome:
        """List the steps that can be started now."""
        plan = self.current()
        return Done(_ready(plan) if plan.steps else NO_PLAN)

    def _change(self, change: Callable[[Plan], Plan], said: str) -> ToolOutcome:
        try:
            plan = self.current()
            self._check_decided()
            if not plan.steps:
                return Failed(NO_PLAN)
            return self._changed(change(plan), said)
        except PlanInvalid as error:
            return Failed(str(error))

    def _changed(self, plan: Plan, said: str) -> Done:
        """The plan is this from now on; its entry comes into the log with the call's result."""
        self._plan = plan
        return Done(f"{said} {_ready(plan)}", (Planned(steps=plan.told(), digest=plan.digest),))

    def _approved(self, answer: Answer, asked: PlanReview, most: int) -> ToolOutcome:
        """The plan that a person approved, as it was or with steps of their own."""
        if answer.content is None:
            return self._changed(Plan.of(asked.steps), "The plan is approved.")
        try:
            plan = edited(asked.steps, answer.content, most)
        except PlanInvalid:
            self._asked = True
            return _review(Plan.of(asked.steps))
        changed = self._changed(plan, "The plan is approved with changes.")
        return Done(f"{changed.content}\n\n{plan.text()}", changed.entries)

    def _check_decided(self) -> None:
        if self._asked:
            raise PlanInvalid(IN_REVIEW)


def plans(definition: AgentDefinition) -> bool:
    """Whether an agent has the tools of planning."""
    return definition.planning and definition.approval_mode != "never"


async def plan_kit(session: Session) -> Kit | None:
    """Planning, for agents that have it."""
    if not plans(session.policy.definition):
        return None
    planner = Planner(session)
    return Kit(planner.tools(), planner.prompt)


def _review(plan: Plan) -> NeedsInput:
    return NeedsInput("plan", {"steps": list(plan.told()), "digest": plan.digest})


def _ready(plan: Plan) -> str:
    if plan.over:
        return "Every step is done."
    ready = plan.ready()
    if ready:
        return f"Ready to start: {', '.join(_named(step) for step in ready)}."
    running = [step.name for step in plan.steps if step.state == "running"]
    if running:
        return f"No further step can start before this is done: {', '.join(running)}."
    failed = [step.name for step in plan.steps if step.state == "failed"]
    waiting = dict.fromkeys(name for step in failed for name in plan.waiting_for(step))
    if waiting:
        return f"No step can start: {', '.join(failed)} failed, and {', '.join(waiting)} need it. Plan again."
    return f"Nothing is left to do; failed: {', '.join(failed)}."


def _named(step: Step) -> str:
    return repr(step.name)
