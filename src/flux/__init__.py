"""Flux: LLM agents as durable resources, on a durable workflow engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from flux.client import FluxClient as FluxClient
    from flux.client import PyFlueClient as PyFlueClient
    from flux.client import SyncFluxClient as SyncFluxClient
    from flux.engine.context import ExecutionContext as ExecutionContext
    from flux.engine.flow import call as call
    from flux.engine.options import TaskMetadata as TaskMetadata
    from flux.engine.pause import pause as pause
    from flux.engine.pools import ResourceRequest as ResourceRequest
    from flux.engine.schedules import cron as cron
    from flux.engine.schedules import interval as interval
    from flux.engine.schedules import once as once
    from flux.engine.task import task as task
    from flux.engine.workflow import workflow as workflow

#: What `flux` offers, and where it is: found when it is asked for, so that `import flux` costs nothing.
_PLACES = {
    "ExecutionContext": "flux.engine.context",
    "FluxClient": "flux.client",
    "PyFlueClient": "flux.client",
    "ResourceRequest": "flux.engine.pools",
    "SyncFluxClient": "flux.client",
    "TaskMetadata": "flux.engine.options",
    "call": "flux.engine.flow",
    "cron": "flux.engine.schedules",
    "interval": "flux.engine.schedules",
    "once": "flux.engine.schedules",
    "pause": "flux.engine.pause",
    "task": "flux.engine.task",
    "workflow": "flux.engine.workflow",
}

__all__ = [*_PLACES, "__version__"]  # noqa: PLE0604 - names of what is found on demand


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _PLACES:
        raise AttributeError(f"module 'flux' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
