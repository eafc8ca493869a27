"""Instances of a project's agents, reached from outside: a message goes to the one session of its name."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from msgspec import Struct

from flux.agents.code.ids import check_id
from flux.agents.code.outcome import Outcome, outcome_of, spent_in
from flux.agents.code.stores import SessionKey
from flux.agents.project.discovery import Project
from flux.agents.project.initialising import forget, history_of
from flux.agents.service.sessions import Sessions
from flux.engine.intake.admission import Admission
from flux.engine.intake.answers import Admitted
from flux.engine.intake.inputs import NewMessage, NewSession
from flux.engine.workflows.history import iso
from flux.errors import AgentNotFound, DispatchNotFound, Forbidden, SessionNotFound
from flux.events import AssistantSaid, Cancelled, ChatResponse, RunFailed, RunStarted, Stored, UserSaid
from flux.store.database import Scope
from flux.store.executions import Execution, Spent
from flux.store.log import History
from flux.suggest import unknown
from flux.watch import RunWatch

DEFAULT = "default"
#: How runs end, in the words of who dispatched.
ENDS = {ChatResponse: "completed", RunFailed: "failed", Cancelled: "cancelled"}
#: Entries that are read at once when somebody asks what became of a message.
PAGE = 1_000


class Address(Struct, frozen=True):
    """A conversation: a session, by name, of an instance of an agent."""

    agent: str
    id: str
    session: str = DEFAULT

    @property
    def key(self) -> SessionKey:
        """It as stores know it."""
        return SessionKey(self.agent, self.id, self.session)


class Fate(Struct, frozen=True):
    """What became of a message: the `outcome` of its run once that has ended, and what was spent until then.

    `status` is queued, running, waiting, ended or cancelled; `model` is "provider/name"; `at` is when it was
    accepted, in seconds since the epoch.
    """

    status: str
    row: Execution
    at: float
    outcome: Outcome | None = None
    spent: Spent = Spent()
    model: str = ""


class Instances:
    """The agents of a project. Every method takes the caller's scope."""

    def __init__(self, project: Project | None, admission: Admission, sessions: Sessions) -> None:
        self._project = project
        self._admission = admission
        self._sessions = sessions

    def project(self, agent: str) -> Project:
        """The project that has this agent.

        :raises AgentNotFound: it has none of that name, or there is no project
        """
        if self._project is None:
            raise AgentNotFound("this server has no project: start it with `flux dev`, or with --project DIR")
        if agent not in self._project.agents:
            raise AgentNotFound(unknown("agent", agent, self._project.agents))
        return self._project

    async def authorize(self, request: Any, agent: str, id: str) -> None:
        """Ask the project whether this request may use this instance.

        :raises AgentNotFound: there is no such agent
        :raises InvalidInput: the id cannot be one
        :raises Forbidden: it may not
        """
        rule = self.project(agent).authorize.get(agent)
        check_id("the id of an instance", id)
        allowed: Any = True if rule is None else rule(request, agent, id)
        if not (await allowed if inspect.isawaitable(allowed) else allowed):
            raise Forbidden(f"you may not use this instance of {agent}")

    async def send(self, scope: Scope, to: Address, message: NewMessage, *, key: str | None = None) -> Admitted:
        """Give an instance a message; its session is made if there is none. Durable when this returns.

        :raises AgentNotFound, InvalidInput, SessionBusy, TooLarge, IdempotencyMismatch: it was not accepted
        :raises AgentFailed: the session is new, and the agent's initialiser or its store failed
        """
        project = self.project(to.agent)
        history = partial(history_of, project.agents[to.agent], project.env, to.key)
        return await self.reach(scope, project.pool, to, message, history, key=key)

    async def reach(
        self,
        scope: Scope,
        pool: str,
        to: Address,
        message: NewMessage,
        history: Callable[[], Awaitable[History]],
        *,
        key: str | None = None,
    ) -> Admitted:
        """The same for an agent that the workers of a pool have; a new session begins with `history`.

        :raises InvalidInput, SessionBusy, TooLarge, IdempotencyMismatch: it was not accepted
        """
        check_id("the id of an instance", to.id)
        check_id("the name of a session", to.session)
        self._sessions.check_size(message)
        session = NewSession(to.agent, "", instance=to.id, name=to.session, pool=pool)
        return await self._admission.reach(scope, session, message, history, key=key)

    async def forget(self, scope: Scope, id: str) -> None:
        """Have the store of an agent forget an ended session that is about to be deleted, unless it has a successor.

        :raises SessionNotFound: there is no such session
        :raises DefinitionInvalid, InvalidInput, AgentFailed: the agent's initialiser or its store failed
        """
        row = await self._sessions.get(scope, id)
        agent = self._project.agents.get(row.agent or "") if self._project and row.agent_version is None else None
        if agent is None or row.state != "ended" or row.driver is not None:
            return
        key = SessionKey(agent.name, row.instance or "", row.name or "")
        if not await self._sessions.has_open(scope, key.agent, key.instance, key.session):
            await forget(agent, self._project.env if self._project else None, key)

    async def dispatched(self, scope: Scope, id: str) -> dict[str, Any]:
        """What has become of input that was dispatched: `status`, and `text` or `error` once it has ended.

        :raises DispatchNotFound: there is none
        """
        session, _, seq = id.rpartition(".")
        try:
            fate = await self.fate(scope, session, int(seq))
        except (SessionNotFound, ValueError) as error:
            raise DispatchNotFound(f"there is no dispatch {id[:80]!r}") from error
        row, end = fate.row, fate.outcome.end if fate.outcome else None
        failed = end.message if isinstance(end, RunFailed) else None
        return {
            "dispatch_id": id,
            "status": ENDS[type(end)] if end else fate.status,
            "agent": row.agent,
            "id": row.instance,
            "session": row.name,
            "session_id": row.id,
            "text": end.content if isinstance(end, ChatResponse) else None,
            "error": failed,
            "accepted_at": iso(fate.at),
        }

    async def fate(self, scope: Scope, id: str, seq: int) -> Fate:
        """What has become of the message that stands in a session at `seq`.

        :raises DispatchNotFound: there is none
        """
        row = await self._sessions.get(scope, id)
        entries: list[Stored] = []
        after = max(0, seq - 1)
        while True:
            page = await self._sessions.entries(scope, id, after, PAGE)
            entries += [one.stored() for one in page]
            said = entries[0].entry if entries and entries[0].seq == seq else None
            if not isinstance(said, UserSaid):
                raise DispatchNotFound(f"there is no dispatch {id[:80]}.{seq}")
            fate = _fate(row, entries, said.id)
            if fate.outcome is not None or len(page) < PAGE:
                return fate
            after = page[-1].seq


def _fate(row: Execution, entries: list[Stored], message: str) -> Fate:
    watch, begun, model, at = RunWatch(message), False, "", entries[0].at
    for count, entry in enumerate((stored.entry for stored in entries), 1):
        begun = begun or (isinstance(entry, RunStarted) and message in entry.inputs)
        model = entry.model if begun and isinstance(entry, AssistantSaid) else model
        if watch.feed(entry) == "ended":
            inside = entries[:count]
            return Fate("ended", row, at, outcome_of(inside, message), spent_in(inside), model)
    if row.state == "ended":
        return Fate("cancelled", row, at)
    status = "waiting" if watch.state == "waiting" else "running" if begun else "queued"
    return Fate(status, row, at, None, spent_in(entries), model)
