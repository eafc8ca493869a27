"""The parameters of `agent()`: what a definition cannot check, as it holds no functions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from flux.agents.define.memory import LongTermMemory
from flux.agents.history.window import WorkingMemory
from flux.engine.workflows.task import task
from flux.errors import DefinitionInvalid, InvalidInput
from flux.tools.skills import SkillCatalog
from flux.tools.tasks import task_signature

#: What those that take one object must be, and how it is made.
OBJECTS: Mapping[str, tuple[type, str]] = {
    "system_prompt": (str, "text"),
    "skills": (SkillCatalog, "a SkillCatalog, such as SkillCatalog.from_directory('skills')"),
    "working_memory": (WorkingMemory, "what working_memory() returns"),
    "long_term_memory": (LongTermMemory, "what long_term_memory() returns"),
}
#: What those that take a list must hold.
LISTS: Mapping[str, tuple[tuple[type, ...], str]] = {
    "tools": ((task, str, Mapping), "@task functions, names of tools, or groups with settings"),
    "agents": ((task, str), "what agent() returned, or names of stored agents"),
}


def default_name(model: str) -> str:
    """The name of an agent that was given none: "agent_{provider}_{model}"."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", f"agent_{model}")[:64]


def check_parameters(given: Mapping[str, Any]) -> None:
    """Refuse parameters of the wrong kind, and tasks that cannot be tools.

    :raises DefinitionInvalid: one is; it is named
    """
    for name, (kind, wanted) in OBJECTS.items():
        if not isinstance(given[name], kind) and (name == "system_prompt" or given[name] is not None):
            raise DefinitionInvalid(f"{name}: must be {wanted}, not {_told(given[name])}")
    for name, (kinds, wanted) in LISTS.items():
        _check_list(name, given[name], kinds, wanted)
    _check_tasks([one for one in given["tools"] or () if isinstance(one, task)])


def _check_list(name: str, given: Any, kinds: tuple[type, ...], wanted: str) -> None:
    if given is None:
        return
    if not isinstance(given, list | tuple):
        raise DefinitionInvalid(f"{name}: must be a list of {wanted}; write {name}=[...]")
    for one in given:
        if not isinstance(one, kinds):
            hint = "; decorate it with @task" if name == "tools" and callable(one) else ""
            raise DefinitionInvalid(f"{name}: must be {wanted}, not {_told(one)}{hint}")


def _check_tasks(tasks: list[task[..., Any]]) -> None:
    names: set[str] = set()
    for one in tasks:
        task_signature(one)
        if one.name in names:
            raise DefinitionInvalid(f"tools: two tasks are called {one.name}; leave one of them out, or rename it")
        names.add(one.name)


def _told(given: Any) -> str:
    return (
        f"the function {given.__name__}" if hasattr(given, "__code__") else f"{type(given).__name__} {repr(given)[:60]}"
    )


def question(instruction: str, context: str) -> str:
    """What an agent is asked: the context stands before the instruction.

    :raises InvalidInput: one is no text
    """
    for name, value in (("instruction", instruction), ("context", context)):
        if not isinstance(value, str):
            raise InvalidInput(f"{name} must be text, not {_told(value)}; json.dumps() makes text of data")
    return f"{context}\n\n{instruction}" if context else instruction
