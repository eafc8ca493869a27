"""The composition root: everything one process needs to serve and run agents. Nothing is global."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

from msgspec.structs import replace

from flux import tracing
from flux.agents.binding import Binder, Bound
from flux.agents.definition import AgentDefinition
from flux.agents.kept import KnownLimits, Recent
from flux.agents.loop import IDLE, Session, run_session
from flux.agents.sessions import Agents, Sessions
from flux.agents.steps import Finish, Idle, Park, Policy, Settle, next_step, used_tokens
from flux.agents.transcript import Transcript
from flux.engine.admission import Admission
from flux.engine.configs import Configs
from flux.engine.dispatch import Dispatch, EmbeddedDispatch
from flux.engine.execution import WorkflowExecutor
from flux.engine.executions import Executions
from flux.engine.pools import Offer, pools_of, resources_here
from flux.engine.recovery import TICK_SECONDS, Recovery, WorkerLock
from flux.engine.registration import Workflows
from flux.engine.retention import Retention
from flux.engine.run import Executor, Run
from flux.engine.runner import Runner
from flux.engine.scheduling import Schedules
from flux.engine.secrets import Secrets
from flux.engine.services import Services
from flux.engine.source import CatalogCode, SourceLoader
from flux.engine.ticker import Starter, Ticker
from flux.engine.upkeep import keep_up
from flux.errors import AgentNotFound, DefinitionInvalid, FluxError, MissingPackage
from flux.events import RunFailed
from flux.models.registry import ModelFactory, ModelRegistry, provider_settings
from flux.models.scripted import scripted
from flux.settings import Settings
from flux.store import agents
from flux.store.database import CommitObserver, Database, Scope
from flux.store.feed import Feed
from flux.store.opening import open_database
from flux.tools.base import Tool

#: What is kept in memory for the next run: transcripts (also by an estimate of their tokens in all), and agents.
KEPT_TRANSCRIPTS = 256
KEPT_TOKENS = 4_000_000
KEPT_AGENTS = 256
#: A run that failed so many times as often as it may is ended without a look at its log.
GIVE_UP = 2
#: Seconds between two looks for dead workers where no lock tells of them at once.
SHARED_TICK = 0.5
#: Stands for a stored definition that cannot be read any more, so that its runs fail in the log.
UNREADABLE = AgentDefinition(name="unreadable", model="none/none")


class SessionExecutor:
    """Runs sessions of stored agents; keeps what the next run of the same session can use."""

    def __init__(self, database: Database, binder: Binder, models: ModelRegistry, settings: Settings) -> None:
        self._database = database
        self._binder = binder
        self._limits = KnownLimits(models)
        self._settings = settings
        self._transcripts: Recent[str, Transcript] = Recent(KEPT_TRANSCRIPTS, KEPT_TOKENS, used_tokens)
        self._definitions: Recent[tuple[str, str, int], AgentDefinition] = Recent(KEPT_AGENTS)
        self._bound: Recent[tuple[str, str | None], Bound] = Recent(KEPT_AGENTS)

    async def __call__(self, run: Run) -> None:
        """Run a session until it rests."""
        if run.failures >= GIVE_UP * self._settings.run_failures:
            await _give_up(run)
            return
        problem: FluxError | None = None
        try:
            definition = await self._definition(run)
        except (AgentNotFound, DefinitionInvalid) as error:
            definition, problem = UNREADABLE, DefinitionInvalid(f"this session's agent cannot be read: {error}")

        async def bind(workspace: str | None) -> Bound:
            if problem is not None:
                raise problem
            return self._bind(definition, workspace)

        policy = Policy(definition, self._settings.run_failures, self._settings.run_timeout)
        transcript = self._transcripts.take(run.id) or Transcript()
        session = Session(run, transcript, bind, policy, self._settings.model_attempts)
        await self._limit(session)
        await run_session(session)
        self._transcripts.put(run.id, transcript)

    async def _limit(self, session: Session) -> None:
        """Tell the session its model's limits, unless there is nothing left to do but to end its run."""
        model = session.policy.definition.model
        found = self._limits.known(model)
        if found is None:
            await session.catch_up()
            step = next_step(session.log, session.run.failures, session.policy, session.now())
            if isinstance(step, (Settle, Finish, Park, Idle)) or session.run.failures >= self._settings.run_failures:
                return
            found = await self._limits.ask(session.run, model)
        session.policy = replace(session.policy, window=found.context, output=found.output)

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

    def _bind(self, definition: AgentDefinition, workspace: str | None) -> Bound:
        key = (definition.digest, workspace)
        bound = self._bound.get(key)
        if bound is None:
            bound = self._binder.bind(definition, workspace)
            self._bound.put(key, bound)
        return bound


async def _give_up(run: Run) -> None:
    """End a run that could not even be ended by its log, without reading that."""
    message = f"the run failed {run.failures} times in a row, and its log cannot be used; see the server's log"
    await run.append(RunFailed(message=message), then=IDLE)


class Process:
    """An open database, the services on it, and a worker."""

    def __init__(  # noqa: PLR0913 - the composition root
        self,
        settings: Settings,
        database: Database,
        models: ModelRegistry,
        lock: WorkerLock,
        dispatch: Dispatch,
        *,
        workspace: Path,
        environment: Mapping[str, str],
        tools: Mapping[str, Tool] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        self.offer = offer = Offer(pools_of(labels or {}), resources_here())
        self.settings = settings
        self.worker_id = lock.id
        self.database = database
        self.models = models
        self.binder = Binder(models, workspace, environment, tools)
        self.feed = Feed(database)
        self.dispatch = dispatch
        self.secrets = Secrets(database, settings.home, settings.secret_key)
        self.configs = Configs(database)
        self.agents = Agents(database, self.binder)
        admission = Admission(database, self.feed, self.dispatch)
        self.sessions = Sessions(database, self.feed, admission, self.agents, settings.max_message_bytes)
        self.workflows = Workflows(database)
        self.executions = Executions(database, self.feed, admission, self.workflows.found)
        starter = Starter(self.dispatch, self.workflows.found, self.agents.workspace)
        self.ticker = Ticker(database, self.feed, self.dispatch, starter)
        self.workflows.on_registered = self.ticker.changed
        self.schedules = Schedules(database, self.ticker, self.workflows.found, settings.max_message_bytes)
        executors: dict[str, Executor] = {
            "session": SessionExecutor(database, self.binder, models, settings),
            "workflow": self._workflow_executor(),
        }
        self.runner = Runner(database, self.feed, self.dispatch, executors, lock.id, offer)
        self.feed.on_foreign_write = self.runner.changed_elsewhere
        self.recovery = Recovery(
            database,
            self.dispatch,
            self.runner,
            lock,
            pools=offer.pools,
            heartbeat=settings.heartbeat,
            dead_after=settings.dead_after,
            tick=TICK_SECONDS if settings.database.startswith("sqlite:") else SHARED_TICK,
        )
        self.retention = Retention(database, settings.retention_days * 86_400)

    def _workflow_executor(self) -> WorkflowExecutor:
        services = Services(
            self.database,
            self.executions.start_child,
            self.executions.cancel_children,
            self.secrets.requested,
            self.configs.requested,
        )
        return WorkflowExecutor(CatalogCode(self.database, SourceLoader()), services, self.settings.run_failures)

    async def work(self) -> None:
        """Run what has work until cancelled; then finish or hand over within the grace period."""
        upkeep = (
            self.recovery.beat_while_busy(),
            self.recovery.watch(),
            self.retention.watch(),
            keep_up("deltas are not tidied up", self.feed.tidy),
            self.ticker.run(),
        )
        keeping = [asyncio.create_task(work) for work in upkeep]
        try:
            await self.dispatch.work(
                self.offer.pools,
                self.runner,
                concurrency=self.settings.concurrency,
                grace=self.settings.grace,
                fits=self.offer.fits,
            )
        finally:
            # Until here: who still finishes its runs is alive.
            for task in keeping:
                task.cancel()
            await asyncio.wait(keeping)
            await self.recovery.leave()


@asynccontextmanager
async def open_process(
    settings: Settings,
    *,
    environment: Mapping[str, str],
    workspace: Path,
    factories: Mapping[str, ModelFactory] | None = None,
    tools: Mapping[str, Tool] | None = None,
    observer: CommitObserver | None = None,
    worker: bool = True,
    labels: Mapping[str, str] | None = None,
) -> AsyncIterator[Process]:
    """Open everything, work while the context is open, close everything.

    `factories` make models of further prefixes; `tools` made in code can be named by definitions; `labels`
    say which pools the worker serves.

    :raises DatabaseUnavailable, DatabaseLocked, DatabaseTooNew: the database cannot be used
    """
    async with AsyncExitStack() as stack:
        traced = tracing.configure(environment)
        if traced is not None:
            stack.push_async_callback(asyncio.to_thread, traced.shutdown)
        database = await open_database(settings.database, synchronous=settings.synchronous, observer=observer)
        stack.push_async_callback(database.close)
        lock = WorkerLock(settings.home / "workers")
        stack.callback(lock.release)
        models = ModelRegistry(
            environment,
            provider_settings(settings.providers),
            {"scripted": scripted, **(factories or {})},
            stalled_after=settings.model_stall,
        )
        stack.push_async_callback(models.aclose)
        process = Process(
            settings,
            database,
            models,
            lock,
            await _dispatch(database, settings),
            workspace=workspace,
            environment=environment,
            tools=tools,
            labels=labels,
        )
        stack.push_async_callback(process.feed.close)
        if worker:
            task = asyncio.create_task(keep_up("the worker broke", process.work), name="worker")
            stack.push_async_callback(_stop, task)
        yield process


async def _dispatch(database: Database, settings: Settings) -> Dispatch:
    """Between processes on Postgres; inside this one on SQLite."""
    if settings.database.startswith("sqlite:"):
        return EmbeddedDispatch(database)
    try:
        module = importlib.import_module("flux.engine._procrastinate")
    except ImportError as error:
        raise MissingPackage("Postgres needs an extra package: pip install 'flux-harness[postgres]'") from error
    between = module.ProcrastinateDispatch(database, heartbeat=settings.heartbeat, dead_after=settings.dead_after)
    opened: Dispatch = await between.open()
    return opened


async def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
