"""The client of a Flux server: the only road from a surface to a session."""

from flux.client.http import FluxClient
from flux.client.reader import Event
from flux.client.schedules import SchedulesClient
from flux.client.session import SessionHandle

#: The name under which some know it.
PyFlueClient = FluxClient

__all__ = ["Event", "FluxClient", "PyFlueClient", "SchedulesClient", "SessionHandle"]
