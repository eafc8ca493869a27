"""The executor of sessions: a run's agent, its transcript, and what the next run of the session can use."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import NoReturn

from msgspec.structs import replace

from flux.agents.code.kit import CodeKit
from flux.agents.define.definition import AgentDefinition, Budget, Limit
from flux.agents.define.shipped import shipped_bytes
from flux.agents.history.cuts import used_tokens
from flux.agents.history.transcript import Transcript
from flux.agents.parts.artifacts import artifact_kit
from flux.agents.parts.delegation import Delegation
from flux.agents.parts.kept import KnownLimits, Recent
from flux.agents.parts.plan import plan_kit
from flux.agents.parts.rights import Rights
from flux.agents.parts.sandboxing import Sandboxes
from flux.agents.project.agents import ProjectAgents
from flux.agents.turn.binding import Binder, Bound
from flux.agents.turn.kits import Given
from flux.agents.turn.loop import IDLE, KitMaker, Session, run_session, settle_lost
from flux.agents.turn.steps import Finish, Idle, Park, Policy, Settle
from flux.engine.running.run import Executor, Run
from flux.errors import AgentNotFound, DefinitionInvalid, FluxError
from flux.events import RunFailed
from flux.models.registry import ModelRegistry
from flux.settings import Settings
from flux.store import agents
from flux.store.database import Database, Scope

#: What is kept in memory for the next run: transcripts (also by an estimate of their tokens in all), and agents
#: (also by the bytes of what they bring along).
KEPT_TRANSCRIPTS = 256
KEPT_TOKENS = 4_000_000
KEPT_AGENTS = 256
KEPT_BYTES = 64_000_000
#: A run that failed so many times as often as it may is ended without a look at its log.
GIVE_UP = 2
#: Stands for a stored definition that cannot be read any more, so that its runs fail in the log.
UNREADABLE = AgentDefinition(name="unreadable", model="none/none")


class SessionExecutor:
    """Runs sessions of stored agents; keeps what the next run of the same session can use.

    Kits stand in the prompt in their order: those of `before`, sub-agents, the plan, and those of `after`.
    """

    def __init__(
        self,
        database: Database,
        binder: Binder,
        models: ModelRegistry,
        settings: Settings,
        *,
        project: ProjectAgents | None = None,
        before: Sequence[KitMaker] = (),
        after: Sequence[KitMaker] = (),
        rights: Rights | None = None,
    ) -> None:
        self._delegation = Delegation(self.execute, rights)
        code, more = CodeKit(self._delegation), (*after, rights) if rights else after
        self._kits: tuple[KitMaker, ...] = (artifact_kit, *before, self._delegation, code, plan_kit, *more)
        #: Sessions that code of this process runs now, by their ids, and what runs them.
        self.own: dict[str, Executor] = {}
        self._project = project
        self._database = database
        self._binder = binder
        self._limits = KnownLimits(models)
        self._sandboxes = Sandboxes(binder.environment, settings)
        self._settings = settings
        self._transcripts: Recent[str, Transcript] = Recent(KEPT_TRANSCRIPTS, KEPT_TOKENS, used_tokens)
        self._definitions: Recent[tuple[str, str, int], AgentDefinition] = Recent(
            KEPT_AGENTS, KEPT_BYTES, shipped_bytes
        )
        self._bound: Recent[tuple[str, str], Bound] = Recent(
            KEPT_AGENTS, KEPT_BYTES, lambda bound: shipped_bytes(bound.definition)
        )

    async def __call__(self, run: Run) -> None:
        """Run a session until it rests: of a stored agent, or of the project, or one that code of this process runs."""
        own = self.own.get(run.id)
        if own is not None:
            await own(run)
        elif self._project is not None and self._project.has(run.execution):
            async with self._project.given(run) as given:
                await self.execute(run, given)
        else:
            await self.execute(run, None)

    async def settle(self, run: Run) -> None:
        """End what a process that is gone has left of a session which it ran for its own code."""
        await settle_lost(self._session(run, UNREADABLE, _no_agent, None))

    async def execute(self, run: Run, given: Given | FluxError | None) -> None:
        """Run a session until it rests; `given` is its agent where that is not stored, or why there is none."""
        if run.failures >= GIVE_UP * self._settings.run_failures:
            await _give_up(run)
            return
        definition, problem = await self._agent(run, given)
        code = given if isinstance(given, Given) else None
        session = self._session(run, definition, partial(self._equipped, problem), code)
        if definition.budget is not None and code is None:
            session.policy = replace(session.policy, newest=await self._newest_budget(run, definition))
        if session.policy.budget is not None and session.policy.budget.agent != Limit():
            run.account = definition.name
        await self._limit(session)
        await run_session(session)
        self._transcripts.put(run.id, session.log)

    async def _agent(self, run: Run, given: Given | FluxError | None) -> tuple[AgentDefinition, FluxError | None]:
        """The agent of a run, or what stands for it and why it cannot be had."""
        if isinstance(given, FluxError):
            return UNREADABLE, given
        try:
            return given.definition if given else await self._definition(run), None
        except (AgentNotFound, DefinitionInvalid) as error:
            return UNREADABLE, DefinitionInvalid(f"this session's agent cannot be read: {error}")

    async def _equipped(self, problem: FluxError | None, session: Session) -> Bound:
        """The agent with its sandbox and all that its parts bring."""
        if problem is not None:
            raise problem
        definition, code = session.policy.definition, session.given.code if session.given else None
        if session.sandbox is None and code is not None:
            session.sandbox = code.sandbox
        if session.sandbox is None:
            session.sandbox = await self._sandboxes.open(session, session.workspace or self._binder.workspace)
        await self._binder.named.imported(definition)
        kits = [kit for make in self._kits if (kit := await make(session)) is not None]
        bound = self._bind(definition, session.sandbox.name) if code is None else self._binder.of(definition)
        return bound.equipped(kits, session.sandbox)

    def _session(
        self,
        run: Run,
        definition: AgentDefinition,
        bind: Callable[[Session], Awaitable[Bound]],
        given: Given | None,
    ) -> Session:
        policy = Policy(definition, self._settings.run_failures, self._settings.run_timeout)
        transcript = self._transcripts.take(run.id) or Transcript()
        return Session(run, transcript, bind, policy, self._settings.model_attempts, self._delegation.stop, given)

    async def _limit(self, session: Session) -> None:
        """Tell the session its model's limits, unless there is nothing left to do but to end its run."""
        model = session.policy.definition.model
        found = self._limits.known(model)
        if found is None:
            await session.catch_up()
            step = session.next_step()
            if isinstance(step, (Settle, Finish, Park, Idle)) or session.run.failures >= self._settings.run_failures:
                return
            found = await self._limits.ask(session.run, model)
        session.policy = replace(session.policy, window=found.context, output=found.output)

    async def _newest_budget(self, run: Run, definition: AgentDefinition) -> Budget | None:
        """The budget that the agent has by now: one that is raised counts for sessions that go on too."""
        found = await self._database.read(agents.get(run.scope, run.execution.agent or ""))
        if found is None or found.version == run.execution.agent_version:
            return definition.budget
        try:
            return AgentDefinition.from_json(found.definition).budget
        except DefinitionInvalid:  # of a newer Flux
            return definition.budget

    async def _definition(self, run: Run) -> AgentDefinition:
        row = run.execution
        key = (row.tenant, row.agent or "", row.agent_version or 0)
        definition = self._definitions.get(key)
        if definition is None:
            found = await self._database.read(agents.get_version(Scope(key[0], row.owner), key[1], key[2]))
            if found is None:
                raise AgentNotFound(debug=f"{key} of session {row.id}")
            definition = AgentDefinition.from_json(found.definition)
            self._definitions.put(key, definition)
        return definition

    def _bind(self, definition: AgentDefinition, sandbox: str) -> Bound:
        key = (definition.digest, sandbox)
        bound = self._bound.get(key)
        if bound is None:
            bound = self._binder.bind(definition, sandbox)
            self._bound.put(key, bound)
        return bound


async def _no_agent(session: Session) -> NoReturn:
    raise FluxError(debug=f"{session.run.id} is ended without its agent")


async def _give_up(run: Run) -> None:
    """End a run that could not even be ended by its log, without reading that."""
    message = f"the run failed {run.failures} times in a row, and its log cannot be used; see the server's log"
    await run.append(RunFailed(message=message), then=IDLE)
