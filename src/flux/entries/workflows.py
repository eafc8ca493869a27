"""The entries of workflows: their transitions, and what became of their tasks.

A pause, its answer and a request to cancel are the same entries as a session's; the events that users see
(`WORKFLOW_PAUSED`, `TASK_APPROVED`, ...) are projected from them by `flux.engine.workflows.history`.
"""

from __future__ import annotations

from typing import Any, get_args

from flux.entries.base import Entry


class WorkflowScheduled(Entry, frozen=True, tag="WORKFLOW_SCHEDULED", kw_only=True):
    """The first entry of a workflow execution. `source_version` None: code of the process that started it."""

    workflow: str
    input: Any = None
    source_version: int | None = None


class WorkflowClaimed(Entry, frozen=True, tag="WORKFLOW_CLAIMED", kw_only=True):
    """A worker took the execution."""

    worker: str


class WorkflowStarted(Entry, frozen=True, tag="WORKFLOW_STARTED"):
    """The workflow's function was called for the first time."""


class WorkflowPaused(Entry, frozen=True, tag="WORKFLOW_PAUSED", kw_only=True):
    """Nothing runs until `waiting_for` comes; `value` is what the pause shows."""

    waiting_for: str
    value: Any = None


class WorkflowResumed(Entry, frozen=True, tag="WORKFLOW_RESUMED"):
    """The workflow goes on after a pause."""


class WorkflowCompleted(Entry, frozen=True, tag="WORKFLOW_COMPLETED", kw_only=True):
    """The function returned `value`."""

    value: Any = None


class WorkflowFailed(Entry, frozen=True, tag="WORKFLOW_FAILED", kw_only=True):
    """The function raised, or could not be run; `value` is the exception."""

    message: str
    value: Any = None


class WorkflowCancelled(Entry, frozen=True, tag="WORKFLOW_CANCELLED"):
    """The execution was cancelled."""


class TaskEntry(Entry, frozen=True, kw_only=True):
    """Something that became of the task call `call`; the same id in each of its entries."""

    call: str
    name: str
    value: Any = None


class TaskStarted(TaskEntry, frozen=True, tag="TASK_STARTED", kw_only=True):
    """A task is about to run with the arguments `value`; a timer ends at `due`, in seconds since the epoch."""

    due: float | None = None


class TaskCompleted(TaskEntry, frozen=True, tag="TASK_COMPLETED"):
    """The task's one result."""


class TaskFailed(TaskEntry, frozen=True, tag="TASK_FAILED", kw_only=True):
    """The task failed for good with `error`, a type of our errors; `value` is the exception that the task raised."""

    error: str = "execution_error"
    message: str = ""


class TaskCancelled(TaskEntry, frozen=True, tag="TASK_CANCELLED"):
    """The workflow's own code stopped the task, which may be called again."""


class TaskRetryStarted(TaskEntry, frozen=True, tag="TASK_RETRY_STARTED"):
    """Another attempt begins; `value` is its number, from 1."""


class TaskRetryCompleted(TaskEntry, frozen=True, tag="TASK_RETRY_COMPLETED"):
    """That attempt went well."""


class TaskRetryFailed(TaskEntry, frozen=True, tag="TASK_RETRY_FAILED"):
    """That attempt failed too."""


class TaskFallbackStarted(TaskEntry, frozen=True, tag="TASK_FALLBACK_STARTED"):
    """The fallback begins, after the last attempt."""


class TaskFallbackCompleted(TaskEntry, frozen=True, tag="TASK_FALLBACK_COMPLETED"):
    """The fallback gave the result."""


class TaskFallbackFailed(TaskEntry, frozen=True, tag="TASK_FALLBACK_FAILED"):
    """The fallback failed too."""


class TaskRollbackStarted(TaskEntry, frozen=True, tag="TASK_ROLLBACK_STARTED"):
    """The rollback begins, before the task fails."""


class TaskRollbackCompleted(TaskEntry, frozen=True, tag="TASK_ROLLBACK_COMPLETED"):
    """The rollback is done."""


class TaskRollbackFailed(TaskEntry, frozen=True, tag="TASK_ROLLBACK_FAILED"):
    """The rollback failed."""


WorkflowEnd = WorkflowCompleted | WorkflowFailed | WorkflowCancelled
WORKFLOW_ENDS = get_args(WorkflowEnd)
