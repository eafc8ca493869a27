"""Import paths that users of workflows know."""

from flux.engine.chance import choice, now, randint, randrange, uuid4
from flux.engine.flow import call, parallel, pipeline
from flux.engine.graph import Graph
from flux.engine.pause import pause, sleep
from flux.engine.progress import progress

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
