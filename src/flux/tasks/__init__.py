"""Import paths that users of workflows know."""

from flux.engine.workflows.chance import choice, now, randint, randrange, uuid4
from flux.engine.workflows.flow import call, parallel, pipeline
from flux.engine.workflows.graph import Graph
from flux.engine.workflows.pause import pause, sleep
from flux.engine.workflows.progress import progress

__all__ = [
    "Graph",
    "call",
    "choice",
    "now",
    "parallel",
    "pause",
    "pipeline",
    "progress",
    "randint",
    "randrange",
    "sleep",
    "uuid4",
]
