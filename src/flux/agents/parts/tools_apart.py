"""The tools of a file that run in a process apart: remembered here, task by task, while their functions run there."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from flux.agents.define.approval import Predicate
from flux.agents.parts.task_tools import kept_effect, running
from flux.agents.turn.loop import Session
from flux.engine.encoding.values import encode_value
from flux.engine.workflows.calls import Call
from flux.engine.workflows.flow import call
from flux.engine.workflows.journal import Journal, journal_here
from flux.engine.workflows.options import Called, TaskOptions
from flux.engine.workflows.pause import pause, sleep
from flux.engine.workflows.place import Path, Place, enter, here
from flux.engine.workflows.progress import progress
from flux.engine.workflows.services import Services
from flux.engine.workflows.task import task
from flux.errors import (
    DatabaseLocked,
    DatabaseUnavailable,
    DefinitionInvalid,
    ExecutionSuspended,
    Fenced,
    FluxError,
    InvalidInput,
)
from flux.tools.apart.lines import Described, Message, Role
from flux.tools.apart.process import ToolProcess, ToolProcesses
from flux.tools.base import Tool
from flux.tools.declared import SECRETS, filled
from flux.tools.rules import ApprovalRequest, Dynamic
from flux.tools.tool_file import ToolFile

#: What code there may ask of the engine here, by name; the rest is in `_Asked`.
ENGINE: dict[str, Callable[..., Awaitable[Any]]] = {"sleep": sleep, "call": call, "progress": progress}

FUNCTION: Role = "function"

Function = Callable[..., Awaitable[Any]]
#: The process of a file, started again where it has ended.
Process = Callable[[], Awaitable[ToolProcess]]


class ToolsApart:
    """Makes tools of what the processes describe."""

    def __init__(self, processes: ToolProcesses, services: Services) -> None:
        self._processes = processes
        self._services = services

    async def tools(self, file: ToolFile, session: Session) -> tuple[list[Tool], dict[str, Predicate]]:
        """The tools of a file, and the predicates that say of a call whether to ask.

        :raises SourceUnusable, DefinitionInvalid: they cannot be used
        """
        tenant = session.run.scope.tenant

        def process() -> Awaitable[ToolProcess]:
            return self._processes.get(tenant, file)

        started = await process()
        described = started.tools
        for one in described:
            _check_secrets(started, one.options)
        tools = [self._tool(one, file, process, session) for one in described]
        asked = [one for one in described if one.asks is None]
        return tools, {_predicate(one): _asking(one, process) for one in asked}

    def _tool(self, one: Described, file: ToolFile, process: Process, session: Session) -> Tool:
        functions = {role: _apart(role, one, process) for role in (FUNCTION, *one.roles)}
        options = _options(one.name, one.options, functions)
        called: task[..., Any] = task(functions["function"], msgspec.structs.replace(options, effect=one.effect))
        return Tool(
            name=one.name,
            description=one.description,
            parameters=one.parameters,
            run=running(called, one.effect, lambda args, context: args, session, self._services),
            effect=kept_effect(one.effect),
            requires_approval=bool(one.asks),
            approval="default" if one.asks is not None else Dynamic(value=_predicate(one)),
            source=file.name,
            part_of_run=True,
        )


def _predicate(one: Described) -> str:
    return f"requires_approval of {one.name}"


def _asking(one: Described, process: Process) -> Predicate:
    async def asks(request: ApprovalRequest) -> bool:
        found = await process()
        return bool(await found.run(Message("run", tool=one.name, role="asks", args=dict(request.args))))

    return asks


def _check_secrets(process: ToolProcess, options: Mapping[str, Any]) -> None:
    """Refuse secrets that the file does not write out, so that nobody was asked whether it may have them.

    :raises DefinitionInvalid: there is one
    """
    for name in sorted(set(options.get(SECRETS, ())) - process.secrets):
        raise DefinitionInvalid(f"secret_requests: write {name[:80]!r} out in the file; while auth is on, no other way")


def _options(name: str, options: dict[str, Any], functions: Mapping[Role, Function]) -> TaskOptions:
    given = msgspec.structs.asdict(msgspec.convert(options, _PlainOptions))
    return TaskOptions(name=name, fallback=functions.get("fallback"), rollback=functions.get("rollback"), **given)


class _PlainOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options of a task as its process says them."""

    retry_max_attempts: int = 0
    retry_delay: float = 1
    retry_backoff: float = 2
    timeout: float = 0
    cache: bool = False
    metadata: bool = False
    secret_requests: tuple[str, ...] = ()
    config_requests: tuple[str, ...] = ()


def _apart(role: Role, one: Described, process: Process) -> Function:
    """A function that calls that of a tool in its process."""
    fills = filled(name for name, value in one.options.items() if value)

    async def apart(**kwargs: Any) -> Any:
        args = {name: value for name, value in kwargs.items() if name not in fills}
        message = Message("run", tool=one.name, role=role, args=args, given=_given(kwargs, fills))
        return await _Asked(await process()).run(message)

    names = one.parameters.get("properties", {})
    shown = inspect.Signature([inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in names])
    vars(apart)["__signature__"] = shown  # so that a call is told with its arguments by name
    return apart


def _given(kwargs: dict[str, Any], fills: frozenset[str]) -> dict[str, Any]:
    return {name: msgspec.to_builtins(kwargs[name]) for name in fills if name in kwargs}


class _Asked:
    """One run of a function there, and what its code asks: done here, at the same place of the same call."""

    def __init__(self, process: ToolProcess) -> None:
        journal, place = journal_here(), here()
        if journal is None or place is None:
            raise InvalidInput("a tool of a file is called by its agent only")
        self._journal: Journal = journal
        self._place: Place = place
        self._process = process
        self._context = _nowhere()
        self._places: dict[Path, Place] = {}
        self._asking: set[asyncio.Task[None]] = set()
        self._stopped: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def run(self, message: Message) -> Any:
        """What the function returns.

        :raises ExecutionError: it failed
        """
        run = asyncio.create_task(self._process.run(message, self._hear), context=self._context.copy())
        try:
            await asyncio.wait((run, self._stopped), return_when=asyncio.FIRST_COMPLETED)
            return self._stopped.result() if self._stopped.done() else run.result()
        finally:
            for one in (run, *self._asking):
                one.cancel()

    def _hear(self, message: Message) -> None:
        asking = asyncio.create_task(self._answer(message), context=self._context.copy())
        self._asking.add(asking)
        asking.add_done_callback(self._asking.discard)
        self._place.on_fork(asking)

    async def _answer(self, message: Message) -> None:
        enter(self._at(message.path))
        try:
            value = await self._done(message)
        except (ExecutionSuspended, Fenced, DatabaseLocked, DatabaseUnavailable) as problem:
            if not self._stopped.done():
                self._stopped.set_exception(problem)
        except (FluxError, TypeError, ValueError) as error:
            self._process.answer(Message("answer", message.id, message=str(error), kind=type(error).__name__))
        else:
            self._process.answer(Message("answer", message.id, value=value))

    def _at(self, path: Path) -> Place:
        if path not in self._places:
            self._places[path] = Place(self._place.on_fork, (*self._place.path, *path), self._place.body)
        return self._places[path]

    async def _done(self, message: Message) -> Any:
        given = message.given
        match message.what:
            case "task":
                return await self._task(msgspec.convert(given, _Nested), message.path)
            case "pause":
                until = given.pop("until", None)
                given["until"] = None if until is None else datetime.fromtimestamp(until, UTC)
                return encode_value(await pause(**given))
            case "config":
                found = await self._journal.outside(
                    self._journal.services.configs(self._journal.run.scope, [str(given["name"])])
                )
                return encode_value(found[given["name"]])
            case what if what in ENGINE:
                return encode_value(await ENGINE[what](**given))
        raise InvalidInput(f"the tools of a file cannot ask for {message.what!r} while auth is on")

    async def _task(self, nested: _Nested, path: Path) -> Any:
        _check_secrets(self._process, nested.options)
        functions = {role: self._nested(role, nested) for role in (FUNCTION, *nested.roles)}
        options = msgspec.structs.replace(
            _options(nested.name, nested.options, functions), effect=nested.effect, requires_approval=nested.asks
        )
        called = Called(nested.name, functions["function"], options, nested.args, nested.kwargs, nested.arguments)
        return await Call(called, self._journal, self._at(path)).result()

    def _nested(self, role: Role, nested: _Nested) -> Function:
        fills = filled(name for name, value in nested.options.items() if value)

        async def apart(*args: Any, **kwargs: Any) -> Any:
            message = Message("run", nested=nested.nested, role=role, given=_given(kwargs, fills))
            return await _Asked(self._process).run(message)

        return apart


class _Nested(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A task that code there calls: `nested` is what it is known by there."""

    nested: int
    name: str
    args: list[Any]
    kwargs: dict[str, Any]
    arguments: dict[str, Any]
    options: dict[str, Any]
    effect: str | None
    roles: list[Role]
    asks: bool


def _nowhere() -> contextvars.Context:
    """The context of here, but for the place: what runs in it is no branch of its own."""
    context = contextvars.copy_context()
    context.run(enter, None)
    return context
