"""Where code of a workflow stands: its branch, and from that the id of each task call.

A call's id is made of the branch's path, the task's name and arguments, and how often the same call was made
in that branch before. Branches are counted where asyncio tasks are made, in program order, so that parallel
branches find their own results again whatever order they ran in.
"""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextvars import ContextVar, Token
from typing import Any, cast

import msgspec

from flux.engine.encoding.values import encode_value
from flux.errors import ValueNotStorable

Path = tuple[int | str, ...]
OnFork = Callable[["asyncio.Future[Any]"], None]


class Body:
    """The call of a task that is being executed: at work, or only waiting for what it called."""

    def __init__(self, call: str, name: str, parent: Body | None) -> None:
        self.call = call
        self.name = name
        self.parent = parent
        self.inner = 0
        self.parked = 0

    @property
    def at_work(self) -> bool:
        """Whether something happens in it that nobody else counts."""
        return not self.inner and not self.parked


class Place:
    """One branch of a workflow, or the inside of one task call. `on_fork` is told of each asyncio task."""

    def __init__(self, on_fork: OnFork, path: Path = (), body: Body | None = None) -> None:
        self.path = path
        self.body = body
        self.on_fork = on_fork
        self._forks = 0
        self._calls: dict[str, int] = {}

    def fork(self) -> Place:
        """The place of the next branch."""
        self._forks += 1
        return Place(self.on_fork, (*self.path, self._forks), self.body)

    def inside(self, body: Body) -> Place:
        """The place inside a call."""
        return Place(self.on_fork, (*self.path, body.call), body)

    def mint(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """The id of the next call of a task with these arguments."""
        same = hashlib.blake2b(_encoded([self.path, name, plain(args), plain(kwargs)]), digest_size=8).hexdigest()
        count = self._calls[same] = self._calls.get(same, 0) + 1
        return f"{name}_{same}" if count == 1 else f"{name}_{same}_{count}"


_here: ContextVar[Place | None] = ContextVar("flux_place", default=None)


def here() -> Place | None:
    """The place of the code that asks; None outside a workflow."""
    return _here.get()


def enter(place: Place | None) -> Token[Place | None]:
    """Stand at a place, until `leave`."""
    return _here.set(place)


def leave(token: Token[Place | None]) -> None:
    """Stand where one stood before."""
    _here.reset(token)


def count_branches(loop: asyncio.AbstractEventLoop) -> None:
    """Make every asyncio task that a workflow's code starts a branch of it."""
    before: Any = loop.get_task_factory()
    if not isinstance(before, _Factory):
        loop.set_task_factory(cast(Any, _Factory(before)))


class _Factory:
    def __init__(self, before: Any) -> None:
        self._before = before

    def __call__(self, loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **options: Any) -> Any:
        context = options.get("context")
        place = _here.get() if context is None else context.get(_here)
        if place is None:
            return self._make(loop, coro, **options)
        context = context or contextvars.copy_context()
        context.run(_here.set, place.fork())
        branch = self._make(loop, coro, **{**options, "context": context})
        place.on_fork(branch)
        return branch

    def _make(self, loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **options: Any) -> Any:
        return asyncio.Task(coro, loop=loop, **options) if self._before is None else self._before(loop, coro, **options)


def plain(value: Any) -> Any:
    """Arguments as far as they are JSON; what is not counts by the name of its type."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    try:
        return encode_value(value)
    except ValueNotStorable:
        return type(value).__qualname__


def _encoded(value: Any) -> bytes:
    return msgspec.json.encode(value, order="deterministic")
