"""The program of the process apart, `python -m flux.tools.apart.child FD`: loads one file and calls its functions."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import itertools
import os
import socket
import sys
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import msgspec
from msgspec import Raw

from flux.engine.encoding.values import decode_value, encode_value, json_value
from flux.engine.sources.source import Code, SourceLoader
from flux.engine.workflows.elsewhere import set_elsewhere
from flux.engine.workflows.options import TaskMetadata
from flux.engine.workflows.place import Place, count_branches, enter, here, plain
from flux.engine.workflows.task import task
from flux.errors import DefinitionInvalid, ExecutionError, FluxError, describe
from flux.tools.apart.lines import MAX_LINE, Described, Line, Message, Role, failure
from flux.tools.base import Done, Failed
from flux.tools.function import outcome_of
from flux.tools.schema import Signature
from flux.tools.tasks import effect_of, in_thread, rule_of_task, task_signature, tasks_of
from flux.tools.tool_file import ToolFile

#: Options of a task that are data.
PLAIN = (
    "retry_max_attempts", "retry_delay", "retry_backoff", "timeout", "cache", "metadata", "secret_requests",
    "config_requests",
)  # fmt: skip


class Child:
    """What runs here, and what was asked and is not answered yet."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._tools: dict[str, tuple[task[..., Any], Signature]] = {}
        self._nested: dict[int, tuple[task[..., Any], Sequence[Any], Mapping[str, Any]]] = {}
        self._running: dict[int, asyncio.Task[bytes]] = {}
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._count = itertools.count(1)

    async def work(self) -> None:
        """Do what is said, until nobody is there to say anything."""
        count_branches(asyncio.get_running_loop())
        async for message in self._line.messages():
            match message.op:
                case "load":
                    await self._load(ToolFile.model_validate(message.file))
                case "run":
                    self._start(message)
                case "cancel" if message.id in self._running:
                    self._running[message.id].cancel()
                case "answer" if message.id in self._asked:
                    _settle(self._asked.pop(message.id), message)

    async def _load(self, file: ToolFile) -> None:
        try:
            module = await SourceLoader().module(Code(file.name, file.digest, file.source, "tools"))
            described = [self._described(one) for one in tasks_of(file, module)]
        except FluxError as error:
            self._line.say(Message("failed", kind=type(error).__name__, message=str(error)))
        else:
            self._line.say(Message("loaded", tools=described))

    def _described(self, one: task[..., Any]) -> Described:
        signature = task_signature(one)
        if signature.context is not None or one.options.output_storage is not None:
            what = "output_storage" if signature.context is None else f"{signature.context}: ToolContext"
            raise DefinitionInvalid(f"tool {one.name}: while auth is on, the tools of a file cannot have {what}")
        self._tools[one.name] = (one, signature)
        rule = rule_of_task(one, signature)
        return Described(
            name=one.name,
            description=signature.description,
            parameters=signature.parameters,
            effect=effect_of(one),
            asks=rule if isinstance(rule, bool) else None,
            options=_options(one),
            roles=_roles(one),
        )

    # What is to be run

    def _start(self, message: Message) -> None:
        context = contextvars.copy_context()
        context.run(set_elsewhere, _Way(self, message.id))
        started = asyncio.get_running_loop().create_task(self._run(message), context=context)
        self._running[message.id] = started
        started.add_done_callback(partial(self._ended, message.id))

    def _ended(self, id: int, run: asyncio.Task[bytes]) -> None:
        """Tell what a run came to; whatever it raised is told, too."""
        del self._running[id]
        if run.cancelled():
            return
        error = run.exception()
        if error is None:
            self._line.say(Message("done", id, value=Raw(run.result())))
        else:
            said = str(error) if isinstance(error, ExecutionError) else describe(error)
            self._line.say(Message("raised", id, message=said, kind=type(error).__name__))

    async def _run(self, message: Message) -> bytes:
        enter(Place(lambda branch: None))
        encoded = msgspec.json.encode(await self._called(message))
        if len(encoded) > MAX_LINE // 2:
            raise ExecutionError(f"the result is larger than {MAX_LINE // 2:,} bytes")
        return encoded

    async def _called(self, message: Message) -> Any:
        role, given = message.role, message.given
        if "metadata" in given:
            given["metadata"] = TaskMetadata(**given["metadata"])
        if message.nested:
            one, args, kwargs = self._nested[message.nested]
            if role == "function":
                return encode_value(await _awaited(one.function, *args, **kwargs, **given))
            return encode_value(await _awaited(getattr(one.options, role), *args, **kwargs))
        one, signature = self._tools[message.tool]
        if role == "asks":
            rule = rule_of_task(one, signature)
            return rule(message.args) if callable(rule) else rule
        bound = signature.bind(message.args)
        if role == "function":
            return _shown(await in_thread(one.function)(**bound, **given))
        return _shown(await _awaited(getattr(one.options, role), **bound))

    # What is to be asked

    async def ask(self, run: int, path: tuple[int | str, ...], what: str, given: dict[str, Any]) -> Any:
        """What the engine answers to the code of a run."""
        id = next(self._count)
        answer = self._asked[id] = asyncio.get_running_loop().create_future()
        try:
            self._line.say(Message("ask", id, run, path, what, given))
            return decode_value(await answer)
        finally:
            self._asked.pop(id, None)

    async def nested(self, ask: Ask, one: task[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """The result of a task that the code of a run has called."""
        if one.options.output_storage is not None:
            raise ExecutionError(f"{one.name}: while auth is on, tasks of the tools of a file have no output_storage")
        arguments, rule, key = one.arguments(args, kwargs), one.options.requires_approval, next(self._count)
        self._nested[key] = (one, args, kwargs)
        try:
            return await ask(
                "task", nested=key, name=one.named(arguments), args=plain(args), kwargs=plain(kwargs),
                arguments=json_value(arguments), options=_options(one), effect=one.options.effect, roles=_roles(one),
                asks=bool(await _awaited(rule, **arguments)) if callable(rule) else bool(rule),
            )  # fmt: skip
        finally:
            del self._nested[key]


#: Asks the engine on behalf of the code of a run.
Ask = Callable[..., Coroutine[Any, Any, Any]]


class _Way:
    """What the code of one run asks."""

    def __init__(self, child: Child, run: int) -> None:
        self._child = child
        self._run = run

    async def ask(self, what: str, **given: Any) -> Any:
        """What the engine answers."""
        place = here()
        said = {name: _plain_time(value) for name, value in given.items()}
        return await self._child.ask(self._run, place.path if place else (), what, said)

    async def task(self, one: task[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """The result of a task."""
        return await self._child.nested(self.ask, one, args, kwargs)


def _settle(asked: asyncio.Future[Any], message: Message) -> None:
    if asked.done():
        return
    if message.message is None:
        asked.set_result(message.value)
    else:
        asked.set_exception(failure(message))


def _plain_time(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.timestamp()
    if isinstance(value, timedelta):
        return value.total_seconds()
    return encode_value(value)


def _options(one: task[..., Any]) -> dict[str, Any]:
    plain = {name: getattr(one.options, name) for name in PLAIN}
    return plain | {name: list(plain[name]) for name in ("secret_requests", "config_requests")}


def _roles(one: task[..., Any]) -> list[Role]:
    roles: tuple[Role, ...] = ("fallback", "rollback")
    return [role for role in roles if getattr(one.options, role) is not None]


async def _awaited(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    value = function(*args, **kwargs)
    return await value if inspect.isawaitable(value) else value


def _shown(value: Any) -> str:
    outcome = outcome_of(value)
    if isinstance(outcome, Done):
        return outcome.content
    raise ExecutionError(outcome.content if isinstance(outcome, Failed) else "a tool of a file asks with pause()")


def _leave_with_parent(guard: int) -> None:
    """End this process, whatever it does, when the one that started it is gone."""
    while os.read(guard, 1):
        pass
    os._exit(1)


async def main(fd: int) -> None:
    """Work for whoever holds the other end."""
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=fd), limit=MAX_LINE)
    await Child(Line(reader, writer)).work()


if __name__ == "__main__":
    guard = os.dup(0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    threading.Thread(target=partial(_leave_with_parent, guard), daemon=True).start()
    asyncio.run(main(int(sys.argv[1])))
    sys.stdout.flush()
    os._exit(0)  # threads of tools that still run have nobody to answer
