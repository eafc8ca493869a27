"""What may be done with stored agents and their sessions: the service behind every surface."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any

from flux.agents.define.definition import MOST_STEPS, AgentDefinition
from flux.agents.history.plan import edited
from flux.agents.service import agents as stored
from flux.agents.service.forking import check_forkable, fork_steps, plan_fork
from flux.agents.service.forking_talks import plan_talk_fork
from flux.agents.turn.binding import Binder
from flux.engine.intake.admission import Admission
from flux.engine.intake.agent_workflows import session_of
from flux.engine.intake.answers import Admitted, Decision
from flux.engine.intake.inputs import NewCompaction, NewMessage, NewSession
from flux.errors import (
    AgentNotFound,
    Conflict,
    DefinitionInvalid,
    InterruptNotFound,
    InvalidInput,
    PlanInvalid,
    SessionBusy,
    SessionNotFound,
    TooLarge,
)
from flux.store import agents, audit, callers, executions, interrupts, log
from flux.store.agents import AgentVersion
from flux.store.database import Database, Scope, Steps
from flux.store.executions import Execution
from flux.store.feed import START, Cursor, Feed, Frame
from flux.store.interrupts import Interrupt
from flux.store.log import LogRow

#: Gives a definition as it is to be stored, after a check of one of its parts.
Prepare = Callable[[Scope, AgentDefinition], Awaitable[AgentDefinition]]


class Agents:
    """Stored agents."""

    def __init__(self, database: Database, binder: Binder, prepare: Sequence[Prepare] = ()) -> None:
        self._database = database
        self._binder = binder
        self._prepare = prepare
        self._preloading: set[asyncio.Task[None]] = set()

    def preload(self, found: AgentVersion) -> None:
        """Load in the background what the agent's first model call needs."""
        task = asyncio.create_task(self._binder.preload(AgentDefinition.from_json(found.definition)))
        self._preloading.add(task)
        task.add_done_callback(self._preloading.discard)

    @property
    def workspace(self) -> str:
        """The directory of sessions that name none."""
        return self._binder.workspace

    async def put(self, scope: Scope, definition: AgentDefinition, *, create: bool, update: bool) -> AgentVersion:
        """Check a definition and store it as the newest version.

        :raises DefinitionInvalid: something in it does not exist here, or cannot be registered
        :raises AgentExists, AgentNotFound: by `create` and `update`
        """
        for prepare in self._prepare:
            definition = await prepare(scope, definition)
        await asyncio.to_thread(self._binder.check, definition)  # a file of tools may be long
        for name in (*definition.agents, *definition.routes):
            await self._check_colleague(scope, definition, name)
        talk = await asyncio.to_thread(stored.conversation, definition) if definition.workflow_file else None
        return await self._database.write(stored.put(scope, definition, talk, create=create, update=update))

    async def get(self, scope: Scope, name: str) -> AgentVersion:
        """The current version of an agent.

        :raises AgentNotFound: there is none
        """
        found = await self._database.read(agents.get(scope, name))
        if found is None:
            raise AgentNotFound(f"there is no agent {name!r}; `flux agent list` shows those that exist")
        return found

    async def _check_colleague(self, scope: Scope, definition: AgentDefinition, name: str) -> None:
        """That work can be handed to a stored agent."""
        found = await self._database.read(agents.get(scope, name))
        if found is None and name != definition.name:
            raise DefinitionInvalid(f"agents: there is no agent {name!r}; create it first")
        colleague = AgentDefinition.from_json(found.definition) if found and name != definition.name else definition
        if colleague.workflow_file is not None:
            raise DefinitionInvalid(f"agents: {name} talks by a workflow of its own; work cannot be delegated to it")
        if not colleague.description:
            raise DefinitionInvalid(f"agents: {name} has no description, by which a model chooses; give it one")

    def problems(self, found: AgentVersion) -> list[str]:
        """What keeps an agent from running in this process now."""
        try:
            return self._binder.problems(AgentDefinition.from_json(found.definition))
        except DefinitionInvalid as error:  # of a model that another process has
            return [str(error)]

    async def offered(self, found: AgentVersion) -> list[str]:
        """The names of an agent's tools, as far as its definition tells; none where they do not exist here."""
        definition = AgentDefinition.from_json(found.definition)
        try:
            await self._binder.named.imported(definition)
            return self._binder.offered(definition)
        except DefinitionInvalid:
            return []

    async def versions(self, scope: Scope, name: str, before: int, limit: int) -> list[AgentVersion]:
        """The versions below `before`, newest first.

        :raises AgentNotFound: there is none
        """
        await self.get(scope, name)
        return await self._database.read(agents.versions(scope, name, before, limit))

    async def page(self, scope: Scope, after: str, limit: int) -> list[AgentVersion]:
        """Agents by name."""
        return await self._database.read(agents.list_current(scope, after, limit))

    async def delete(self, scope: Scope, name: str) -> None:
        """Remove an agent; its sessions go on.

        :raises AgentNotFound: there is none
        """
        await self._database.write(stored.delete(scope, name))


class Sessions:
    """Sessions of stored agents. Every method takes the caller's scope and finds only what is theirs."""

    def __init__(
        self,
        database: Database,
        feed: Feed,
        admission: Admission,
        agents: Agents,
        max_message: int,
        cancel_children: Callable[[Scope, str], Awaitable[None]],
    ) -> None:
        self._database = database
        self._cancel_children = cancel_children
        self._feed = feed
        self._admission = admission
        self._agents = agents
        self._max_message = max_message

    async def start(
        self,
        scope: Scope,
        agent: str,
        message: NewMessage | None = None,
        *,
        instance: str | None = None,
        name: str = "default",
        workspace: str | None = None,
        key: str | None = None,
    ) -> Admitted:
        """Start a session of an agent's current version, acting in `workspace` (default: this process's directory).

        :raises AgentNotFound, SessionExists, TooLarge, IdempotencyMismatch: it cannot start
        :raises InvalidInput: the workspace is not a directory here
        """
        session = NewSession(agent, "", None, instance, name, workspace or self._agents.workspace)
        # First of all: a repeat gets its first result, whatever has become of the agent and the directory.
        if key is not None and (before := await self._admission.started(scope, session, message, key=key)):
            return before
        self.check_size(message)
        _check_workspace(workspace)
        found = await self._agents.get(scope, agent)
        session = await self._database.read(session_of(scope, found, session))
        if session.source_version is not None:
            _check_options(message)
        elif message is None:
            self._agents.preload(found)
        return await self._admission.start(scope, session, message, key=key)

    async def send(self, scope: Scope, id: str, message: NewMessage, *, key: str | None = None) -> Admitted:
        """Send a message; it is durable when this returns.

        :raises SessionNotFound, SessionEnded, SessionBusy, TooLarge, IdempotencyMismatch: it was not accepted
        """
        return await self.say(scope, await self.get(scope, id), message, key=key)

    async def say(self, scope: Scope, session: Execution, message: NewMessage, *, key: str | None = None) -> Admitted:
        """Send a message to a session that was found just now.

        :raises SessionNotFound, SessionEnded, SessionBusy, TooLarge, IdempotencyMismatch: it was not accepted
        """
        self.check_size(message)
        if session.kind == "workflow":
            _check_options(message)
        return await self._admission.admit(scope, session.id, message, key=key)

    async def compact(self, scope: Scope, id: str, *, key: str | None = None) -> Admitted:
        """Ask to summarise the older part of the history; a run does it. With little history there is nothing to do.

        :raises SessionNotFound, SessionEnded, SessionBusy, IdempotencyMismatch: it was not accepted
        :raises Conflict: it is a part of another session, or a workflow of its own talks in it
        """
        if (await self.get(scope, id)).kind == "workflow":
            raise Conflict("this agent talks by a workflow of its own, which keeps the history itself")
        return await self._admission.admit(scope, id, NewCompaction(), key=key)

    async def answer(self, scope: Scope, id: str, interrupt: str, decision: Decision) -> Admitted:
        """Answer a question.

        :raises SessionNotFound, InterruptNotFound, InterruptDecided: there is no such open question
        :raises PlanInvalid: it is a plan that was edited into none
        """
        await self.get(scope, id)
        if decision.decision == "approve" and decision.content is not None:
            await self._check_plan(scope, interrupt, decision.content)
        return await self._admission.answer(scope, id, interrupt, decision)

    async def cancel(self, scope: Scope, id: str) -> Admitted | None:
        """Ask the present run to stop; None when nothing runs.

        :raises SessionNotFound, SessionEnded: there is no open session
        """
        await self.get(scope, id)
        return await self._admission.cancel(scope, id)

    async def end(self, scope: Scope, id: str) -> Admitted:
        """End a session for good.

        :raises SessionNotFound, SessionEnded: there is no open session
        """
        row = await self.get(scope, id)
        ended = await self._admission.end(scope, id)
        if row.kind == "workflow":
            await self._cancel_children(scope, id)
        return ended

    async def get(self, scope: Scope, id: str) -> Execution:
        """A session of this owner.

        :raises SessionNotFound: there is none
        """
        row = await self._database.single(executions.get(scope, id))
        if row is None or row.agent is None or not scope.sees(row.owner, row.agent):
            raise SessionNotFound(f"there is no session {id[:80]!r}; `flux agent session list` shows those that exist")
        return row

    async def page(
        self,
        scope: Scope,
        *,
        agent: str | None = None,
        state: str | None = None,
        instance: str | None = None,
        q: str | None = None,
        after: tuple[float, str] | None = None,
        limit: int = 50,
    ) -> list[Execution]:
        """Sessions of this owner, newest first."""
        return await self._database.scan(
            executions.list_sessions(scope, agent=agent, state=state, instance=instance, q=q, after=after, limit=limit)
        )

    async def fork(
        self, scope: Scope, id: str, at: int | None = None, *, name: str | None = None, key: str | None = None
    ) -> Admitted:
        """A new session that begins as a copy of this one up to and with the seq `at`; None: all of it.

        Where a workflow talks, the copy ends where that waited for a message last.

        :raises SessionNotFound, SessionExists, IdempotencyMismatch: it cannot be made
        :raises InvalidInput: the session has no entry `at`
        :raises Conflict: its agent cannot talk anywhere else, or has not spoken yet
        """
        body = ("fork", id, at, name)
        if key is not None and (before := await self._admission.before(scope, key, body)):
            return before
        row = await self.get(scope, id)
        check_forkable(row)
        plan = plan_fork if row.kind == "session" else plan_talk_fork
        program = fork_steps(scope, await plan(self._database, scope, row, at, name=name))
        return await self._admission.once(scope, key, body, program)

    async def rename(self, scope: Scope, id: str, title: str) -> None:
        """Change a session's title.

        :raises SessionNotFound: there is none
        """
        await self.get(scope, id)
        await self._database.write(executions.set_title(scope, id, title))

    async def delete(self, scope: Scope, id: str) -> None:
        """Remove a session and its log: an ended one, or one in which nothing was ever said.

        :raises SessionNotFound: there is none
        :raises SessionBusy: it has not ended
        :raises Conflict: it is a part of another one
        """
        row = await self.get(scope, id)
        if row.driver is not None:
            raise Conflict(f"this session is driven by {row.root}; delete that one")
        if not await self._database.write(_delete(scope, id)):
            raise SessionBusy("the session is open; stop it first (`flux agent stop`)")

    async def has_open(self, scope: Scope, agent: str, instance: str, name: str) -> bool:
        """Whether there is an open session of that name."""
        return await self._database.read(callers.find(scope, agent, instance, name)) is not None

    async def interrupts(self, scope: Scope, id: str) -> list[Interrupt]:
        """The open questions of a session.

        :raises SessionNotFound: there is none
        """
        await self.get(scope, id)
        return await self._database.read(interrupts.list_open(scope, id))

    async def interrupt(self, scope: Scope, id: str, interrupt: str) -> Interrupt:
        """One question.

        :raises SessionNotFound, InterruptNotFound: there is none
        """
        await self.get(scope, id)
        found = await self._database.read(interrupts.get(scope, id, interrupt))
        if found is None:
            raise InterruptNotFound()
        return found

    async def entries(self, scope: Scope, id: str, after: int, limit: int) -> list[LogRow]:
        """A page of a session's log.

        :raises SessionNotFound: there is none
        """
        await self.get(scope, id)
        return await self._database.single(log.read(scope, id, after, limit))

    def follow(self, scope: Scope, id: str, after: Cursor = START) -> AsyncGenerator[list[Frame], None]:
        """What happens in a session behind a cursor, as it happens. The caller has checked access."""
        return self._feed.follow(scope, id, after)

    async def _check_plan(self, scope: Scope, interrupt: str, content: Any) -> None:
        """Refuse an edited plan that is none, while the question is still open."""
        asked = await self._database.read(interrupts.find(scope, interrupt))
        row = await self._database.read(executions.get(scope, asked.execution_id)) if asked else None
        if asked is None or asked.kind != "plan" or row is None:
            return
        if interrupts.payload_of(asked).get("plan") is not None:
            raise PlanInvalid("this plan is approved as it is or rejected; say in the reason what is to be changed")
        found = await self._database.read(agents.get_version(scope, row.agent or "", row.agent_version or 0))
        most = AgentDefinition.from_json(found.definition).max_plan_steps if found else MOST_STEPS
        edited(interrupts.payload_of(asked)["steps"], content, most)

    def check_size(self, message: NewMessage | None) -> None:
        """Refuse a message that is too long.

        :raises TooLarge: it is
        """
        texts = (message.text, *(part.text for part in message.beside)) if message else ()
        size = sum(len(text.encode()) for text in texts)
        if size > self._max_message:
            raise TooLarge(
                f"the message has {size:,} bytes, the limit is {self._max_message:,}; send a file's path instead"
            )


def _check_options(message: NewMessage | None) -> None:
    if message is not None and message.options.get("model"):
        raise InvalidInput("model: this agent talks by a workflow of its own, which chooses its models")
    if message is not None and message.beside:
        raise InvalidInput("images and files: this agent talks by a workflow of its own, which is given text alone")


def _check_workspace(workspace: str | None) -> None:
    if workspace is not None and not (os.path.isabs(workspace) and os.path.isdir(workspace)):
        raise InvalidInput(f"workspace {workspace[:200]!r} must be the absolute path of a directory on the server")


def _delete(scope: Scope, id: str) -> Steps[bool]:
    deleted = yield from executions.delete(scope, id)
    if deleted:
        yield from audit.record(scope, "session.delete", id)
    return deleted
