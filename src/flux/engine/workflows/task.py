"""`@task`: a function whose calls are remembered by the workflow that makes them."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, Unpack, overload

import msgspec

from flux.engine.workflows.calls import Call
from flux.engine.workflows.elsewhere import elsewhere
from flux.engine.workflows.journal import journal_here
from flux.engine.workflows.options import Called, TaskOptions, TaskWords
from flux.engine.workflows.place import here
from flux.errors import InvalidInput

P = ParamSpec("P")
R = TypeVar("R")
V = TypeVar("V")


class Decorator(Protocol):
    """What `task.with_options(...)` returns."""

    def __call__(self, function: Callable[..., R]) -> task[..., R]:
        """Make a task of a function; secrets, configs and metadata are given to it beside what its callers give."""
        ...


class Options(Protocol):
    """`task.with_options` itself."""

    def __call__(self, **options: Unpack[TaskWords]) -> Decorator:
        """Decorate a function as a task with options."""
        ...


class NewOptions(Protocol[P, R]):
    """`with_options` of a task."""

    def __call__(self, **options: Unpack[TaskWords]) -> task[P, R]:
        """The task with other options; those that are not given stay."""
        ...


class _WithOptions:
    """`task.with_options(...)` decorates a function; on a task it returns a copy with other options."""

    @overload
    def __get__(self, instance: None, owner: type[task[..., Any]]) -> Options: ...
    @overload
    def __get__(self, instance: task[P, R], owner: type[task[..., Any]]) -> NewOptions[P, R]: ...
    def __get__(self, instance: task[..., Any] | None, owner: type[task[..., Any]]) -> Callable[..., Any]:
        if instance is None:
            return functools.partial(_decorator, owner)
        return lambda **options: owner(instance.function, _options(instance.options, options))


class task(Generic[P, R]):  # noqa: N801 - a decorator
    """A function as a task. Called in a workflow its result is remembered; elsewhere it is a plain awaitable call.

    P: the arguments of the function; R: what it returns, for an async function its coroutine.
    """

    with_options = _WithOptions()

    def __init__(self, function: Callable[P, R], options: TaskOptions | None = None) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.options = options or TaskOptions()
        self.name = str(self.options.name or getattr(function, "__name__", type(function).__name__))
        self.signature = inspect.signature(function)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def __repr__(self) -> str:
        return f"<task {self.name}>"

    @overload
    async def __call__(self: task[P, Coroutine[Any, Any, V]], *args: P.args, **kwargs: P.kwargs) -> V: ...
    @overload
    async def __call__(self: task[P, V], *args: P.args, **kwargs: P.kwargs) -> V: ...
    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Call the task.

        :raises ExecutionError: it failed for good; the cause is in it
        """
        place, journal = here(), journal_here()
        if place is None or journal is None:
            if (way := elsewhere()) is not None:
                return await way.task(self, args, kwargs)
            value: Any = self.function(*args, **kwargs)
            return await value if inspect.isawaitable(value) else value
        arguments = self.arguments(args, kwargs)
        called = Called(self.named(arguments), self.function, self.options, args, kwargs, arguments)
        return await Call(called, journal, place).result()

    @overload
    async def map(self: task[P, Coroutine[Any, Any, V]], *iterables: Iterable[Any]) -> list[V]: ...
    @overload
    async def map(self: task[P, V], *iterables: Iterable[Any]) -> list[V]: ...
    async def map(self, *iterables: Iterable[Any]) -> list[Any]:
        """Call the task once per item (with several iterables: once per tuple of items), all at once."""
        calls: Callable[..., Any] = self
        return list(await asyncio.gather(*(calls(*items) for items in zip(*iterables, strict=False))))

    def named(self, arguments: Mapping[str, Any]) -> str:
        """What a call with these arguments is called.

        :raises InvalidInput: the name has a field that is none of them
        """
        if "{" not in self.name:
            return self.name
        try:
            return self.name.format(**arguments)
        except (KeyError, IndexError, AttributeError, ValueError) as error:
            raise InvalidInput(f"the task name {self.name!r} has a field that is no argument: {error}") from error

    def arguments(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a call by their names, as far as they fit."""
        try:
            bound = self.signature.bind_partial(*args, **kwargs)
        except TypeError:
            return dict(kwargs)
        bound.apply_defaults()
        return dict(bound.arguments)


def _decorator(owner: type[task[..., Any]], /, **options: Any) -> Decorator:
    """Decorate a function as a task with options, the fields of TaskOptions.

    :raises InvalidInput: there is no such option
    """
    checked = _options(TaskOptions(), options)
    return lambda function: owner(function, checked)


def _options(before: TaskOptions, given: Mapping[str, Any]) -> TaskOptions:
    wrong = [name for name in given if name not in TaskOptions.__struct_fields__]
    if wrong:
        valid = ", ".join(TaskOptions.__struct_fields__)
        raise InvalidInput(f"a task has no option {', '.join(wrong)}; the options are {valid}")
    values = dict(given)
    if isinstance(values.get("timeout"), timedelta):
        values["timeout"] = values["timeout"].total_seconds()
    return msgspec.structs.replace(before, **values)
