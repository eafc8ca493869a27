"""`define_runtime`: the agents of one tenant in one process. What runs them is what runs every other session."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from flux.agents.define.approval import Channels, Predicate
from flux.agents.define.called import code_tool
from flux.agents.define.definition import AgentDefinition
from flux.agents.plans import state as plans
from flux.agents.process import Process, open_process
from flux.engine.intake.answers import Decision
from flux.engine.intake.inputs import NewMessage
from flux.errors import (
    AgentNotFound,
    DefinitionInvalid,
    InterruptNotFound,
    InvalidInput,
    SessionExists,
    SessionNotFound,
)
from flux.events import ChatResponse, decode
from flux.roles.compiling import compiled, exported, labels_of
from flux.roles.opening import Opening, check_providers, environment_of, factories_of, registry_of, settings_of
from flux.roles.results import Event, PendingApproval, RunResult, data_of, error_of, pending, told
from flux.roles.serving import Places, say, serve
from flux.roles.specs import AgentSpec, channels_of
from flux.roles.topology import RuntimeSpec, TenantSpec, check, collected
from flux.settings import Settings
from flux.store import executions, interrupts
from flux.store.database import Scope
from flux.store.feed import Cursor, Frame
from flux.suggest import unknown
from flux.watch import RunWatch

#: Who acts, while nobody says who they are.
PRINCIPAL = "local"
#: Sessions that are looked through for one of a name.
PAGE = 200


def define_runtime(
    *,
    tenant: Any,
    agents: Sequence[Any],
    tools: Sequence[Any] = (),
    providers: Mapping[str, Any] | None = None,
    approval_policies: Any = None,
    predicates: Mapping[str, Predicate] | None = None,
) -> Runtime:
    """The agents of a tenant, checked: routes exist, there is one coordinator, plans and tools fit.

    `providers` say where models are: `{"anthropic": {"api_key_env": …, "base_url": …, "retries": …}}`, or a function
    that makes a model of its name.

    :raises TopologyInvalid: something does not go together; `details["faults"]` has every reason
    """
    faults: list[str] = []
    if not isinstance(tenant, TenantSpec):
        faults.append(f"tenant must be what define_tenant returns, not {type(tenant).__name__}")
    given: Any = agents
    specs = tuple(agent for agent in given if isinstance(agent, AgentSpec)) if isinstance(given, Sequence) else ()
    if not isinstance(given, Sequence) or len(specs) != len(given):
        faults.append("agents must be a list of what define_coordinator, define_planner, define_executor, … return")
    check_providers(providers or {}, faults)
    policies = _policies(approval_policies, faults)
    found, known = collected(specs, tools, faults), MappingProxyType(dict(predicates or {}))
    spec = RuntimeSpec(tenant, specs, MappingProxyType(found), MappingProxyType(dict(providers or {})), policies, known)
    check(spec, faults, partial(compiled, spec) if isinstance(tenant, TenantSpec) else None)
    return Runtime(spec)


def _policies(given: Any, faults: list[str]) -> Channels | None:
    try:
        return None if given is None else channels_of("runtime", given, "approval_policies")
    except DefinitionInvalid as error:
        faults.append(str(error))
        return None


class Runtime:
    """The agents of one tenant. It opens its process when it is first used; `async with` or `aclose()` closes it."""

    def __init__(self, spec: RuntimeSpec, opening: Opening | None = None) -> None:
        self.spec = spec
        self._opening = opening or Opening()
        self._stack = AsyncExitStack()
        self._process: Process | None = None
        self._lock = asyncio.Lock()

    @property
    def scope(self) -> Scope:
        """On whose behalf it acts: everything that it finds and makes belongs to its tenant."""
        return Scope(self.spec.tenant.id, PRINCIPAL)

    def on(
        self,
        *,
        settings: Settings | None = None,
        environment: Mapping[str, str] | None = None,
        workspace: Path | None = None,
        observer: Any = None,
        worker: bool = True,
    ) -> Runtime:
        """The same agents on other settings, variables of the process, or another directory."""
        return Runtime(self.spec, Opening(settings, environment, workspace, observer, worker))

    async def __aenter__(self) -> Runtime:
        await self.process()
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Hand over what runs, and close the process."""
        self._process = None
        await self._stack.aclose()

    async def process(self) -> Process:
        """The process, opened and with the agents stored.

        :raises DefinitionInvalid, MissingKey: an agent cannot run here
        """
        async with self._lock:
            if self._process is None:
                self._process = await self._open()
            return self._process

    # Running

    async def run(self, prompt: str, *, session: str | None = None, wait: bool = False) -> RunResult:
        """Say something to the coordinator, and return what came of it, or that a person is needed.

        `session` is that of an earlier result, or a name of one's own. `wait`: also while a person is needed.

        :raises AgentNotFound: there is no coordinator
        """
        return await self._result(*await self._say(self._coordinator(), prompt, session), wait=wait)

    async def run_specialist(
        self, name: str, prompt: str, *, session: str | None = None, wait: bool = False
    ) -> RunResult:
        """Say something to a specialist, without the coordinator.

        :raises AgentNotFound: there is no specialist of this name
        """
        valid = [one.name for one in self.spec.agents if one.role == "specialist"]
        if name not in valid:
            raise AgentNotFound(unknown("specialist", name, valid))
        return await self._result(*await self._say(name, prompt, session), wait=wait)

    async def stream(self, prompt: str, *, session: str | None = None) -> AsyncGenerator[Event, None]:
        """Say something to the coordinator; what happens, until the run has ended or a person is needed."""
        id, place, message = await self._say(self._coordinator(), prompt, session)
        async with aclosing(self._follow(id, place, message)) as frames:
            async for frame, _ in frames:
                yield told(frame, id)

    async def settled(self, session: str, *, wait: bool = False) -> RunResult:
        """What the newest run of a session comes to: it goes on after an answer, or after this program was stopped.

        :raises SessionNotFound: there is no such session
        """
        process = await self.process()
        row = await process.sessions.get(self.scope, await self._session_id(session))
        return await self._result(row.id, 0, None, wait=wait)

    # What people are asked

    async def pending_approvals(self, session: str | None = None) -> tuple[PendingApproval, ...]:
        """What waits for a person, of one session or of all."""
        process = await self.process()
        if session is None:
            found = await process.database.read(interrupts.list_all_open(self.scope))
        else:
            found = await process.sessions.interrupts(self.scope, await self._session_id(session))
        return tuple(pending(question) for question in found)

    async def respond_to_approval(self, id: str, approved: bool, reason: str | None = None) -> None:
        """Approve or reject; the first answer wins, whichever way it came.

        :raises InterruptNotFound: this tenant has no such question
        :raises InterruptDecided: it is decided, or its run has ended
        :raises InvalidInput: `approved` is neither True nor False, or this takes another answer
        """
        if not isinstance(approved, bool):
            raise InvalidInput(f"approved must be True or False, not {approved!r:.40}")
        process = await self.process()
        asked = await process.database.read(interrupts.find(self.scope, id))
        if asked is None:
            raise InterruptNotFound(f"there is no question {id[:80]!r}")
        if asked.kind not in ("approval", "plan"):
            raise InvalidInput(f"this is a question of kind {asked.kind}; it takes no approval, but an answer")
        decision = Decision("approve" if approved else "reject", reason=reason)
        await process.sessions.answer(self.scope, asked.root, id, decision)

    # The same agents elsewhere

    def definition(self, name: str) -> AgentDefinition:
        """An agent as data that runs without this program's objects: functions stand in it as `module:attribute`.

        :raises AgentNotFound: there is none
        :raises DefinitionInvalid: something of it cannot be named
        """
        agent = self.spec.agent(name)
        if agent is None:
            raise AgentNotFound(unknown("agent", name, [one.name for one in self.spec.agents]))
        return exported(self.spec, agent)

    async def serve(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 8000,
        page_port: int | None = 8080,
        ready: Callable[[str, str | None], None] | None = None,
    ) -> None:
        """Serve the HTTP API, and the page of the coordinator, until this is cancelled. Port 0: any that is free.

        `ready` is told the addresses of the API and of the page. Commands on the same home find the server.

        :raises AddressInUse: a port is taken
        """
        process = await self.process()
        agent = self.spec.coordinator or self.spec.agents[0]
        await serve(process, agent.name, Places(host, port, page_port), ready or say)

    async def _open(self) -> Process:
        spec, opening = self.spec, self._opening
        environment = environment_of(spec, opening)
        process = await self._stack.enter_async_context(
            open_process(
                settings_of(spec, opening, environment),
                environment=environment,
                workspace=opening.workspace or Path.cwd(),
                factories=factories_of(spec),
                tools={name: code_tool(tool) for name, tool in spec.tools.items()},
                observer=opening.observer,
                worker=opening.worker,
                labels=labels_of(spec),
                registry=registry_of(spec),
            )
        )
        process.operator = self.scope
        for agent in sorted(spec.agents, key=lambda one: bool(one.routes)):
            await process.agents.put(self.scope, compiled(spec, agent), create=True, update=True)
        return process

    def _coordinator(self) -> str:
        found = self.spec.coordinator
        if found is None:
            raise AgentNotFound("this runtime has no coordinator; use run_specialist")
        return found.name

    async def _say(self, agent: str, prompt: str, session: str | None) -> tuple[str, int, str | None]:
        """Send a message; the session, the seq before it, and its id."""
        given: Any = prompt
        if not isinstance(given, str) or not given.strip():
            raise InvalidInput(f"the prompt must be text that says something, not {given!r:.40}")
        process, scope, message = await self.process(), self.scope, NewMessage(prompt)
        known = await self._known(session, agent)
        if known is not None:
            admitted = await process.sessions.send(scope, known, message)
        else:
            try:
                admitted = await process.sessions.start(scope, agent, message, instance=session)
            except SessionExists:
                admitted = await process.sessions.send(scope, await self._session_id(str(session)), message)
        (row,) = await process.sessions.entries(scope, admitted.id, admitted.seq - 1, 1)
        return admitted.id, admitted.seq - 1, getattr(row.stored().entry, "id", None)

    async def _known(self, session: str | None, agent: str | None) -> str | None:
        """The id of an open session, by its id or by the name that it was given."""
        if session is None:
            return None
        process = await self.process()
        row = await process.database.read(executions.get(self.scope, session))
        if row is not None and row.kind == "session":
            if agent is not None and row.agent != agent:
                raise SessionNotFound(f"session {session[:80]!r} is one of {row.agent}, not of {agent}")
            return row.id
        names = [agent] if agent is not None else [one.name for one in self.spec.agents]
        for name in names:
            found = await process.sessions.page(self.scope, agent=name, instance=session, limit=PAGE)
            known = next((one.id for one in found if one.state != "ended"), None)
            if known is not None:
                return known
        return None

    async def _session_id(self, session: str) -> str:
        found = await self._known(session, None)
        if found is None:
            raise SessionNotFound(f"there is no session {session[:80]!r}")
        return found

    async def _follow(
        self, id: str, place: int, message: str | None, *, wait: bool = False
    ) -> AsyncGenerator[tuple[Frame, RunWatch], None]:
        """What happens behind a seq, until the run of a message rests."""
        process, watch = await self.process(), RunWatch(message)
        behind = (await process.sessions.get(self.scope, id)).head if message is None else 0
        stopping = False  # who was asked to stop does not wait any more, whatever it has asked
        async with aclosing(process.sessions.follow(self.scope, id, Cursor(place))) as batches:
            async for batch in batches:
                for frame in batch:
                    state = watch.feed(decode(frame.data)) if frame.entry else "working"
                    stopping = (stopping or frame.type == "cancel_requested") and frame.type != "run_started"
                    yield frame, watch
                    rests = state == "ended" or (state == "waiting" and not wait and not stopping)
                    if rests and frame.entry and frame.cursor.seq >= behind:
                        return

    async def _result(self, id: str, place: int, message: str | None, *, wait: bool) -> RunResult:
        process, watch = await self.process(), RunWatch(message)
        row = await process.sessions.get(self.scope, id)
        if message is not None and row.state == "waiting" and not wait:
            watch.state = "waiting"  # for what an earlier message has led to: this one comes after it
        else:
            async with aclosing(self._follow(id, place, message, wait=wait)) as frames:
                async for _, seen in frames:
                    watch = seen
            row = await process.sessions.get(self.scope, id)
        plan = await plans.newest(process.database, self.scope, row.root)
        text = watch.end.content if isinstance(watch.end, ChatResponse) else ""
        waiting = watch.state == "waiting"
        return RunResult(
            text=text,
            state="waiting" if waiting else ("completed" if isinstance(watch.end, ChatResponse) else "failed"),
            session=id,
            data=data_of(text),
            pending_approvals=await self.pending_approvals(id) if waiting else (),
            plan=plan.told() if plan is not None else None,
            usage=row.spent.tokens,
            cost=row.spent.cost,
            error=None if waiting else error_of(watch, str(row.agent)),
        )
