"""`ctx.init`: a harness in an execution of a workflow, which drives its sessions; operations are tasks.

What an operation came to is remembered like any task's: a workflow that goes on in another process does not ask again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NoReturn

import msgspec

from flux.agents.asking import Asked, session_executor
from flux.agents.code.errors import AbortError
from flux.agents.code.ids import check_id
from flux.agents.code.outcome import CANCELLED, Outcome, outcome_of, response_of, spent_in
from flux.agents.code.stores import exported, loaded
from flux.agents.code.types import model_of
from flux.agents.define.agent import AgentCreateContext, CreatedAgent, Resolved, extended, resolve
from flux.agents.define.profile import AgentProfile
from flux.agents.define.tool import ToolDefinition
from flux.agents.harness.calls import CallHandle
from flux.agents.harness.commands import Command, CommandRun
from flux.agents.harness.harness import DEFAULT, Harness, checked_sandbox
from flux.agents.harness.session import Session, Work, conversation
from flux.agents.harness.wanted import Wanted, wanted
from flux.agents.turn.kits import Given
from flux.engine.running.driving import child_id
from flux.engine.running.run import Executor, Run
from flux.engine.workflows.context import ExecutionContext
from flux.engine.workflows.journal import Journal, journal_here
from flux.engine.workflows.place import Body, here
from flux.engine.workflows.task import task
from flux.errors import InvalidInput, SessionBusy, SessionNotFound
from flux.events import SessionStarted, Stored, UserSaid
from flux.messages import Message
from flux.sandboxes.base import Sandbox, ShellResult
from flux.store import log
from flux.store.executions import Spent
from flux.store.log import History
from flux.tools.cancel import CancelSignal


async def init_in(
    agent: CreatedAgent,
    context: ExecutionContext[Any],
    *,
    name: str = DEFAULT,
    id: str | None = None,
    tools: Sequence[ToolDefinition] = (),
    skills: Sequence[Any] = (),
    subagents: Sequence[AgentProfile] = (),
    env: Any = None,
) -> Harness:
    """Initialise an agent for an execution; the instance is the execution, unless `id` names another.

    :raises InvalidInput: outside the code of a workflow
    """
    journal = journal_here()
    if journal is None:
        raise InvalidInput("ctx.init works in the code of a workflow; elsewhere it is init_agent")
    instance = context.execution_id if id is None else check_id("the id of an instance", id)
    check_id("the name of a harness", name)
    resolved = await resolve(agent, AgentCreateContext(instance, env, context.input))
    resolved = extended(resolved, tools, skills, subagents)
    return WorkflowHarness(resolved, instance, name, await checked_sandbox(resolved), journal)


class WorkflowHarness(Harness):
    """A harness whose sessions are driven by an execution."""

    def __init__(self, resolved: Resolved, id: str, name: str, sandbox: Sandbox, journal: Journal) -> None:
        super().__init__(resolved, id, name, sandbox, None)
        self.journal = journal
        self.busy: set[str] = set()
        self.sessions = WorkflowSessions(self)

    async def session(self, name: str = DEFAULT) -> Session:
        """The session of that name; it begins with its first operation."""
        return WorkflowSession(self, check_id("the name of a session", name))


class WorkflowSessions:
    """The sessions of a harness in a workflow, by name. An execution keeps what it has driven."""

    def __init__(self, harness: WorkflowHarness) -> None:
        self._harness = harness

    async def get(self, name: str = DEFAULT) -> Session:
        """The session of that name.

        :raises SessionNotFound: nothing was done in it yet
        """
        session = await self._harness.session(name)
        if not await _written(self._harness.journal, session.id):
            raise SessionNotFound(f"agent {self._harness.agent} has no session {name!r} in this execution")
        return session

    async def create(self, name: str = DEFAULT) -> Session:
        """The session of that name; it begins with its first operation."""
        return await self._harness.session(name)

    async def delete(self, name: str = DEFAULT) -> None:
        """Not here."""
        _cannot("deleted")


class WorkflowSession(Session):
    """A session that an execution drives."""

    def __init__(self, harness: WorkflowHarness, name: str) -> None:
        self._journal = harness.journal
        super().__init__(harness, None, child_id(self._journal.run.id, f"{harness.agent}/{harness.id}/{name}"), name)
        self._busy = harness.busy

    async def history(self) -> list[Message]:
        """The conversation as the model is shown it."""
        return conversation(await _written(self._journal, self.id))

    async def delete(self) -> None:
        """Not here."""
        _cannot("deleted")

    async def fork(self, at: int | None = None, *, name: str | None = None) -> Session:
        """Not here."""
        _cannot("forked")

    async def compact(self) -> bool:
        """Not here: the loop summarises by itself where it has to."""
        _cannot("compacted")

    def stream(self, text: str, **_: Any) -> Any:
        """Not here: what happens is progress of the execution."""
        _cannot("streamed")

    async def cancel(self) -> None:
        """Not here: abort the handle, or cancel the execution."""
        _cannot("cancelled from inside")

    async def interrupts(self) -> Any:
        """Not here: they are questions of the execution."""
        _cannot("answered from inside")

    async def respond(self, *_: Any, **__: Any) -> Any:
        """Not here."""
        _cannot("answered from inside")

    def _call(self, work: Work[Any], signal: CancelSignal | None) -> CallHandle[Any]:
        async def operation(own: CancelSignal) -> Any:
            if self.id in self._busy:
                raise SessionBusy("an operation is under way in this session; wait for it, or use another session")
            self._busy.add(self.id)
            try:
                return await work(own)
            finally:
                self._busy.discard(self.id)

        return CallHandle(operation, signal)

    async def _ask(
        self, text: str, asked: Wanted, given: Given, signal: CancelSignal, message: str | None = None
    ) -> Any:
        return await self._as_task("prompt", text, asked, given, None, signal)

    async def _task(
        self, text: str, agent: str | None, cwd: str | None, options: Mapping[str, Any], signal: CancelSignal
    ) -> Any:
        asked = wanted(**options)
        _, _, child = self._harness.for_task(agent, asked, cwd)
        return await self._as_task(
            "task", text, asked, child, lambda body: child_id(self._journal.run.id, body.call), signal
        )

    async def _as_task(
        self,
        what: str,
        text: str,
        asked: Wanted,
        given: Given,
        elsewhere: Callable[[Body], str] | None,
        signal: CancelSignal,
    ) -> Any:
        """Ask in this session, or in the one `elsewhere`, as a task."""
        said = self._said(text, asked)

        async def ask(instruction: str) -> dict[str, Any]:
            body = _body()
            driven = Asked(self._journal, body, given, elsewhere(body)) if elsewhere else await self._drive(body, given)
            message = msgspec.structs.replace(said, id=driven.message(0), mode="queue")
            await driven.until_end(message)
            if elsewhere is None:
                await self._save()
            entries = _since(await _written(self._journal, driven.child), message.id)
            outcome, spent = outcome_of(entries, message.id), spent_in(entries)
            # What cannot be had is an error of the task, and remembered as one.
            response_of(outcome, spent, model_of(given.definition.model), asked.result)
            return _kept(outcome, spent)

        name = f"{given.definition.name}_{what}"
        kept = await _until(task(ask).with_options(name=name)(text), signal)
        outcome, spent = _found(kept)
        return response_of(outcome, spent, model_of(given.definition.model), asked.result)

    async def _shell(self, command: Command, signal: CancelSignal) -> ShellResult:
        given = self._harness.given(Wanted(model=self._harness.any_model))

        async def shell(text: str) -> dict[str, Any]:
            body = _body()
            executor = await self._journal.outside(session_executor(self._journal))
            work = _Commanding(command, given, self._harness.sandbox, executor.settle)
            driven = await self._drive(body, given, work)
            work.said = msgspec.structs.replace(command.said(driven.message(0)), mode="queue")
            await driven.until_end(work.said)
            await self._save()
            result: dict[str, Any] = msgspec.to_builtins(work.came_to())
            return result

        name = f"{given.definition.name}_shell"
        found = await _until(task(shell).with_options(name=name, effect="once")(command.text), signal)
        return msgspec.convert(found, ShellResult)

    async def _drive(self, body: Body, given: Given, work: Executor | None = None) -> Asked:
        """Something to do in this session, which is made if need be, with what its store keeps."""
        started = SessionStarted(
            agent=given.definition.name,
            instance=self._harness.id,
            name=self.name,
            definition_digest=given.definition.digest,
        )
        history, store = History(), self._harness.store
        if store is not None and not await _written(self._journal, self.id):
            history = await loaded(store, self._key)
        return Asked(self._journal, body, given, self.id, started=started, work=work, history=history)

    async def _save(self) -> None:
        if self._harness.store is not None:
            await self._harness.store.save(self._key, exported(await _written(self._journal, self.id)))


class _Commanding:
    """Runs a command in a driven session."""

    said: UserSaid

    def __init__(self, command: Command, given: Given, sandbox: Sandbox, settle: Executor) -> None:
        self._command = command
        self._given = given
        self._sandbox = sandbox
        self._settle = settle
        self._inner: CommandRun | None = None

    async def __call__(self, run: Run) -> None:
        if self._inner is not None:
            await self._settle(run)
            return
        began, call = self._command.entries(run.run_id or run.id, self.said, self._given.definition)
        self._inner = CommandRun(self._command, call, self._sandbox, self._settle)
        await run.append(*began)
        await self._inner(run)

    def came_to(self) -> ShellResult:
        """What came of it."""
        if self._inner is None:
            raise AbortError(CANCELLED)
        return self._inner.came_to()


async def _until(work: Awaitable[Any], signal: CancelSignal) -> Any:
    """The result of a task, which the signal stops.

    :raises AbortError: it did
    """
    running = asyncio.ensure_future(work)

    def stop(_: Any) -> None:
        running.cancel()

    forget = signal.then(stop)
    try:
        return await running
    except asyncio.CancelledError:
        if signal.cancelled:
            raise AbortError(signal.reason) from None
        raise
    finally:
        forget()


async def _written(journal: Journal, id: str) -> list[Stored]:
    run = journal.run
    rows = await journal.outside(run.database.read(log.read(run.scope, id)))
    return [row.stored() for row in rows]


def _since(entries: Sequence[Stored], message: str) -> Sequence[Stored]:
    """The entries from a message on."""
    at = next((n for n, one in enumerate(entries) if isinstance(one.entry, UserSaid) and one.entry.id == message), 0)
    return entries[at:]


def _body() -> Body:
    place = here()
    if place is None or place.body is None:
        raise InvalidInput("this works in a task of a workflow only")
    return place.body


def _kept(outcome: Outcome, spent: Spent) -> dict[str, Any]:
    """What a task remembers of an operation."""
    kept: dict[str, Any] = msgspec.to_builtins({"outcome": outcome, "spent": spent})
    return kept


def _found(kept: dict[str, Any]) -> tuple[Outcome, Spent]:
    return msgspec.convert(kept["outcome"], Outcome), msgspec.convert(kept["spent"], Spent)


def _cannot(what: str) -> NoReturn:
    raise InvalidInput(f"a session of a workflow cannot be {what}: it belongs to its execution")
