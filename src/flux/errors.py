"""Every exception of Flux.

FluxError
├── InvalidInput            400  what the caller sent cannot be used
│   ├── DefinitionInvalid        an agent definition is wrong
│   │   └── TopologyInvalid      the agents of a runtime do not go together
│   ├── SourceInvalid            a file cannot be registered as workflows
│   ├── ProjectUnusable          files of a project cannot be used
│   ├── ExecutionFinished        the execution has ended already
│   ├── PlanInvalid              steps that make no plan, or a step that cannot change so
│   ├── SettingsInvalid          flux.toml or a FLUX_* variable is wrong
│   ├── OutputInvalid            the answer of a model does not fit the format it was asked for
│   └── ValueNotStorable         a value has no form that can be kept
├── Unauthorized            401
├── Forbidden               403
├── NotFound                404
│   ├── SessionNotFound, AgentNotFound, DispatchNotFound, ScheduleNotFound, WorkerNotFound, WorkflowNotFound
│   ├── ExecutionNotFound, InterruptNotFound, SecretNotFound, ConfigNotFound, ArtifactNotFound, MemoryNotFound
│   ├── PrincipalNotFound, RoleNotFound
│   ├── WebhookNotFound          no such webhook, or no such delivery of it
│   └── StoredValueNotFound      a value kept outside the log is gone
├── Conflict                409  the request met a state it cannot apply to
│   ├── SessionEnded, SessionBusy, SessionExists, AgentExists, ScheduleExists, WorkerExists, WebhookExists
│   ├── HarnessExists            a context has a harness of this name already
│   ├── InterruptDecided         somebody has answered the question
│   ├── NotPaused                the execution waits for no answer of this kind
│   └── IdempotencyMismatch
├── TooLarge                413
├── HeadersTooLarge         431
├── TooManyRequests         429  a limit is reached; `details.retry_after` says in how many seconds to come again
├── Unavailable             503  something Flux needs is missing or down
│   ├── MissingKey               a model provider has no key
│   ├── MissingPackage           an optional package is not installed
│   ├── SecretUnreadable         a secret was encrypted with another key
│   ├── SourceUnusable           a worker cannot load the source of a workflow
│   ├── SandboxUnavailable       a sandbox cannot work on this machine
│   └── ServerUnreachable, DatabaseUnavailable, DatabaseLocked, DatabaseTooNew, AddressInUse
├── ExecutionError          500  a task of a workflow failed; the cause is in it
│   ├── ExecutionTimeoutError    it took longer than its timeout
│   ├── ExecutionInterrupted     its worker stopped while it ran once; the outcome is unknown
│   ├── ApprovalRejected         a person rejected it
│   ├── AgentFailed              the run of an agent that it asked failed
│   │   └── TurnLimitReached         it came to a limit of its agent, which forced an answer
│   ├── ToolExecutionError       the tool of an MCP server failed
│   └── WorkflowFailedError      a workflow that was called failed
├── ExecutionSuspended      500  internal: the workflow stops here for now
├── UnknownException        500  stands for an exception whose class is not known here
└── Fenced                  500  internal: this worker no longer owns the execution

`str(error)` is for the caller: what was wrong and what to do, on one line. `error.debug` is for
developers and never leaves the process. `error.details` is JSON for machines.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

#: Where a new word begins in the name of a class.
_BOUNDARY = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


class FluxError(Exception):
    """Something went wrong inside Flux; run again with --debug to see where."""

    #: What the error is called on the wire: the name of its class, such as session_not_found.
    type: ClassVar[str] = "internal"
    status: ClassVar[int] = 500

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "type" not in cls.__dict__:
            cls.type = _BOUNDARY.sub("_", cls.__name__).lower()

    def __init__(self, message: str | None = None, *, debug: str = "", **details: Any) -> None:
        super().__init__(message or type(self).__doc__ or type(self).__name__)
        self.debug = debug
        self.details = details


class InvalidInput(FluxError):
    """The input cannot be used."""

    status = 400


class DefinitionInvalid(InvalidInput):
    """The agent definition is not valid."""


class TopologyInvalid(DefinitionInvalid):
    """The agents of a runtime do not go together; `details["faults"]` has every reason."""


class SourceInvalid(InvalidInput):
    """This file cannot be registered as workflows."""


class PlanInvalid(InvalidInput):
    """The plan cannot be used, or its step cannot change in this way."""


class SettingsInvalid(InvalidInput):
    """The settings are not valid."""


class ExecutionFinished(InvalidInput):
    """The execution has finished."""


class OutputInvalid(InvalidInput):
    """The answer does not fit the format that was asked for."""


class ValueNotStorable(InvalidInput):
    """The value cannot be kept; return plain data, or give the task an output_storage=."""


class Unauthorized(FluxError):
    """Missing or invalid Authorization header"""

    status = 401


class Forbidden(FluxError):
    """This is not allowed here."""

    status = 403


class NotFound(FluxError):
    """There is no such thing here."""

    status = 404


class SessionNotFound(NotFound):
    """There is no such session; `flux agent session list` shows those that exist."""


class DispatchNotFound(NotFound):
    """There is no such dispatch."""


class AgentNotFound(NotFound):
    """There is no such agent; `flux agent list` shows those that exist."""


class ScheduleNotFound(NotFound):
    """There is no such schedule; `flux schedule list` shows those that exist."""


class WebhookNotFound(NotFound):
    """There is no such webhook; `flux webhook list` shows those that exist."""


class WorkerNotFound(NotFound):
    """There is no such worker; `flux worker list` shows those that exist."""


class WorkflowNotFound(NotFound):
    """There is no such workflow; `flux workflow list` shows those that exist."""


class ExecutionNotFound(NotFound):
    """There is no such execution; `flux execution list` shows those that exist."""


class InterruptNotFound(NotFound):
    """This session has no such question."""


class SecretNotFound(NotFound):
    """There is no such secret; `flux secrets set` sets it."""


class ConfigNotFound(NotFound):
    """There is no such configuration value; `flux config set` sets it."""


class ArtifactNotFound(NotFound):
    """This session has no such artifact."""


class MemoryNotFound(NotFound):
    """There is no such memory; `flux memory list` shows those that exist."""


class PrincipalNotFound(NotFound):
    """There is no such principal; `flux principals list` shows those that exist."""


class RoleNotFound(NotFound):
    """There is no such role; `flux roles list` shows those that exist."""


class StoredValueNotFound(NotFound):
    """The stored value is gone."""


class Conflict(FluxError):
    """The request does not fit the present state."""

    status = 409


class SessionEnded(Conflict):
    """The session has ended and takes no more messages; start a new one."""


class SessionBusy(Conflict):
    """The session is working; wait for it, or send with another mode."""


SessionBusyError = SessionBusy


class SessionExists(Conflict):
    """A session of this name is open already."""


class HarnessExists(Conflict):
    """A harness of this name was made here already; give it another name."""


class AgentExists(Conflict):
    """An agent of this name exists already; `flux agent update` or `apply` changes it."""


class ScheduleExists(Conflict):
    """A schedule of this name exists already."""


class WebhookExists(Conflict):
    """A webhook of this name exists already."""


class WorkerExists(Conflict):
    """A living worker has this name."""


class InterruptDecided(Conflict):
    """The question is closed: it was decided before, or its run has ended."""


class NotPaused(Conflict):
    """The execution is not paused."""


class IdempotencyMismatch(Conflict):
    """This Idempotency-Key was used before with another body; use a new key."""


class HeadersTooLarge(FluxError):
    """The headers are too large."""

    status = 431


class TooManyRequests(FluxError):
    """There is too much under way; come again later."""

    status = 429


class TooLarge(FluxError):
    """The request body is too large."""

    status = 413


class Unavailable(FluxError):
    """Something Flux needs is not available."""

    status = 503


class MissingKey(Unavailable):
    """The model provider has no key."""


class MissingPackage(Unavailable):
    """An optional package is not installed."""


class SecretUnreadable(Unavailable):
    """The secret was encrypted with another key."""


class SourceUnusable(Unavailable):
    """The source of the workflow cannot be loaded on this worker."""


class SandboxUnavailable(Unavailable):
    """The sandbox cannot work on this machine."""


class ProjectUnusable(InvalidInput):
    """Files of the project cannot be used; mend those that are named."""


class ServerUnreachable(Unavailable):
    """The Flux server does not answer."""


class DatabaseUnavailable(Unavailable):
    """The database does not answer."""


class DatabaseLocked(Unavailable):
    """The database is locked by another process; close that process and try again."""


class DatabaseTooNew(Unavailable):
    """The database was written by a newer Flux; upgrade Flux to open it."""


class AddressInUse(Unavailable):
    """The address is in use by another process; choose another --port."""


class ExecutionError(FluxError):
    """A task failed; `inner_exception` is what it raised."""

    def __init__(
        self,
        message: str | BaseException | None = None,
        *,
        inner_exception: BaseException | None = None,
        debug: str = "",
        **details: Any,
    ) -> None:
        cause = message if isinstance(message, BaseException) else inner_exception
        said = message if isinstance(message, str) else describe(cause) if cause else None
        super().__init__(said, debug=debug, **details)
        self.inner_exception = cause
        self.__cause__ = cause


class AgentFailed(ExecutionError):
    """The run of an agent failed."""


class TurnLimitReached(AgentFailed):
    """A limit of an agent has forced its answer; `details` has `agent` and `limit`."""


class ToolExecutionError(ExecutionError):
    """The tool of an MCP server failed, or the server cannot be used."""


class ExecutionTimeoutError(ExecutionError):
    """The task took longer than its timeout."""

    type = "execution_timeout"


class ExecutionInterrupted(ExecutionError):
    """The worker stopped while this ran; its outcome is unknown, and it was not run again."""


class ApprovalRejected(ExecutionError):
    """A person rejected the task."""


class WorkflowFailedError(ExecutionError):
    """The workflow that was called did not complete."""

    type = "workflow_failed"


class ExecutionSuspended(FluxError):
    """The workflow stops here for now; no task may begin. Code may not catch this and go on."""


class UnknownException(FluxError):
    """An exception whose class is not known in this process."""


class Fenced(FluxError):
    """This worker no longer owns the execution."""


def describe(error: BaseException) -> str:
    """An exception in one line, as people read it."""
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def error_tree() -> dict[str, type[FluxError]]:
    """Every error class by its wire type."""
    found: dict[str, type[FluxError]] = {}
    todo: list[type[FluxError]] = [FluxError]
    while todo:
        cls = todo.pop()
        found[cls.type] = cls
        todo.extend(cls.__subclasses__())
    return found
