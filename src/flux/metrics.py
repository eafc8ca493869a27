"""What this process has counted since it began, and the text format of Prometheus."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from flux.entries.base import Entry
from flux.entries.workflows import WorkflowCancelled, WorkflowCompleted, WorkflowFailed, WorkflowStarted
from flux.events import (
    AssistantSaid,
    Cancelled,
    ChatResponse,
    CompactDone,
    Compacted,
    ModelFailed,
    RunFailed,
    RunStarted,
    ToolStarted,
    spent_by,
)

Labels = tuple[str, ...]


class Family(Struct, frozen=True):
    """One metric with its samples, each a value by the values of its labels."""

    name: str
    kind: str
    help: str
    labels: Labels
    samples: Mapping[Labels, float]


class Counter:
    """A number by labels that only grows."""

    def __init__(self, name: str, help: str, *labels: str) -> None:
        self._name = name
        self._help = help
        self._labels = labels
        self._values: dict[Labels, float] = {} if labels else {(): 0}
        self._lock = threading.Lock()

    def add(self, *labels: str, by: float = 1) -> None:
        """Count."""
        with self._lock:
            self._values[labels] = self._values.get(labels, 0) + by

    def value(self, *labels: str) -> float:
        """What was counted."""
        return self._values.get(labels, 0)

    def family(self) -> Family:
        """What was counted so far, to be shown."""
        with self._lock:
            return Family(self._name, "counter", self._help, self._labels, dict(self._values))


RUNS_STARTED = Counter("flux_runs_started_total", "Runs of sessions and of workflows that began here.", "kind")
RUNS_ENDED = Counter("flux_runs_ended_total", "Runs that ended here, by outcome.", "kind", "outcome")
MODEL_CALLS = Counter("flux_model_calls_total", "Calls of models that were answered or failed.", "outcome")
TOKENS = Counter("flux_tokens_total", "Tokens used, as providers report them.", "direction")
TOOL_CALLS = Counter("flux_tool_calls_total", "Calls of tools that began.", "tool")
HTTP_REQUESTS = Counter("flux_http_requests_total", "Answered requests.", "method", "route", "status")

COUNTERS = (RUNS_STARTED, RUNS_ENDED, MODEL_CALLS, TOKENS, TOOL_CALLS, HTTP_REQUESTS)

ENDS: dict[type[Entry], tuple[str, str]] = {
    ChatResponse: ("session", "completed"),
    CompactDone: ("session", "completed"),
    RunFailed: ("session", "failed"),
    Cancelled: ("session", "cancelled"),
    WorkflowCompleted: ("workflow", "completed"),
    WorkflowFailed: ("workflow", "failed"),
    WorkflowCancelled: ("workflow", "cancelled"),
}


def count_entries(entries: Iterable[Entry]) -> None:
    """Count what a run has just made durable."""
    for entry in entries:
        match entry:
            case RunStarted():
                RUNS_STARTED.add("session")
            case WorkflowStarted():
                RUNS_STARTED.add("workflow")
            case AssistantSaid() | Compacted():
                MODEL_CALLS.add("answered")
            case ModelFailed():
                MODEL_CALLS.add("failed")
            case ToolStarted():
                TOOL_CALLS.add(entry.name)
            case _ if type(entry) in ENDS:
                RUNS_ENDED.add(*ENDS[type(entry)])
        tokens = spent_by(entry)[0]
        if tokens.total:
            TOKENS.add("input", by=tokens.input)
            TOKENS.add("output", by=tokens.output)


def exposition(families: Sequence[Family]) -> str:
    """Metrics in the text format of Prometheus, version 0.0.4."""
    lines: list[str] = []
    for family in families:
        lines += [f"# HELP {family.name} {family.help}", f"# TYPE {family.name} {family.kind}"]
        for values, value in sorted(family.samples.items()):
            pairs = ",".join(f'{label}="{_escaped(text)}"' for label, text in zip(family.labels, values, strict=True))
            lines.append(f"{family.name}{'{' + pairs + '}' if pairs else ''} {value:.17g}")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
