"""The client of a Flux server: the only road from a surface to a session."""

from flux.client.attaching import Attached
from flux.client.execution import ExecutionHandle
from flux.client.http import FluxClient
from flux.client.reader import Event
from flux.client.schedules import SchedulesClient
from flux.client.session import SessionHandle
from flux.client.sync import SyncExecution, SyncFluxClient, SyncSession
from flux.client.webhooks import WebhooksClient

#: The same by the name it has in other documents.
PyFlueClient = FluxClient

__all__ = [
    "Attached", "Event", "ExecutionHandle", "FluxClient", "PyFlueClient", "SchedulesClient", "SessionHandle",
    "SyncExecution", "SyncFluxClient", "SyncSession", "WebhooksClient",
]  # fmt: skip
