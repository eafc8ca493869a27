"""Blocking methods made of asynchronous ones: their names, arguments and results are typed as those are."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, cast, overload

from flux.client.thread import LoopThread

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
H = TypeVar("H")
S = TypeVar("S")


class Mirror(Generic[H]):
    """What blocks where `inner` awaits; the work is done in `thread`."""

    def __init__(self, thread: LoopThread, inner: H) -> None:
        self._thread = thread
        self._inner = inner


class Method(Protocol[P, R_co]):
    """A method of a class, as a type checker sees it."""

    @overload
    def __get__(self, instance: None, owner: type) -> Callable[Concatenate[Any, P], R_co]: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None) -> Callable[P, R_co]: ...


def called(method: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]) -> Method[P, R]:
    """The method that waits for the result of this one."""

    @functools.wraps(method)
    def call(self: Mirror[Any], *args: P.args, **given: P.kwargs) -> R:
        return self._thread.run(method(self._inner, *args, **given))

    return cast(Method[P, R], call)


def iterated(method: Callable[Concatenate[Any, P], AsyncGenerator[R, None]]) -> Method[P, Generator[R, None, None]]:
    """The method whose iterator gives the items of this one's; leaving or closing it closes both."""

    @functools.wraps(method)
    def iterate(self: Mirror[Any], *args: P.args, **given: P.kwargs) -> Generator[R, None, None]:
        return self._thread.each(method(self._inner, *args, **given))

    shown = inspect.signature(method)
    told = str(shown.return_annotation).replace("AsyncGenerator", "Generator").replace(", None]", ", None, None]")
    vars(iterate)["__signature__"] = shown.replace(return_annotation=told)
    return cast(Method[P, Generator[R, None, None]], iterate)


def mirrored(
    method: Callable[Concatenate[Any, P], Coroutine[Any, Any, H]], cls: Callable[[LoopThread, H], S]
) -> Method[P, S]:
    """The method that waits for the result of this one, and wraps it."""

    @functools.wraps(method)
    def call(self: Mirror[Any], *args: P.args, **given: P.kwargs) -> S:
        return cls(self._thread, self._thread.run(method(self._inner, *args, **given)))

    return cast(Method[P, S], call)
