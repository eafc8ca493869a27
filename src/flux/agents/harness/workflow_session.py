"""Sessions that an execution of a workflow drives. Whatever is done in them is a task that is remembered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from functools import partial
from typing import Any, NoReturn

import msgspec

from flux.agents.asking import Asked, session_executor
from flux.agents.code.ids import check_id
from flux.agents.code.outcome import compacted_of, outcome_of, response_of, spent_in
from flux.agents.code.stores import exported, loaded
from flux.agents.code.types import PromptResponse, PromptResult, model_of
from flux.agents.harness.calls import CallHandle, until
from flux.agents.harness.commands import Command
from flux.agents.harness.host import Shown
from flux.agents.harness.instance import Instance
from flux.agents.harness.remembered import Commanding, body_here, found_in, kept_of, since, written
from flux.agents.harness.session import Session, Work, conversation
from flux.agents.harness.wanted import Wanted, wanted
from flux.agents.service.forking import fork_steps, plan_fork
from flux.agents.turn.kits import Given
from flux.engine.intake.answers import Admitted, Written
from flux.engine.running.driving import child_id, driver_of, session_key
from flux.engine.running.run import Executor, Run
from flux.engine.workflows.journal import Journal
from flux.engine.workflows.place import Body
from flux.engine.workflows.task import task
from flux.errors import Conflict, ExecutionError, SessionBusy, SessionExists, SessionNotFound
from flux.events import CompactRequested, DeltaEvent, Entry, Forked, SessionStarted
from flux.messages import Message
from flux.sandboxes.base import ShellResult
from flux.store import driven, executions, log
from flux.store.database import Steps
from flux.store.forks import Under
from flux.store.log import History
from flux.tools.cancel import CancelSignal

#: Is shown what happens in a session.
Show = Callable[[Entry | DeltaEvent], None]
#: So much of its call names a fork that was given no name.
ID_SHOWN = 8
ANSWERED_OUTSIDE = (
    "the questions of a workflow's agents are those of its execution, which leaves its process while they wait:"
    " they are answered from outside (`flux execution approvals`)"
)


class SessionsHere:
    """What the code of an execution has done with sessions, by its harnesses; the same when it is run again."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        #: What is done now, by the ids of sessions.
        self.busy: dict[str, CancelSignal] = {}
        #: Those that were made by name and not only by using them.
        self.made: set[str] = set()
        #: Agent, instance and name of those that were deleted.
        self.deleted: list[tuple[str, str, str]] = []

    def id_of(self, instance: Instance, name: str) -> str:
        """The id of the session of a name: the same when the code is run again, another one once that was deleted."""
        deleted = self.deleted.count((instance.agent, instance.id, name))
        return child_id(self.journal.run.id, session_key(instance.agent, instance.id, name, deleted))


class WorkflowSession(Session):
    """A session that an execution drives."""

    def __init__(self, instance: Instance, here: SessionsHere, name: str) -> None:
        self._journal = here.journal
        self._here = here
        self._shown: dict[str, Show] = {}
        super().__init__(instance, None, here.id_of(instance, name), name)

    async def stream(
        self, text: str, *, signal: CancelSignal | None = None, **options: Any
    ) -> AsyncGenerator[Shown | PromptResponse | PromptResult[Any], None]:
        """What happens while the agent answers; the last is what `prompt` gives, which alone is remembered.

        When the code is run again, what happened before is not shown again.
        """
        events: asyncio.Queue[Shown | None] = asyncio.Queue()
        message = f"stream {len(self._shown)}"
        self._shown[message] = events.put_nowait
        handle = self._call(partial(self._prompt, text, options, message), signal)
        handle.then(partial(events.put_nowait, None))
        try:
            while (event := await events.get()) is not None:
                yield event
            yield await handle
        finally:
            handle.abort("nobody reads the stream any more")
            await handle.ended()

    async def history(self) -> list[Message]:
        """The conversation as the model is shown it; when the code is run again, as it was then."""

        async def history(name: str) -> int:
            return len(await written(self._journal, self.id))

        head: int = await self._remembered("history", history, self.name)
        return conversation((await written(self._journal, self.id))[:head])

    async def is_there(self) -> bool:
        """Whether it is made."""

        async def get(name: str) -> bool:
            return bool(await written(self._journal, self.id))

        there: bool = await self._remembered("get", get, self.name)
        return there

    async def create(self) -> None:
        """Make the session, in which nothing is done yet.

        :raises SessionExists: there is one
        """
        await self._alone(self._create)

    async def fork(self, at: int | None = None, *, name: str | None = None) -> Session:
        """A session that begins as a copy of this one, as of any session. When the code is run again, it is that copy.

        :raises InvalidInput: there is no such entry
        :raises SessionExists: there is one of that name
        """

        async def fork(at: int | None, name: str | None) -> str:
            body = body_here()
            to = name or f"fork-{child_id(self.id, body.call)[:ID_SHOWN]}"
            await self._journal.outside(self._copied(at, to, self._here.id_of(self._instance, to)))
            return to

        if name is not None:
            self._check_new(check_id("the name of a session", name))
        made: str = await self._remembered("fork", fork, at, name)
        self._here.made.add(self._here.id_of(self._instance, made))
        return WorkflowSession(self._instance, self._here, made)

    async def cancel(self) -> None:
        """Stop what is under way in this session; nothing to do is no error."""
        signal = self._here.busy.get(self.id)
        if signal is not None:
            signal.cancel("the session was cancelled")

    async def interrupts(self) -> NoReturn:
        """Not here.

        :raises Conflict: always; says why
        """
        raise Conflict(ANSWERED_OUTSIDE)

    async def respond(self, *_: Any, **__: Any) -> NoReturn:
        """Not here.

        :raises Conflict: always; says why
        """
        raise Conflict(ANSWERED_OUTSIDE)

    # How the operations are done

    def _call(self, work: Work[Any], signal: CancelSignal | None) -> CallHandle[Any]:
        async def operation(own: CancelSignal) -> Any:
            if self.id in self._here.busy:
                raise SessionBusy("an operation is under way in this session; wait for it, or use another session")
            if self.id != self._here.id_of(self._instance, self.name):
                raise SessionNotFound("there is no such session any more; it was deleted")
            self._here.busy[self.id] = own
            try:
                return await work(own)
            finally:
                del self._here.busy[self.id]

        return CallHandle(operation, signal)

    async def _remembered(
        self,
        what: str,
        work: Callable[..., Awaitable[Any]],
        *args: Any,
        signal: CancelSignal | None = None,
        **options: Any,
    ) -> Any:
        """Do something as a task; what it raises is raised, now and when it is remembered."""
        doing = task(work).with_options(name=f"{self._instance.agent}_{what}", **options)
        try:
            return await until(doing(*args), signal or CancelSignal())
        except ExecutionError as error:
            if type(error) is ExecutionError and isinstance(error.inner_exception, Exception):
                raise error.inner_exception from None
            raise

    async def _create(self, signal: CancelSignal) -> None:
        async def create(name: str) -> None:
            # One in which nothing was written by a driver was made by this call, before a crash.
            if any(stored.epoch for stored in await written(self._journal, self.id)):
                raise SessionExists(_EXISTS.format(self.name))
            await self._journal.outside(self._write(self._made(await self._history())))

        self._check_new(self.name)
        await self._remembered("create", create, self.name, signal=signal)
        self._here.made.add(self.id)

    def _made(self, history: History) -> Steps[Written]:
        run = self._journal.run
        driver = driver_of(run)
        yield from driven.hold(run.scope, driver)
        given = self._instance.given(Wanted(model=self._instance.any_model))
        rows = yield from driven.make(run.scope, driver, self.id, self._started(given), history)
        return Admitted(self.id, len(rows)), rows

    def _check_new(self, name: str) -> None:
        if self._here.id_of(self._instance, name) in self._here.made:
            raise SessionExists(_EXISTS.format(name))

    async def _copied(self, at: int | None, name: str, id: str) -> None:
        run = self._journal.run
        row = await run.database.read(executions.get(run.scope, self.id))
        if row is None:
            raise SessionNotFound("nothing was done in this session yet, so there is nothing to copy")
        there = await run.database.read(log.read(run.scope, id))
        if there:  # made by this call before a crash, if nothing was done in it
            last = there[-1].stored().entry
            if not isinstance(last, Forked) or last.source != self.id:
                raise SessionExists(_EXISTS.format(name))
            return
        fork = await plan_fork(
            run.database, run.scope, row, at, id=id, name=name, under=Under(run.id, run.execution.root)
        )
        await self._write(_held(run, fork_steps(run.scope, fork)))

    async def _write(self, program: Steps[Written]) -> None:
        run = self._journal.run
        admitted, rows = await run.database.write(program)
        run.feed.publish(admitted.id, rows)

    async def _compact(self, signal: CancelSignal) -> bool:
        given = self._instance.given(Wanted(model=self._instance.any_model))

        async def compact(name: str) -> bool:
            body = body_here()
            if self._instance.store is None and not await written(self._journal, self.id):
                return False
            asked = await self._drive(body, given)
            request = CompactRequested(id=asked.message(0), by=self._journal.run.scope.principal)
            await asked.until_end(request)
            await self._save()
            return compacted_of(await written(self._journal, self.id), request.id)

        found: bool = await self._remembered("compact", compact, self.name, signal=signal)
        return found

    async def _delete(self, signal: CancelSignal) -> None:
        async def delete(name: str) -> None:
            run = self._journal.run
            if self._instance.store is not None:
                await self._instance.store.delete(self._key)
            await self._journal.outside(run.database.write(driven.remove(run.scope, driver_of(run), self.id)))

        await self._remembered("delete", delete, self.name, signal=signal)
        self._here.made.discard(self.id)
        self._here.deleted.append((self._instance.agent, self._instance.id, self.name))

    async def _ask(
        self, text: str, asked: Wanted, given: Given, signal: CancelSignal, message: str | None = None
    ) -> Any:
        return await self._as_task("prompt", text, asked, given, None, signal, message)

    async def _task(
        self, text: str, agent: str | None, cwd: str | None, options: Mapping[str, Any], signal: CancelSignal
    ) -> Any:
        asked = wanted(**options)
        _, _, child = self._instance.for_task(agent, asked, cwd)
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
        message: str | None = None,
    ) -> Any:
        """Ask in this session, or in the one `elsewhere`, as a task."""
        said = self._said(text, asked)

        async def ask(instruction: str) -> dict[str, Any]:
            body = body_here()
            if elsewhere is not None:
                driven = Asked(self._journal, body, given, elsewhere(body))
            else:
                driven = await self._drive(body, given)
                driven.shown = self._shown.get(message or "")
            sent = msgspec.structs.replace(said, id=driven.message(0), mode="queue")
            await driven.until_end(sent)
            if elsewhere is None:
                await self._save()
            entries = since(await written(self._journal, driven.child), sent.id)
            outcome, spent = outcome_of(entries, sent.id), spent_in(entries)
            # What cannot be had is an error of the task, and remembered as one.
            response_of(outcome, spent, model_of(given.definition.model), asked.result)
            return kept_of(outcome, spent)

        kept = await self._remembered(what, ask, text, signal=signal)
        outcome, spent = found_in(kept)
        return response_of(outcome, spent, model_of(given.definition.model), asked.result)

    async def _shell(self, command: Command, signal: CancelSignal) -> ShellResult:
        given = self._instance.given(Wanted(model=self._instance.any_model))

        async def shell(text: str) -> dict[str, Any]:
            body = body_here()
            executor = await self._journal.outside(session_executor(self._journal))
            work = Commanding(command, given, self._instance.sandbox, executor.settle)
            driven = await self._drive(body, given, work)
            work.said = msgspec.structs.replace(command.said(driven.message(0)), mode="queue")
            await driven.until_end(work.said)
            await self._save()
            result: dict[str, Any] = msgspec.to_builtins(work.came_to())
            return result

        found = await self._remembered("shell", shell, command.text, signal=signal, effect="once")
        return msgspec.convert(found, ShellResult)

    async def _drive(self, body: Body, given: Given, work: Executor | None = None, shown: Show | None = None) -> Asked:
        """Something to do in this session, which is made if need be, with what its store keeps."""
        history = await self._history()
        started = self._started(given)
        return Asked(self._journal, body, given, self.id, started=started, work=work, history=history)

    def _started(self, given: Given) -> SessionStarted:
        return SessionStarted(
            agent=given.definition.name,
            instance=self._instance.id,
            name=self.name,
            definition_digest=given.definition.digest,
        )

    async def _history(self) -> History:
        store = self._instance.store
        if store is None or await written(self._journal, self.id):
            return History()
        return await loaded(store, self._key)

    async def _save(self) -> None:
        if self._instance.store is not None:
            await self._instance.store.save(self._key, exported(await written(self._journal, self.id)))


def _held(run: Run, program: Steps[Written]) -> Steps[Written]:
    """The program of a driver that still owns itself."""
    yield from driven.hold(run.scope, driver_of(run))
    return (yield from program)


_EXISTS = "there is a session {!r} in this execution already; take another name"
