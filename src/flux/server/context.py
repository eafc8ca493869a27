"""What a route needs to know about its request: the process, and who asks."""

from __future__ import annotations

from fastapi import Request

from flux.agents.process import Process
from flux.store.database import LOCAL, Scope


def process_of(request: Request) -> Process:
    """The process this server runs in."""
    process: Process = request.app.state.process
    return process


def scope_of(request: Request) -> Scope:
    """On whose behalf the request acts. With auth off there is one local operator."""
    return LOCAL


def wants_events(request: Request) -> bool:
    """Whether the caller asks for server-sent events."""
    return "text/event-stream" in request.headers.get("accept", "")
