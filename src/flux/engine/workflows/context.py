"""What a workflow's code, and whoever started it, knows of its execution."""

from __future__ import annotations

import logging
from contextvars import ContextVar
from typing import Any, Generic, TypeVar

import msgspec

from flux.engine.encoding.values import decode_value
from flux.engine.workflows import declared, history
from flux.engine.workflows.history import ExecutionEvent
from flux.engine.workflows.storage import read_output
from flux.errors import HarnessExists, InvalidInput
from flux.events import Stored
from flux.store.executions import Execution

T = TypeVar("T")


class ExecutionContext(Generic[T]):
    """One execution of a workflow with the input of type T."""

    def __init__(self, row: Execution, entries: list[Stored]) -> None:
        self._row = row
        self._entries = entries
        self._input: T = decode_value(history.input_of(entries))
        self._harnesses: set[str] = set()

    def __repr__(self) -> str:
        return f"<ExecutionContext of {self.workflow_id}: {self.state}, id {self.execution_id}>"

    @staticmethod
    async def get() -> ExecutionContext[Any]:
        """The execution whose code asks.

        :raises InvalidInput: outside a workflow
        """
        found = _context.get()
        if found is None:
            raise InvalidInput("there is no execution here: this works inside a workflow only")
        return found

    @property
    def execution_id(self) -> str:
        """The id of the execution."""
        return self._row.id

    @property
    def workflow_id(self) -> str:
        """The workflow as "namespace/name"."""
        return self._row.workflow or ""

    @property
    def workflow_namespace(self) -> str:
        """The workflow's namespace."""
        return self.workflow_id.partition("/")[0]

    @property
    def workflow_name(self) -> str:
        """The workflow's name."""
        return self.workflow_id.partition("/")[2]

    @property
    def name(self) -> str:
        """The name people gave the execution; its id by default."""
        return self._row.title or self._row.id

    @property
    def input(self) -> T:
        """What the workflow was started with."""
        return self._input

    @property
    def payload(self) -> T:
        """The same as `input`."""
        return self._input

    @property
    def output(self) -> Any:
        """What the workflow returned; None until it has completed.

        Kept in the workflow's `output_storage`, it is read from there where this program declares the workflow;
        elsewhere this is the reference to it, as plain data.

        :raises StoredValueNotFound: it is gone from there
        """
        encoded = history.output_of(self._row, self._entries)
        code = declared.find(self.workflow_id)
        return read_output(code.output_storage if code else None, encoded)

    @property
    def error(self) -> str | None:
        """Why the workflow failed, in one line."""
        return self._row.last_error if self.has_failed else None

    @property
    def pause(self) -> Any:
        """What the pause shows that the workflow waits in: {"name", "output"}; None otherwise."""
        return decode_value(history.pause_of(self._entries)) if self.is_paused else None

    @property
    def state(self) -> str:
        """One of CREATED SCHEDULED CLAIMED RUNNING PAUSED RESUMING COMPLETED FAILED CANCELLING CANCELLED."""
        return history.state_of(self._row, cancelling=history.is_cancelling(self._row, self._entries))

    @property
    def events(self) -> list[ExecutionEvent]:
        """What happened so far, oldest first."""
        return history.events_of(self._row, self._entries)

    @property
    def current_worker(self) -> str | None:
        """The worker that runs it now."""
        return self._row.worker

    @property
    def has_started(self) -> bool:
        """Whether a worker has begun with it."""
        return self._row.epoch > 0

    @property
    def has_finished(self) -> bool:
        """Whether it has ended, however."""
        return self.state in history.FINISHED

    @property
    def has_succeeded(self) -> bool:
        """Whether it has completed."""
        return self.state == "COMPLETED"

    @property
    def has_failed(self) -> bool:
        """Whether it has failed."""
        return self.state == "FAILED"

    @property
    def is_paused(self) -> bool:
        """Whether it waits."""
        return self.state == "PAUSED"

    @property
    def is_cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self.state == "CANCELLED"

    @property
    def is_cancelling(self) -> bool:
        """Whether it is asked to stop."""
        return self.state == "CANCELLING"

    @property
    def has_resumed(self) -> bool:
        """Whether it has gone on after a pause."""
        return any(event.type == "WORKFLOW_RESUMED" for event in self.events)

    @property
    def log(self) -> logging.Logger:
        """A logger that bears the workflow's name."""
        return logging.getLogger(f"flux.workflow.{self.workflow_id.replace('/', '.')}")

    async def init(self, agent: Any, **options: Any) -> Any:
        """Initialise an agent of `create_agent` for this execution: a Harness. `name` and more as for `init_agent`.

        :raises HarnessExists: this execution has a harness of that name
        """
        name = options.get("name", "default")
        if name in self._harnesses:
            raise HarnessExists(f"this execution has a harness {name!r} already; give another name=")
        self._harnesses.add(name)
        return await agent.init_in(self, **options)

    def summary(self) -> dict[str, Any]:
        """The execution without its events, as JSON."""
        return history.summary(self._row, self._entries)

    def to_dict(self) -> dict[str, Any]:
        """The execution with its events, as JSON."""
        return history.summary(self._row, self._entries, detailed=True)

    def to_json(self) -> str:
        """The same as text."""
        return msgspec.json.format(msgspec.json.encode(self.to_dict())).decode()


_context: ContextVar[ExecutionContext[Any] | None] = ContextVar("flux_context", default=None)


def set_context(context: ExecutionContext[Any]) -> None:
    """Make this the execution of the code of the present asyncio context."""
    _context.set(context)
