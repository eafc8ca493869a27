"""Every exception of Flux.

FluxError
├── InvalidInput            400  what the caller sent cannot be used
│   ├── DefinitionInvalid        an agent definition is wrong
│   ├── SourceInvalid            a file cannot be registered as workflows
│   ├── ProjectUnusable          files of a project cannot be used
│   ├── UnsupportedYet           a documented field whose machinery is not in this version
│   ├── ExecutionFinished        the execution has ended already
│   ├── PlanInvalid              steps that make no plan, or a step that cannot change so
│   ├── SettingsInvalid          flux.toml or a FLUX_* variable is wrong
│   ├── OutputInvalid            the answer of a model does not fit the format it was asked for
│   └── ValueNotStorable         a value has no form that can be kept
├── Unauthorized            401
├── Forbidden               403
├── NotFound                404
│   ├── SessionNotFound
│   ├── AgentNotFound
│   ├── DispatchNotFound
│   ├── ScheduleNotFound
│   ├── WorkerNotFound
│   ├── WebhookNotFound          no such webhook, or no such delivery of it
│   ├── WorkflowNotFound
│   ├── ExecutionNotFound
│   ├── InterruptNotFound
│   ├── SecretNotFound
│   ├── ConfigNotFound
│   ├── ArtifactNotFound
│   ├── MemoryNotFound
│   ├── PrincipalNotFound
│   ├── RoleNotFound
│   └── StoredValueNotFound      a value kept outside the log is gone
├── Conflict                409  the request met a state it cannot apply to
│   ├── SessionEnded
│   ├── SessionBusy
│   ├── SessionExists
│   ├── HarnessExists            a context has a harness of this name already
│   ├── AgentExists
│   ├── ScheduleExists
│   ├── WorkerExists
│   ├── WebhookExists
│   ├── InterruptDecided
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
│   ├── ServerUnreachable
│   ├── DatabaseUnavailable
│   ├── DatabaseLocked
│   ├── DatabaseTooNew
│   └── AddressInUse
├── ExecutionError          500  a task of a workflow failed; the cause is in it
│   ├── ExecutionTimeoutError    it took longer than its timeout
│   ├── ExecutionInterrupted     its worker stopped while it ran once; the outcome is unknown
│   ├── ApprovalRejected         a person rejected it
│   ├── AgentFailed              the run of an agent that it asked failed
│   ├── ToolExecutionError       the tool of an MCP server failed
│   └── WorkflowFailedError      a workflow that was called failed
├── ExecutionSuspended      500  internal: the workflow stops here for now
├── UnknownException        500  stands for an exception whose class is not known here
└── Fenced                  500  internal: this worker no longer owns the execution

`str(error)` is for the caller: what was wrong and what to do, on one line. `error.debug` is for
developers and never leaves the process. `error.details` is JSON for machines.
"""

from __future__ import annotations

from typing import Any, ClassVar


class FluxError(Exception):
    """Something went wrong inside Flux; run again with --debug to see where."""

    type: ClassVar[str] = "internal"
    status: ClassVar[int] = 500

    def __init__(self, message: str | None = None, *, debug: str = "", **details: Any) -> None:
        super().__init__(message or type(self).__doc__ or type(self).__name__)
        self.debug = debug
        self.details = details


class InvalidInput(FluxError):
    """The input cannot be used."""

    type = "invalid_input"
    status = 400


class DefinitionInvalid(InvalidInput):
    """The agent definition is not valid."""

    type = "definition_invalid"


class SourceInvalid(InvalidInput):
    """This file cannot be registered as workflows."""

    type = "source_invalid"


class UnsupportedYet(InvalidInput):
    """This field is not available yet."""

    type = "not_available_yet"


class PlanInvalid(InvalidInput):
    """The plan cannot be used, or its step cannot change in this way."""

    type = "plan_invalid"


class SettingsInvalid(InvalidInput):
    """The settings are not valid."""

    type = "settings_invalid"


class ExecutionFinished(InvalidInput):
    """The execution has finished."""

    type = "execution_finished"


class OutputInvalid(InvalidInput):
    """The answer does not fit the format that was asked for."""

    type = "output_invalid"


class ValueNotStorable(InvalidInput):
    """The value cannot be kept; return plain data, or give the task an output_storage=."""

    type = "value_not_storable"


class Unauthorized(FluxError):
    """Missing or invalid Authorization header"""

    type = "unauthorized"
    status = 401


class Forbidden(FluxError):
    """This is not allowed here."""

    type = "forbidden"
    status = 403


class NotFound(FluxError):
    """There is no such thing here."""

    type = "not_found"
    status = 404


class SessionNotFound(NotFound):
    """There is no such session; `flux agent session list` shows those that exist."""

    type = "session_not_found"


class DispatchNotFound(NotFound):
    """There is no such dispatch."""

    type = "dispatch_not_found"


class AgentNotFound(NotFound):
    """There is no such agent; `flux agent list` shows those that exist."""

    type = "agent_not_found"


class ScheduleNotFound(NotFound):
    """There is no such schedule; `flux schedule list` shows those that exist."""

    type = "schedule_not_found"


class WebhookNotFound(NotFound):
    """There is no such webhook; `flux webhook list` shows those that exist."""

    type = "webhook_not_found"


class WorkerNotFound(NotFound):
    """There is no such worker; `flux worker list` shows those that exist."""

    type = "worker_not_found"


class WorkflowNotFound(NotFound):
    """There is no such workflow; `flux workflow list` shows those that exist."""

    type = "workflow_not_found"


class ExecutionNotFound(NotFound):
    """There is no such execution; `flux execution list` shows those that exist."""

    type = "execution_not_found"


class InterruptNotFound(NotFound):
    """This session has no such question."""

    type = "interrupt_not_found"


class SecretNotFound(NotFound):
    """There is no such secret; `flux secrets set` sets it."""

    type = "secret_not_found"


class ConfigNotFound(NotFound):
    """There is no such configuration value; `flux config set` sets it."""

    type = "config_not_found"


class ArtifactNotFound(NotFound):
    """This session has no such artifact."""

    type = "artifact_not_found"


class MemoryNotFound(NotFound):
    """There is no such memory; `flux memory list` shows those that exist."""

    type = "memory_not_found"


class PrincipalNotFound(NotFound):
    """There is no such principal; `flux principals list` shows those that exist."""

    type = "principal_not_found"


class RoleNotFound(NotFound):
    """There is no such role; `flux roles list` shows those that exist."""

    type = "role_not_found"


class StoredValueNotFound(NotFound):
    """The stored value is gone."""

    type = "stored_value_not_found"


class Conflict(FluxError):
    """The request does not fit the present state."""

    type = "conflict"
    status = 409


class SessionEnded(Conflict):
    """The session has ended and takes no more messages; start a new one."""

    type = "session_ended"


class SessionBusy(Conflict):
    """The session is working; wait for it, or send with another mode."""

    type = "session_busy"


SessionBusyError = SessionBusy


class SessionExists(Conflict):
    """A session of this name is open already."""

    type = "session_exists"


class HarnessExists(Conflict):
    """A harness of this name was made here already; give it another name."""

    type = "harness_exists"


class AgentExists(Conflict):
    """An agent of this name exists already; `flux agent update` or `apply` changes it."""

    type = "agent_exists"


class ScheduleExists(Conflict):
    """A schedule of this name exists already."""

    type = "schedule_exists"


class WebhookExists(Conflict):
    """A webhook of this name exists already."""

    type = "webhook_exists"


class WorkerExists(Conflict):
    """A living worker has this name."""

    type = "worker_exists"


class InterruptDecided(Conflict):
    """The question is closed: it was decided before, or its run has ended."""

    type = "interrupt_decided"


class NotPaused(Conflict):
    """The execution is not paused."""

    type = "not_paused"


class IdempotencyMismatch(Conflict):
    """This Idempotency-Key was used before with another body; use a new key."""

    type = "idempotency_mismatch"


class HeadersTooLarge(FluxError):
    """The headers are too large."""

    type = "headers_too_large"
    status = 431


class TooManyRequests(FluxError):
    """There is too much under way; come again later."""

    type = "too_many_requests"
    status = 429


class TooLarge(FluxError):
    """The request body is too large."""

    type = "too_large"
    status = 413


class Unavailable(FluxError):
    """Something Flux needs is not available."""

    type = "unavailable"
    status = 503


class MissingKey(Unavailable):
    """The model provider has no key."""

    type = "missing_key"


class MissingPackage(Unavailable):
    """An optional package is not installed."""

    type = "missing_package"


class SecretUnreadable(Unavailable):
    """The secret was encrypted with another key."""

    type = "secret_unreadable"


class SourceUnusable(Unavailable):
    """The source of the workflow cannot be loaded on this worker."""

    type = "source_unusable"


class SandboxUnavailable(Unavailable):
    """The sandbox cannot work on this machine."""

    type = "sandbox_unavailable"


class ProjectUnusable(InvalidInput):
    """Files of the project cannot be used; mend those that are named."""

    type = "project_unusable"


class ServerUnreachable(Unavailable):
    """The Flux server does not answer."""

    type = "server_unreachable"


class DatabaseUnavailable(Unavailable):
    """The database does not answer."""

    type = "database_unavailable"


class DatabaseLocked(Unavailable):
    """The database is locked by another process; close that process and try again."""

    type = "database_locked"


class DatabaseTooNew(Unavailable):
    """The database was written by a newer Flux; upgrade Flux to open it."""

    type = "database_too_new"


class AddressInUse(Unavailable):
    """The address is in use by another process; choose another --port."""

    type = "address_in_use"


class ExecutionError(FluxError):
    """A task failed; `inner_exception` is what it raised."""

    type = "execution_error"

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

    type = "agent_failed"


class ToolExecutionError(ExecutionError):
    """The tool of an MCP server failed, or the server cannot be used."""

    type = "tool_execution_error"


class ExecutionTimeoutError(ExecutionError):
    """The task took longer than its timeout."""

    type = "execution_timeout"


class ExecutionInterrupted(ExecutionError):
    """The worker stopped while this ran; its outcome is unknown, and it was not run again."""

    type = "execution_interrupted"


class ApprovalRejected(ExecutionError):
    """A person rejected the task."""

    type = "approval_rejected"


class WorkflowFailedError(ExecutionError):
    """The workflow that was called did not complete."""

    type = "workflow_failed"


class ExecutionSuspended(FluxError):
    """The workflow stops here for now; no task may begin. Code may not catch this and go on."""

    type = "execution_suspended"


class UnknownException(FluxError):
    """An exception whose class is not known in this process."""

    type = "unknown_exception"


class Fenced(FluxError):
    """This worker no longer owns the execution."""

    type = "fenced"


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
