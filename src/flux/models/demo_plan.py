"""How `scripted/demo` plans: a small plan about the present directory, and one step of it per answer."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from typing import Any

from flux.messages import ToolResult

#: A tool and its arguments.
Named = tuple[str, Mapping[str, Any]]

STEPS: list[dict[str, Any]] = [
    {"name": "look", "description": "List what is in this folder."},
    {"name": "search", "description": "Find the text files in it.", "depends_on": ["look"]},
    {"name": "tell", "description": "Say what was found.", "depends_on": ["look", "search"]},
]
#: What the steps do. A person may have changed the plan: of a step that is not known here only the state changes.
WORK: Mapping[str, Named] = {
    "look": ("list_directory", {"path": "."}),
    "search": ("find_files", {"pattern": "*.{txt,md,yaml}"}),
}
TOOLS = frozenset({"create_plan", "start_step", "mark_step_done"})

_READY = re.compile(r"Ready to start: '([^']+)'")


def next_calls(results: Sequence[ToolResult], offered: Container[str]) -> list[tuple[str, dict[str, Any]]]:
    """The calls for the next step of the plan that these results tell of; none when there is none."""
    told = [result.content for result in results if result.call.name in TOOLS and not result.is_error]
    ready = _READY.search(told[-1]) if told else None
    if ready is None:
        return []
    step = ready[1]
    work = [WORK[step]] if step in WORK and WORK[step][0] in offered else []
    calls = [("start_step", {"step": step}), *work, ("mark_step_done", {"step": step, "result": "It is done."})]
    return [(name, dict(args)) for name, args in calls]
