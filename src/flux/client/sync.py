"""SyncFluxClient: what FluxClient does, for scripts and notebooks.

Each method is that of the asynchronous class with the same name and arguments; what is iterated there with
`async for` is iterated here with `for`. The work runs in a thread of the client's own, so that it can be used where
an event loop runs already.
"""

from __future__ import annotations

from typing import Self

import httpx

from flux.client.agents import AgentsClient
from flux.client.execution import ExecutionHandle, ExecutionsClient
from flux.client.http import FluxClient
from flux.client.memories import MemoriesClient
from flux.client.mirror import Mirror, called, iterated, mirrored
from flux.client.schedules import SchedulesClient
from flux.client.session import SessionHandle
from flux.client.sessions import SessionsClient
from flux.client.thread import LoopThread
from flux.client.webhooks import WebhooksClient
from flux.client.workflows import WorkflowsClient


class SyncSession(Mirror[SessionHandle]):
    """A SessionHandle that blocks."""

    info = called(SessionHandle.info)
    post = called(SessionHandle.post)
    send = iterated(SessionHandle.send)
    events = iterated(SessionHandle.events)
    until_rest = iterated(SessionHandle.until_rest)
    answer = called(SessionHandle.answer)
    resolve = iterated(SessionHandle.resolve)
    interrupts = called(SessionHandle.interrupts)
    artifacts = iterated(SessionHandle.artifacts)
    artifact = called(SessionHandle.artifact)
    cancel = called(SessionHandle.cancel)
    compact = called(SessionHandle.compact)
    compacting = iterated(SessionHandle.compacting)
    rename = called(SessionHandle.rename)
    export = iterated(SessionHandle.export)
    stop = called(SessionHandle.stop)

    fork = mirrored(SessionHandle.fork, lambda *made: SyncSession(*made))  # noqa: PLW0108 - it is not there yet

    def watch(self, message: str) -> None:
        """Follow the run of a message that was posted; `until_rest` watches it from where this handle has read to."""
        self._inner.watch(message)

    @property
    def id(self) -> str:
        """The session's id."""
        return self._inner.id

    @property
    def cursor(self) -> str | None:
        """How far this client has read."""
        return self._inner.cursor

    @property
    def accepted(self) -> str | None:
        """The id of the message that was sent last, None until the server has taken it."""
        return self._inner.accepted

    @property
    def state(self) -> str:
        """How the run this handle follows stands, as far as it was read: working, waiting or ended."""
        return self._inner.state


class SyncExecution(Mirror[ExecutionHandle]):
    """An ExecutionHandle that blocks."""

    info = called(ExecutionHandle.info)
    events = iterated(ExecutionHandle.events)
    cancel = called(ExecutionHandle.cancel)
    rename = called(ExecutionHandle.rename)
    approvals = iterated(ExecutionHandle.approvals)
    approve = called(ExecutionHandle.approve)
    reject = called(ExecutionHandle.reject)

    @property
    def id(self) -> str:
        """The execution's id."""
        return self._inner.id

    @property
    def cursor(self) -> str | None:
        """How far this client has read."""
        return self._inner.cursor


class SyncAgents(Mirror[AgentsClient]):
    """An AgentsClient that blocks."""

    create = called(AgentsClient.create)
    apply = called(AgentsClient.apply)
    get = called(AgentsClient.get)
    list = iterated(AgentsClient.list)
    versions = iterated(AgentsClient.versions)
    delete = called(AgentsClient.delete)
    invoke = called(AgentsClient.invoke)
    stream = iterated(AgentsClient.stream)
    dispatch = called(AgentsClient.dispatch)


class SyncSessions(Mirror[SessionsClient]):
    """A SessionsClient that blocks."""

    list = iterated(SessionsClient.list)
    get = called(SessionsClient.get)
    messages = iterated(SessionsClient.messages)
    delete = called(SessionsClient.delete)


class SyncExecutions(Mirror[ExecutionsClient]):
    """An ExecutionsClient that blocks."""

    list = iterated(ExecutionsClient.list)
    approvals = iterated(ExecutionsClient.approvals)


class SyncWorkflows(Mirror[WorkflowsClient]):
    """A WorkflowsClient that blocks."""

    register = called(WorkflowsClient.register)
    list = iterated(WorkflowsClient.list)
    get = called(WorkflowsClient.get)
    versions = iterated(WorkflowsClient.versions)
    delete = called(WorkflowsClient.delete)


class SyncSchedules(Mirror[SchedulesClient]):
    """A SchedulesClient that blocks."""

    create = called(SchedulesClient.create)
    replace = called(SchedulesClient.replace)
    get = called(SchedulesClient.get)
    list = iterated(SchedulesClient.list)
    pause = called(SchedulesClient.pause)
    resume = called(SchedulesClient.resume)
    delete = called(SchedulesClient.delete)
    history = iterated(SchedulesClient.history)


class SyncWebhooks(Mirror[WebhooksClient]):
    """A WebhooksClient that blocks."""

    create = called(WebhooksClient.create)
    get = called(WebhooksClient.get)
    list = iterated(WebhooksClient.list)
    delete = called(WebhooksClient.delete)
    deliveries = iterated(WebhooksClient.deliveries)
    redeliver = called(WebhooksClient.redeliver)


class SyncMemories(Mirror[MemoriesClient]):
    """A MemoriesClient that blocks."""

    list = iterated(MemoriesClient.list)
    get = called(MemoriesClient.get)
    forget = called(MemoriesClient.forget)


class SyncFluxClient(Mirror[FluxClient]):
    """A connection to a Flux server whose calls block; use it as a context manager, or close it.

    The arguments are those of FluxClient.
    """

    start_session = mirrored(FluxClient.start_session, SyncSession)
    run_workflow = called(FluxClient.run_workflow)
    resume_workflow = called(FluxClient.resume_workflow)
    messages = called(FluxClient.messages)
    discard = called(FluxClient.discard)
    get = called(FluxClient.get)
    post = called(FluxClient.post)
    put = called(FluxClient.put)
    request = called(FluxClient.request)
    upload = called(FluxClient.upload)
    download = called(FluxClient.download)
    pages = iterated(FluxClient.pages)
    stream = iterated(FluxClient.stream)

    def __init__(
        self, base_url: str, token: str | None = None, *, transport: httpx.AsyncBaseTransport | None = None,
        workspace: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(LoopThread(), FluxClient(base_url, token, transport=transport, workspace=workspace))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def base_url(self) -> str:
        """Where the server is."""
        return self._inner.base_url

    @property
    def agents(self) -> SyncAgents:
        """Its agents."""
        return SyncAgents(self._thread, self._inner.agents)

    @property
    def sessions(self) -> SyncSessions:
        """Its sessions, to be found."""
        return SyncSessions(self._thread, self._inner.sessions)

    @property
    def executions(self) -> SyncExecutions:
        """Its executions, to be found."""
        return SyncExecutions(self._thread, self._inner.executions)

    @property
    def workflows(self) -> SyncWorkflows:
        """Its workflows."""
        return SyncWorkflows(self._thread, self._inner.workflows)

    @property
    def schedules(self) -> SyncSchedules:
        """Its schedules."""
        return SyncSchedules(self._thread, self._inner.schedules)

    @property
    def webhooks(self) -> SyncWebhooks:
        """Its webhooks."""
        return SyncWebhooks(self._thread, self._inner.webhooks)

    @property
    def memories(self) -> SyncMemories:
        """Its long-term memories."""
        return SyncMemories(self._thread, self._inner.memories)

    def session(self, id: str, cursor: str | None = None) -> SyncSession:
        """A handle on a session; nothing is sent. Without a cursor, `send` begins at the session's head."""
        return SyncSession(self._thread, self._inner.session(id, cursor))

    def execution(self, id: str, cursor: str | None = "0") -> SyncExecution:
        """A handle on an execution; nothing is sent."""
        return SyncExecution(self._thread, self._inner.execution(id, cursor))

    def close(self) -> None:
        """Close the connection and end the thread; doing it again does nothing."""
        if not self._thread.closed:
            self._thread.run(self._inner.aclose())
            self._thread.close()
