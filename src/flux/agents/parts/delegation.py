"""Sub-agents: a tool that hands work to another agent, whose session is driven inside this run."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from flux.agents.define.definition import AgentDefinition
from flux.agents.parts.rights import Rights
from flux.agents.turn.kits import Given, Kit
from flux.agents.turn.loop import Session
from flux.deltas import SubagentDelta
from flux.engine.running import driving
from flux.engine.running.driving import MAX_DEPTH, Order, Waiting, asked_here
from flux.engine.running.run import Run
from flux.errors import InvalidInput
from flux.events import (
    QUESTIONS,
    ChatResponse,
    DeltaEvent,
    Entry,
    RunEnd,
    RunFailed,
    SessionStarted,
    SubagentChanged,
    UsageCounted,
    UserSaid,
    spent_by,
)
from flux.messages import ImagePart, TextPart
from flux.sandboxes.base import Sandbox
from flux.store import agents, driven
from flux.store.executions import Spent
from flux.tools.base import Done, Failed, Later, Tool, ToolContext, ToolOutcome
from flux.tools.function import tool_of


class Execute(Protocol):
    """Runs a session until it rests; `given` is its agent, where that is not stored."""

    def __call__(self, run: Run, given: Given | None) -> Awaitable[None]:
        """Run it."""
        ...


#: How routes are told in the prompt; those of `agents` and `subagents` by CATALOGUE.
ROUTES = """# Agents you can call

Use `call_agent` to give one of these a piece of work. It does not see this conversation: tell it all it needs.

"""

CATALOGUE = """# Agents you can delegate to

Use `delegate` for work that one of these does better. It does not see this conversation: tell it all it needs.

"""


class Colleague(Struct, frozen=True):
    """An agent that work can be handed to: `given` by the one that delegates, or stored in some version.

    `options` are those of the message that hands it over, `images` stand beside its text.
    """

    definition: AgentDefinition
    version: int | None = None
    given: Given | None = None
    options: Mapping[str, Any] = {}
    images: tuple[ImagePart, ...] = ()


class SessionLink:
    """What a driven session tells the one that drives it, about one of its calls."""

    def __init__(self, session: Session, call: str, child: str) -> None:
        self._session = session
        self._call = call
        self._child = child
        self._copied: set[str] = set()

    @property
    def sandbox(self) -> Sandbox | None:
        """Where the one that drives acts."""
        return self._session.sandbox

    async def saw(self, entries: Sequence[Entry]) -> None:
        """Count what the child spends, and ask its questions here too."""
        for tokens, cost in map(spent_by, entries):
            self._session.count_below(self._child, tokens.total, cost)
        asked = [entry for entry in entries if isinstance(entry, QUESTIONS)]
        if asked:
            await self._session.run.append(*(asked_here(entry, self._call, self._child) for entry in asked))
            self._copied |= {entry.id for entry in asked}

    def knows(self, question: str) -> bool:
        """Whether it was asked here."""
        return question in self._copied or self._session.log.knows_question(question)

    def emitted(self, delta: DeltaEvent) -> None:
        """Show what the child shows, as a piece of the call."""
        self._session.run.emit(SubagentDelta(self._call, self._child, delta))

    def took(self, spent: Spent) -> None:
        """Begin to count with what it has spent."""
        self._session.count_below(self._child, None, None)
        self._session.count_below(self._child, spent.tokens.total, spent.cost)

    def overdrawn(self, tokens: int, cost: float) -> str | None:
        """Why nothing more may be spent."""
        return self._session.overdrawn(tokens, cost)

    @property
    def stops(self) -> bool:
        """The session stops its children when it ends its run; whatever else interrupts it is no reason to."""
        return False


class Delegation:
    """Makes the `delegate` tool of sessions whose agent has others to hand work to."""

    def __init__(self, execute: Execute, rights: Rights | None = None) -> None:
        self._execute = execute
        self._rights = rights

    async def __call__(self, session: Session) -> Kit | None:
        """The kit; None when there is nobody to hand work to, or the session is too deep."""
        definition = session.policy.definition
        if session.run.depth >= MAX_DEPTH or not (definition.agents or definition.routes or _given(session)):
            return None
        tools: list[Tool] = []
        sections: list[str] = []
        if definition.agents or _given(session):
            found = await self._colleagues(session, definition.agents)
            tools.append(self._tool(session, found))
            sections.append(CATALOGUE + _lines(found))
        if definition.routes:
            routed = await self._colleagues(session, definition.routes, given=False)
            tools.append(self._routing_tool(session, routed))
            sections.append(ROUTES + _lines(routed))
        return Kit(tuple(tools), "\n\n".join(sections))

    async def stop(self, session: Session) -> list[Entry]:
        """Stop what the session's run still drives; returns entries of that, and of what was used in vain."""
        run, entries = session.run, list[Entry]()
        for row in await run.database.read(driven.children(run.scope, run.execution.root, run.id)):
            call, agent, spent = session.log.delegated.get(row.id, ""), row.agent or "", row.spent
            if row.run_id is not None and row.state != "ended":
                # Without its agent a session does nothing but to settle.
                link = SessionLink(session, call, row.id)
                spent = await driving.stop(run, row.id, partial(self._execute, given=None), link)
                if call:
                    entries.append(SubagentChanged(child=row.id, status="cancelled", agent=agent, call=call))
            session.count_below(row.id, None, None)
            entries += _used(row.id, spent.since(session.log.counted.get(row.id, Spent())))
        return entries

    async def _colleagues(self, session: Session, names: Sequence[str], *, given: bool = True) -> dict[str, Colleague]:
        inside = _given(session) if given else {}
        found = {name: Colleague(one.definition, given=one) for name, one in inside.items()}
        allowed = await self._rights.colleagues(session.run.scope) if self._rights else None
        for name in filter(allowed or bool, names):
            row = await session.run.database.read(agents.get(session.run.scope, name))
            if row is not None:
                found[name] = Colleague(AgentDefinition.from_json(row.definition), row.version)
        return found

    def _tool(self, session: Session, found: dict[str, Colleague]) -> Tool:
        async def delegate(agent: str, instruction: str, context_: ToolContext, context: str = "") -> ToolOutcome:
            """Hand a piece of work to another agent and get its result. It knows only what you tell it."""
            one = found.get(agent)
            if one is None and context_.call in session.log.delegated.values():
                # It was deleted since. Its sessions go on, by the version that they began with.
                one = Colleague(AgentDefinition(name=agent, model="none/none"))
            if one is None:
                return Failed(f"There is no agent {agent!r} to delegate to. Agents: {', '.join(found)}.")
            text = f"{context}\n\n{instruction}" if context else instruction
            return await self.drive(session, context_.call, one, text)

        # Driven again it goes on where it was, so it may be started again after a crash.
        tool = tool_of(delegate, effect="idempotent", source="agents")
        return msgspec.structs.replace(tool, part_of_run=True)

    def _routing_tool(self, session: Session, found: dict[str, Colleague]) -> Tool:
        async def call_agent(agent: str, prompt: str, context: ToolContext) -> ToolOutcome:
            """Give another agent a piece of work and get its answer. It knows only what you tell it."""
            one = found.get(agent)
            if one is None and context.call in session.log.delegated.values():
                one = Colleague(AgentDefinition(name=agent, model="none/none"))  # it was deleted since
            if one is None:
                return Failed(f"There is no agent {agent!r} to call. Agents: {', '.join(found)}.")
            return await self.drive(session, context.call, one, prompt)

        tool = tool_of(call_agent, effect="idempotent", source="agents")
        return msgspec.structs.replace(tool, part_of_run=True)

    async def drive(self, session: Session, call: str, one: Colleague, text: str) -> ToolOutcome:
        """Hand work to an agent, or go on with what a call has handed to it; what that comes to."""
        run, name = session.run, one.definition.name
        # One that keeps its state is the same child for every call.
        key = f"agent/{name}" if one.definition.stateful else call
        id = driving.child_id(run.id, key)
        if session.log.delegated.get(id) != call:
            await run.append(SubagentChanged(child=id, status="started", agent=name, call=call))
        try:
            outcome = await driving.drive(
                run,
                id,
                _order(id, call, one, text, session.workspace),
                partial(self._execute, given=one.given),
                SessionLink(session, call, id),
            )
        except InvalidInput as error:
            return Failed(str(error))
        if isinstance(outcome, Waiting):
            return Later(outcome.due, (SubagentChanged(child=id, status="waiting", agent=name, call=call),))
        session.count_below(id, None, None)
        used = _used(id, outcome.spent.since(session.log.counted.get(id, Spent())))
        return _result(outcome.end, used, SubagentChanged(child=id, status="done", agent=name, call=call))


def _lines(found: dict[str, Colleague]) -> str:
    return "\n".join(f"- {name}: {one.definition.description or 'no description'}" for name, one in found.items())


def _order(id: str, call: str, one: Colleague, text: str, workspace: str | None) -> Order:
    definition = one.definition
    started = SessionStarted(
        agent=definition.name,
        agent_version=one.version,
        definition_digest=definition.digest,
        instance=id,
        name="default",
        workspace=workspace,
    )
    said = UserSaid(
        id=driving.message_of(id, call), mode="queue", parts=(TextPart(text), *one.images), options=dict(one.options)
    )
    return Order(started, said)


def _used(child: str, spent: Spent) -> tuple[Entry, ...]:
    """The entry of what a child has used, if that is anything."""
    if not spent.tokens.total and not spent.cost:
        return ()
    return (UsageCounted(tokens=spent.tokens, cost=spent.cost, child=child),)


def _result(end: RunEnd, used: tuple[Entry, ...], changed: SubagentChanged) -> ToolOutcome:
    match end:
        case ChatResponse(content=content, limit=limit):
            forced = f"\n\n[{changed.agent} came to its limit {limit}, so this answer was forced]" if limit else ""
            return Done(content + forced, (*used, changed))
        case RunFailed(message=message):
            status, said = "failed", f"The sub-agent failed: {message}"
        case _:
            status, said = "cancelled", "[the sub-agent was stopped]"
    return Failed(said, entries=(*used, msgspec.structs.replace(changed, status=status)))


def _given(session: Session) -> dict[str, Given]:
    """The colleagues that are not stored, by their names."""
    inside = {one.name: Given(one) for one in session.policy.definition.subagents}
    return {**inside, **session.given.colleagues} if session.given else inside
