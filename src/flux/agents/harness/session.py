"""A session of a harness: named conversation state, and the operations on it, one at a time."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Coroutine, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, Protocol, TypeVar, overload

from pydantic import BaseModel

from flux.agents.code.errors import AbortError
from flux.agents.code.outcome import CANCELLED, compacted_of, outcome_of, response_of, spent_in
from flux.agents.code.stores import SessionKey, exported
from flux.agents.code.types import PromptResponse, PromptResult, model_of
from flux.agents.define.called import TASK
from flux.agents.define.skills import SkillReference
from flux.agents.harness.calls import CallHandle
from flux.agents.harness.commands import Command, CommandRun
from flux.agents.harness.host import Host, Shown
from flux.agents.harness.instance import Instance
from flux.agents.harness.texts import skill_text
from flux.agents.harness.wanted import Wanted, wanted
from flux.agents.history import prompt
from flux.agents.history.asked import DETACHED, ONLY_CALLS
from flux.agents.history.transcript import Transcript
from flux.agents.service.forking import fork_steps, plan_fork
from flux.agents.turn.kits import Given
from flux.engine.intake.answers import Admitted, Decision
from flux.engine.running.driving import child_id, message_of
from flux.engine.running.run import Executor
from flux.errors import AgentFailed, InvalidInput
from flux.events import (
    AssistantSaid,
    Cancelled,
    CompactRequested,
    Entry,
    RunFailed,
    RunStarted,
    Stored,
    UserSaid,
)
from flux.messages import CallPart, Message, TextPart, ToolCall, UserPart
from flux.sandboxes.base import ShellResult
from flux.sandboxes.verbs import Files
from flux.store.interrupts import Interrupt
from flux.tools.cancel import CancelSignal

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
R_co = TypeVar("R_co", covariant=True)


class Work(Protocol[R_co]):
    """Does an operation; is told by the signal to stop."""

    def __call__(self, signal: CancelSignal) -> Coroutine[Any, Any, R_co]:
        """Begin."""
        ...


class Session:
    """One conversation of one instance of an agent. It is the same wherever it is reached from."""

    def __init__(self, instance: Instance, host: Any, id: str, name: str) -> None:
        self.name = name
        self.id = id
        self._instance = instance
        self._host: Host = host

    @property
    def fs(self) -> Files:
        """The files of the sandbox, without a record in the conversation."""
        return self._instance.fs

    @overload
    def prompt(
        self, text: str, *, result: type[M], signal: CancelSignal | None = None, **options: Any
    ) -> CallHandle[PromptResult[M]]: ...

    @overload
    def prompt(
        self, text: str, *, result: None = None, signal: CancelSignal | None = None, **options: Any
    ) -> CallHandle[PromptResponse]: ...

    def prompt(self, text: str, *, signal: CancelSignal | None = None, **options: Any) -> CallHandle[Any]:
        """Give the agent a text, and get a PromptResponse; with `result`, a Pydantic model, a PromptResult.

        Further options: `tools`, `model`, `thinking_level`, `images`.

        :raises SessionBusy: an operation is under way; when it is awaited, as all of these
        :raises AbortError: it was aborted
        :raises ResultUnavailableError: it ended without the result
        :raises AgentFailed: it failed
        """
        return self._call(partial(self._prompt, text, options, str(uuid.uuid4())), signal)

    async def stream(
        self, text: str, *, signal: CancelSignal | None = None, **options: Any
    ) -> AsyncGenerator[Shown | PromptResponse | PromptResult[Any], None]:
        """What happens while the agent answers, as it happens; the last is what `prompt` gives. Options are its own.

        Who stops reading stops the operation.

        :raises SessionBusy, AbortError, ResultUnavailableError, AgentFailed: as `prompt`
        """
        message = str(uuid.uuid4())
        handle = self._call(partial(self._prompt, text, options, message), signal)
        try:
            async with aclosing(self._host.events(self.id, message, handle)) as events:
                async for event in events:
                    yield event
            yield await handle
        finally:
            handle.abort("nobody reads the stream any more")
            await handle.ended()

    def skill(
        self,
        skill: SkillReference | str,
        *,
        args: Mapping[str, Any] | None = None,
        signal: CancelSignal | None = None,
        **options: Any,
    ) -> CallHandle[Any]:
        """Have the agent use a skill: a registered one or one of the workspace by its name, or one that is given.

        Options and errors are those of `prompt`.
        """
        return self._call(partial(self._skill, skill, args, options), signal)

    def task(
        self,
        text: str,
        *,
        agent: str | None = None,
        cwd: str | None = None,
        signal: CancelSignal | None = None,
        **options: Any,
    ) -> CallHandle[Any]:
        """Give work to a sub-agent, or to one like this, in a session of its own; nothing of it is told in this one.

        Options and errors are those of `prompt`.
        """
        return self._call(partial(self._task, text, agent, cwd, options), signal)

    def shell(
        self,
        command: str,
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        signal: CancelSignal | None = None,
    ) -> CallHandle[ShellResult]:
        """Run a command and tell the conversation of it; of `env` it is told the names alone.

        :raises OSError: it cannot be started
        """
        return self._call(partial(self._shell, Command(command, dict(env or {}), cwd)), signal)

    async def compact(self) -> bool:
        """Summarise the older part of the conversation for the model; False when there is nothing to do.

        :raises SessionBusy: an operation is under way
        :raises AgentFailed: the model gave no summary
        :raises AbortError: it was stopped
        """
        return await self._alone(self._compact)

    async def delete(self) -> None:
        """Remove the session with all that it holds.

        :raises SessionBusy: an operation is under way
        """
        await self._alone(self._delete)

    async def fork(self, at: int | None = None, *, name: str | None = None) -> Session:
        """A session that begins as a copy of this one: of all of it, or up to and with the entry `at`.

        :raises InvalidInput: there is no such entry
        :raises SessionExists: there is one of that name
        """
        host = self._host
        row = await host.row(self.id)
        fork = await plan_fork(host.process.database, host.scope, row, at, name=name)
        made = await host.process.database.write(fork_steps(host.scope, fork))
        copy = await host.row(made[0].id)
        return Session(self._instance, host, copy.id, copy.name or "")

    async def history(self) -> list[Message]:
        """The conversation as the model is shown it: messages, answers and results of tools."""
        return conversation(await self._host.written(self.id))

    async def interrupts(self) -> list[Interrupt]:
        """The questions that wait for an answer."""
        await asyncio.sleep(0)  # who asks again and again lets the operation get on
        return await self._host.process.sessions.interrupts(self._host.scope, self.id)

    async def respond(
        self,
        id: str,
        decision: str = "approve",
        *,
        reason: str | None = None,
        always: bool = False,
        content: Any = None,
    ) -> Admitted:
        """Answer a question: "approve" or "reject", "answer" with `content`, "accept", "decline" or "cancel".

        :raises InterruptNotFound, InterruptDecided: there is no such open question
        """
        said = Decision(decision, reason, always, content)
        return await self._host.process.sessions.answer(self._host.scope, self.id, id, said)

    async def cancel(self) -> None:
        """Stop what is under way in this session, whoever began it; nothing to do is no error."""
        await self._host.process.sessions.cancel(self._host.scope, self.id)

    # How the operations are done

    def _call(self, work: Work[T], signal: CancelSignal | None) -> CallHandle[T]:
        async def operation(own: CancelSignal) -> T:
            self._host.occupy(self.id)
            try:
                return await work(own)
            finally:
                self._host.leave(self.id)

        return CallHandle(operation, signal)

    async def _alone(self, work: Work[T]) -> T:
        return await self._call(work, None)

    async def _prompt(self, text: str, options: Mapping[str, Any], message: str, signal: CancelSignal) -> Any:
        asked = wanted(**options)
        return await self._ask(text, asked, self._instance.given(asked), signal, message)

    async def _skill(
        self,
        skill: SkillReference | str,
        args: Mapping[str, Any] | None,
        options: Mapping[str, Any],
        signal: CancelSignal,
    ) -> Any:
        asked = wanted(**options)
        found = await self._instance.skill(skill)
        given = self._instance.given(asked, () if isinstance(skill, str) else (skill,))
        return await self._ask(skill_text(found, args), asked, given, signal)

    async def _ask(
        self, text: str, asked: Wanted, given: Given, signal: CancelSignal, message: str | None = None
    ) -> Any:
        said = self._said(text, asked, message=message)
        entries = await self._run([said], given, signal, text=text)
        return response_of(
            outcome_of(entries, said.id), spent_in(entries), model_of(given.definition.model), asked.result
        )

    async def _task(
        self, text: str, agent: str | None, cwd: str | None, options: Mapping[str, Any], signal: CancelSignal
    ) -> Any:
        asked = wanted(**options)
        name, given, child = self._instance.for_task(agent, asked, cwd)
        args = {"prompt": text, "agent": name}
        call, run = ToolCall(f"call_{uuid.uuid4().hex}", TASK, args), str(uuid.uuid4())
        said = self._said(text, Wanted(), {ONLY_CALLS: True, DETACHED: True})
        began: list[Entry] = [
            said,
            RunStarted(run=run, inputs=(said.id,), definition_digest=given.definition.digest),
            AssistantSaid(message_id=str(uuid.uuid4()), parts=(CallPart(call.id),), calls=(call,), stop="calls"),
        ]
        entries = await self._run(began, given, signal, run=run, text=text)
        end = outcome_of(entries, said.id).end
        if isinstance(end, Cancelled):
            raise AbortError(CANCELLED)
        id = child_id(self.id, call.id)
        below = await self._host.written(id)
        if not below and isinstance(end, RunFailed):
            raise AgentFailed(end.message)
        outcome = outcome_of(below, message_of(id, call.id))
        return response_of(outcome, spent_in(entries), model_of(child.definition.model), asked.result)

    async def _shell(self, command: Command, signal: CancelSignal) -> ShellResult:
        given, run = self._instance.given(Wanted(model=self._instance.any_model)), str(uuid.uuid4())
        said = command.said(str(uuid.uuid4()))
        began, call = command.entries(run, said, given.definition)
        executor = self._host.process.session_executor
        work = CommandRun(command, call, self._instance.sandbox, executor.settle)
        await self._recorded([said, *began], work, signal, run, command.text)
        return work.came_to()

    async def _compact(self, signal: CancelSignal) -> bool:
        asked = CompactRequested(id=str(uuid.uuid4()), by=self._host.scope.principal)
        given = self._instance.given(Wanted(model=self._instance.any_model))
        return compacted_of(await self._run([asked], given, signal, text=""), asked.id)

    async def _delete(self, signal: CancelSignal) -> None:
        await self._host.check_rests(self.id)
        if self._instance.store is not None:  # before: what is deleted must not come back from there
            await self._instance.store.delete(self._key)
        await self._host.delete(self.id)

    @property
    def _key(self) -> SessionKey:
        return SessionKey(self._instance.agent, self._instance.id, self.name)

    def _said(
        self, text: Any, asked: Wanted, more: Mapping[str, Any] | None = None, message: str | None = None
    ) -> UserSaid:
        if not isinstance(text, str) or not text.strip():
            raise InvalidInput("the text of an operation is empty")
        options = {**asked.options, **(more or {})}
        parts: tuple[UserPart, ...] = (TextPart(text), *asked.parts)
        return UserSaid(id=message or str(uuid.uuid4()), mode="reject", parts=parts, options=options)

    async def _run(
        self, entries: Sequence[Entry], given: Given, signal: CancelSignal, *, run: str | None = None, text: str
    ) -> Any:
        work = partial(self._host.process.session_executor.execute, given=given)
        return await self._recorded(entries, work, signal, run or str(uuid.uuid4()), text)

    async def _recorded(
        self, entries: Sequence[Entry], work: Executor, signal: CancelSignal, run: str, text: str
    ) -> list[Stored]:
        """Do something in the session, and tell its store."""
        written = await self._host.run(self.id, entries, work, signal, run_id=run, text=text)
        if self._instance.store is not None:
            await self._instance.store.save(self._key, exported(await self._host.written(self.id)))
        return written


def conversation(entries: Sequence[Stored]) -> list[Message]:
    """What a model is shown of a log."""
    return list(prompt.build(Transcript().extend(entries).items))
