"""`@workflow`: an async function whose executions are durable."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, TypedDict, Unpack

from msgspec import Struct

from flux.engine.workflows import declared, embedded
from flux.engine.workflows.context import ExecutionContext
from flux.engine.workflows.storage import OutputStorage
from flux.errors import InvalidInput

logger = logging.getLogger(__name__)

NAMESPACE = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")

WorkflowFunction = Callable[..., Awaitable[Any]]


class WorkflowOptions(Struct, frozen=True, kw_only=True):
    """How a workflow is run. Its workers have all labels of `affinity`, and the resources of `requests`."""

    name: str | None = None
    namespace: str = "default"
    affinity: Mapping[str, str] | None = None
    requests: Any = None
    schedule: Any = None
    secret_requests: Sequence[str] = ()
    output_storage: OutputStorage | None = None


class WorkflowWords(TypedDict, total=False):
    """The options of a workflow as keywords, for type checkers; WorkflowOptions says what they mean."""

    name: str | None
    namespace: str
    affinity: Mapping[str, str] | None
    requests: Any
    schedule: Any
    secret_requests: Sequence[str]
    output_storage: OutputStorage | None


class workflow:  # noqa: N801 - a decorator
    """An async function of an ExecutionContext, as a workflow."""

    def __init__(self, function: WorkflowFunction, options: WorkflowOptions | None = None) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.options = options or WorkflowOptions()
        self.name = self.options.name or getattr(function, "__name__", "workflow").lstrip("_")
        self.namespace = self.options.namespace
        _check(self.namespace, self.name)
        _check_function(function, self.name)
        declared.add(self)

    @staticmethod
    def with_options(**options: Unpack[WorkflowWords]) -> Callable[[WorkflowFunction], workflow]:
        """Decorate a function as a workflow with options (the fields of WorkflowOptions).

        :raises InvalidInput: there is no such option, or it is not valid
        """
        wrong = [name for name in options if name not in WorkflowOptions.__struct_fields__]
        if wrong:
            valid = ", ".join(WorkflowOptions.__struct_fields__)
            raise InvalidInput(f"a workflow has no option {', '.join(wrong)}; the options are {valid}")
        return lambda function: workflow(function, WorkflowOptions(**options))

    def __repr__(self) -> str:
        return f"<workflow {self.qualified_name}>"

    @property
    def qualified_name(self) -> str:
        """The name with its namespace: "namespace/name"."""
        return f"{self.namespace}/{self.name}"

    @property
    def secret_requests(self) -> Sequence[str]:
        """The secrets that the function is given as `secrets`."""
        return self.options.secret_requests

    @property
    def output_storage(self) -> OutputStorage | None:
        """Where what the function returns is kept; None: in the log."""
        return self.options.output_storage

    async def __call__(self, ctx: ExecutionContext[Any], **given: Any) -> Any:
        """Call the function itself, as a part of the execution that calls it."""
        return await self.function(ctx, **given)

    def run(self, input: Any = None, *, execution_id: str | None = None) -> ExecutionContext[Any]:
        """Run the workflow in this process until it ends or pauses; no server is needed.

        With `execution_id` a paused or interrupted execution goes on, and a finished one is returned as it is.

        :raises ExecutionNotFound: there is no execution of that id
        """
        return _outside_a_loop(self.run_async(input, execution_id=execution_id), "run")

    def resume(self, execution_id: str, input: Any = None, *, pause: str | None = None) -> ExecutionContext[Any]:
        """Answer a pause with `input` and run on until it ends or pauses again.

        :raises ExecutionNotFound: there is no execution of that id
        :raises NotPaused: it has no open pause of that name, or several and none is named
        """
        return _outside_a_loop(self.resume_async(execution_id, input, pause=pause), "resume")

    async def run_async(self, input: Any = None, *, execution_id: str | None = None) -> ExecutionContext[Any]:
        """`run` for async code."""
        return await embedded.run(self, input, execution_id)

    async def resume_async(
        self, execution_id: str, input: Any = None, *, pause: str | None = None
    ) -> ExecutionContext[Any]:
        """`resume` for async code."""
        return await embedded.resume(self, execution_id, input, pause)


def _outside_a_loop(work: Coroutine[Any, Any, ExecutionContext[Any]], name: str) -> ExecutionContext[Any]:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        work.close()
        raise InvalidInput(f"{name}() cannot be used inside a running event loop; await {name}_async() there")
    context = asyncio.run(work)
    if context.has_failed:  # a script that prints the output shows nothing of it
        trace = 'logging.basicConfig(level="INFO") shows the trace'
        logger.warning("workflow %s failed: %s (%s)", context.workflow_id, context.error, trace)
    return context


def _check(namespace: str, name: str) -> None:
    if not NAMESPACE.fullmatch(namespace):
        raise InvalidInput(
            f"the namespace {namespace!r} must match ^[a-z0-9][a-z0-9_-]*$ and have at most 64 characters"
        )
    if not NAME.fullmatch(name):
        raise InvalidInput(f"the workflow name {name!r} must match ^[A-Za-z][A-Za-z0-9_-]*$, at most 64 characters")


def _check_function(function: WorkflowFunction, name: str) -> None:
    """What a decorator made may return an awaitable without being async; what is plainly `def` cannot."""
    if not inspect.isfunction(function) or hasattr(function, "__wrapped__"):
        return
    if not inspect.iscoroutinefunction(function):
        raise InvalidInput(f"the workflow {name} must be an async function: write `async def {function.__name__}`")
    if not inspect.signature(function).parameters:
        raise InvalidInput(f"the workflow {name} must take its context: `async def {function.__name__}(ctx)`")
