"""Plans at a terminal: shown, shown again where they changed, and edited by a person who reviews one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

Step = Mapping[str, Any]

#: Tools whose success a changed plan tells.
STEP_TOOLS = frozenset({"start_step", "mark_step_done", "mark_step_failed"})
EDIT_LABEL = "Change (`2 TEXT` rewrites, `-2` removes, `+ TEXT` adds; Enter when done): "
#: Characters of a step's name.
LONGEST_NAME = 100

_REMOVE = re.compile(r"-\s*(\d+)")
_ADD = re.compile(r"\+\s*(.*\S)")
_REWRITE = re.compile(r"(\d+)[.:)]?\s+(.*\S)")


def plan_text(steps: Sequence[Step], before: Sequence[Step]) -> str:
    """A plan; of one with the same steps as `before` only those that changed."""
    lines = plan_lines(steps)
    if [step.get("name") for step in steps] != [step.get("name") for step in before]:
        return "\n".join(["Plan", *(f"  {line}" for line in lines)])
    return "\n".join(f"Plan: {line}" for line, step, old in zip(lines, steps, before, strict=True) if step != old)


def plan_lines(steps: Sequence[Step]) -> list[str]:
    """A plan line by line."""
    return [f"{number}. {step_text(step)}" for number, step in enumerate(steps, 1)]


def step_text(step: Step) -> str:
    """A step of a plan on one line."""
    name, about = step.get("name"), step.get("description")
    text = f"{name}: {about}" if name and about else str(about or name or step)
    state = step.get("state", "pending")
    return text if state == "pending" else f"{text} [{state}]"


def edited(steps: Sequence[Step], typed: str) -> list[Step] | str:
    """The steps after what a person typed, or what is wrong with it."""
    typed = typed.strip()
    if found := _ADD.fullmatch(typed):
        return _added(steps, found[1])
    if found := _REMOVE.fullmatch(typed):
        return _removed(steps, int(found[1]))
    if found := _REWRITE.fullmatch(typed):
        return _rewritten(steps, int(found[1]), found[2])
    return "Type for example `2 Ask Ann first`, `-2` or `+ Write it down`."


def _added(steps: Sequence[Step], text: str) -> list[Step] | str:
    name = text if len(text) <= LONGEST_NAME else f"{text[: LONGEST_NAME - 1]}…"
    if any(step.get("name") == name for step in steps):
        return f"There is a step {name!r} already."
    return [*steps, {"name": name, "description": "" if name == text else text, "depends_on": []}]


def _removed(steps: Sequence[Step], number: int) -> list[Step] | str:
    wrong = _wrong(steps, number)
    if wrong:
        return wrong
    gone = steps[number - 1]
    return [_without(step, gone) for step in steps if step is not gone]


def _without(step: Step, gone: Step) -> Step:
    """A step that waits for what the removed one would have waited for."""
    needed: list[str] = []
    for name in step.get("depends_on", ()):
        needed += gone.get("depends_on", ()) if name == gone.get("name") else [name]
    return {**step, "depends_on": list(dict.fromkeys(needed))}


def _rewritten(steps: Sequence[Step], number: int, text: str) -> list[Step] | str:
    wrong = _wrong(steps, number)
    if wrong:
        return wrong
    return [{**step, "description": text} if step is steps[number - 1] else step for step in steps]


def _wrong(steps: Sequence[Step], number: int) -> str:
    if not 0 < number <= len(steps):
        return f"There is no step {number}."
    state = steps[number - 1].get("state")
    return f"Step {number} is {state} already, and stays." if state in ("done", "failed") else ""
