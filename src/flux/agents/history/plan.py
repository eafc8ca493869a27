"""Plans: the steps an agent works by, as values. A change gives a new plan; one that makes no sense is refused."""

from __future__ import annotations

import graphlib
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from flux.errors import PlanInvalid
from flux.suggest import unknown
from flux.tools.text import clip

#: The tools of planning.
TOOLS = ("create_plan", "start_step", "mark_step_done", "mark_step_failed", "get_plan", "get_ready_steps")
MAX_NAME = 100
MAX_TEXT = 2_000
FINISHED = ("done", "failed")
#: What a step may be given with; the rest of a step is its progress.
GIVEN = ("name", "description", "depends_on")
PROGRESS = ("state", "result", "reason")


class Step(Struct, frozen=True):
    """One step. It may start when those it depends on are done. `result` of a done one, `reason` of a failed one."""

    name: str
    description: str = ""
    depends_on: tuple[str, ...] = ()
    state: Literal["pending", "running", "done", "failed"] = "pending"
    result: str | None = None
    reason: str | None = None

    def told(self) -> dict[str, Any]:
        """The step as JSON."""
        said = {"name": self.name, "description": self.description, "depends_on": list(self.depends_on)}
        ended = {"result": self.result, "reason": self.reason}
        return {**said, "state": self.state, **{key: text for key, text in ended.items() if text is not None}}


class Plan(Struct, frozen=True):
    """Steps in the order they were planned in; what they depend on has no circles."""

    steps: tuple[Step, ...] = ()

    @classmethod
    def of(cls, steps: Iterable[Mapping[str, Any]]) -> Plan:
        """The plan of what `told` gave."""
        return cls(msgspec.convert(list(steps), tuple[Step, ...]))

    def told(self) -> tuple[dict[str, Any], ...]:
        """The plan as JSON, step by step."""
        return tuple(step.told() for step in self.steps)

    @property
    def digest(self) -> str:
        """The identity of what is planned, whatever of it is done."""
        planned = [[step.name, step.description, step.depends_on] for step in self.steps]
        return hashlib.sha256(msgspec.json.encode(planned)).hexdigest()[:32]

    @property
    def over(self) -> bool:
        """Whether every step is done."""
        return all(step.state == "done" for step in self.steps)

    def ready(self) -> tuple[Step, ...]:
        """The steps that may start now."""
        return tuple(step for step in self.steps if step.state == "pending" and not self._missing(step))

    def replanned(self, given: Sequence[Step], most: int) -> Plan:
        """A plan of these steps; what is finished is kept, unless the whole plan is. At most `most` unfinished steps.

        :raises PlanInvalid: the steps make no plan
        """
        running = {step.name for step in self.steps if step.state == "running"}
        given = [replace(step, state="running") if step.name in running else step for step in given]
        return _merged(() if self.over else _finished(self.steps), given, most)

    def started(self, name: str) -> Plan:
        """The plan with a step running.

        :raises PlanInvalid: it cannot start now
        """
        step = self._step(name)
        if step.state in ("running", "done"):
            raise PlanInvalid(f"step {name!r} is {step.state} already")
        self._check_ready(step)
        return self._with(replace(step, state="running", reason=None))

    def done(self, name: str, result: str) -> Plan:
        """The plan with a step done.

        :raises PlanInvalid: it is finished already, or cannot start yet
        """
        step = self._unfinished(name)
        self._check_ready(step)
        return self._with(replace(step, state="done", result=clip(result, MAX_TEXT)))

    def failed(self, name: str, reason: str) -> Plan:
        """The plan with a step failed.

        :raises PlanInvalid: it is finished already
        """
        return self._with(replace(self._unfinished(name), state="failed", reason=clip(reason, MAX_TEXT)))

    def waiting_for(self, name: str) -> tuple[str, ...]:
        """The steps that cannot start before this one is done, near and far."""
        found = {name}
        for _ in self.steps:
            found |= {step.name for step in self.steps if found & set(step.depends_on)}
        return tuple(step.name for step in self.steps if step.name in found - {name} and step.state != "done")

    def text(self) -> str:
        """The plan for a model to read."""
        return "\n".join(f"{number}. {_line(step)}" for number, step in enumerate(self.steps, 1))

    def _step(self, name: str) -> Step:
        found = next((step for step in self.steps if step.name == name), None)
        if found is None:
            raise PlanInvalid(unknown("step", name, [step.name for step in self.steps]))
        return found

    def _unfinished(self, name: str) -> Step:
        step = self._step(name)
        if step.state in FINISHED:
            again = "; start it again first" if step.state == "failed" else ""
            raise PlanInvalid(f"step {name!r} is {step.state} already{again}")
        return step

    def _check_ready(self, step: Step) -> None:
        missing = self._missing(step)
        if missing:
            raise PlanInvalid(f"step {step.name!r} must wait for {', '.join(missing)}")

    def _missing(self, step: Step) -> list[str]:
        done = {one.name for one in self.steps if one.state == "done"}
        return [name for name in step.depends_on if name not in done]

    def _with(self, changed: Step) -> Plan:
        return Plan(tuple(changed if step.name == changed.name else step for step in self.steps))


def drafted(given: Iterable[Any]) -> tuple[Step, ...]:
    """The steps that somebody planned: mappings of name, description and depends_on.

    :raises PlanInvalid: one of them is no step
    """
    return tuple(_drafted(number, step) for number, step in enumerate(given, 1))


def edited(reviewed: Iterable[Mapping[str, Any]], content: Any, most: int) -> Plan:
    """A reviewed plan with the steps a person put in its place, `{"steps": [...]}`; finished steps stay.

    :raises PlanInvalid: these make no plan
    """
    if not isinstance(content, Mapping) or set(content) != {"steps"} or not isinstance(content["steps"], list):
        raise PlanInvalid('an edited plan has the form {"steps": [{"name": ..., "description": ...}, ...]}')
    given = [step for step in content["steps"] if not (isinstance(step, Mapping) and step.get("state") in FINISHED)]
    return _merged(_finished(Plan.of(reviewed).steps), drafted(given), most)


def _drafted(number: int, given: Any) -> Step:
    if not isinstance(given, Mapping):
        raise PlanInvalid(f"step {number} must be a mapping with a name, not {given!r:.80}")
    for field in given:
        if field not in (*GIVEN, *PROGRESS):
            raise PlanInvalid(f"step {number}: {unknown('field', str(field), GIVEN)}")
    fields = {field: given[field] for field in GIVEN if given.get(field) is not None}
    try:
        step = msgspec.convert(fields, Step)
    except msgspec.ValidationError as error:
        raise PlanInvalid(f"step {number}: {error}") from error
    needed = tuple(dict.fromkeys(_one_line(name) for name in step.depends_on))
    step = replace(step, name=_one_line(step.name), depends_on=needed)
    if not 0 < len(step.name) <= MAX_NAME:
        raise PlanInvalid(f"step {number}: its name must have between 1 and {MAX_NAME} characters")
    if len(step.description) > MAX_TEXT:
        raise PlanInvalid(f"step {step.name!r}: its description has more than {MAX_TEXT:,} characters")
    return step


def _one_line(name: str) -> str:
    return " ".join(name.split())


def _finished(steps: Iterable[Step]) -> tuple[Step, ...]:
    return tuple(step for step in steps if step.state in FINISHED)


def _merged(finished: Sequence[Step], given: Sequence[Step], most: int) -> Plan:
    """Finished steps, and behind them those given; one that has failed and is given again is another try."""
    names = [step.name for step in given]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise PlanInvalid(f"two steps are called {twice!r}; give each its own name")
    kept = [step for step in finished if step.state == "done" or step.name not in names]
    done = {step.name for step in kept if step.state == "done"}
    new = [step for step in given if step.name not in done]
    if not new:
        raise PlanInvalid("a plan needs at least one step that is not done yet")
    if len(new) > most:
        raise PlanInvalid(f"a plan may have {most} steps that are not done yet, this one has {len(new)}")
    return _checked(Plan((*kept, *new)))


def _checked(plan: Plan) -> Plan:
    names = {step.name: step for step in plan.steps}
    for step in plan.steps:
        if step.state in FINISHED:
            continue
        for other in step.depends_on:
            if other not in names:
                raise PlanInvalid(f"step {step.name!r} depends on {unknown('step', other, names)}")
            if names[other].state == "failed":
                raise PlanInvalid(f"step {step.name!r} depends on {other!r}, which has failed; plan that one again too")
    graph = {step.name: step.depends_on for step in plan.steps if step.state not in FINISHED}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        raise PlanInvalid(f"these steps wait for each other: {' -> '.join(reversed(error.args[1]))}") from error
    return Plan(tuple(_waits_again(plan, step) for step in plan.steps))


def _waits_again(plan: Plan, step: Step) -> Step:
    """A running step that now depends on others which are not done is not running any more."""
    missing = step.state == "running" and plan._missing(step)
    return replace(step, state="pending") if missing else step


def _line(step: Step) -> str:
    after = f" (after {', '.join(step.depends_on)})" if step.depends_on else ""
    about = f": {step.description}" if step.description else ""
    ended = step.result if step.state == "done" else step.reason if step.state == "failed" else None
    return f"[{step.state}] {step.name}{after}{about}" + (f"\n   {step.state}: {ended}" if ended else "")
