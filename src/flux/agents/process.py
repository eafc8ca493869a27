"""The composition root: everything one process needs to serve and run agents. Nothing is global."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

from flux.agents.binding import Binder, Bound
from flux.agents.definition import AgentDefinition
from flux.agents.loop import Session, run_session
from flux.agents.sessions import Agents, Sessions
from flux.agents.steps import Policy
from flux.agents.transcript import Transcript
from flux.engine.admission import Admission
from flux.engine.dispatch import EmbeddedDispatch
from flux.engine.recovery import Recovery, WorkerLock
from flux.engine.run import Run
from flux.engine.runner import Runner
from flux.errors import AgentNotFound, DefinitionInvalid, FluxError
from flux.models.base import ModelLimits
from flux.models.registry import ModelFactory, ModelRegistry, provider_settings
from flux.models.scripted import scripted
from flux.settings import Settings
from flux.store import agents
from flux.store.database import CommitObserver, Database, Scope
from flux.store.feed import Feed
from flux.store.opening import open_database
from flux.tools.base import Tool

KEPT_TRANSCRIPTS = 256
POOL = "default"
#: Stands for a stored definition that cannot be read any more, so that its runs fail in the log.
UNREADABLE = AgentDefinition(name="unreadable", model="none/none")


class SessionExecutor:
    """Runs sessions of stored agents; keeps what the next run of the same session can use."""

    def __init__(self, database: Database, binder: Binder, models: ModelRegistry, settings: Settings) -> None:
        self._database = database
        self._binder = binder
        self._models = models
        self._settings = settings
        self._transcripts: OrderedDict[str, Transcript] = OrderedDict()
        self._definitions: dict[tuple[str, str, int], AgentDefinition] = {}
        self._bound: dict[tuple[str, str | None], Bound] = {}
        self._limits: dict[str, ModelLimits] = {}

    async def __call__(self, run: Run) -> None:
        """Run a session until it rests."""
        problem: FluxError | None = None
        try:
            definition = await self._definition(run)
        except (AgentNotFound, DefinitionInvalid) as error:
            definition, problem = UNREADABLE, DefinitionInvalid(f"this session's agent cannot be read: {error}")
        limits = await self._limits_of(definition.model)
        policy = Policy(
            definition, self._settings.run_failures, self._settings.run_timeout, limits.context, limits.output
        )
        transcript = self._transcripts.pop(run.id, None) or Transcript()

        async def bind(workspace: str | None) -> Bound:
            if problem is not None:
                raise problem
            return self._bind(definition, workspace)

        await run_session(Session(run, transcript, bind, policy, self._settings.model_attempts))
        self._keep(run.id, transcript)

    async def _definition(self, run: Run) -> AgentDefinition:
        row = run.execution
        key = (row.tenant, row.agent or "", row.agent_version or 0)
        if key not in self._definitions:
            found = await self._database.read(agents.get_version(Scope(key[0], row.owner), key[1], key[2]))
            if found is None:
                raise AgentNotFound(debug=f"{key} of session {row.id}")
            self._definitions[key] = AgentDefinition.from_json(found.definition)
        return self._definitions[key]

    def _bind(self, definition: AgentDefinition, workspace: str | None) -> Bound:
        key = (definition.digest, workspace)
        if key not in self._bound:
            self._bound[key] = self._binder.bind(definition, workspace)
        return self._bound[key]

    async def _limits_of(self, model: str) -> ModelLimits:
        if model not in self._limits:
            try:
                self._limits[model] = await self._models.get(model).limits()
            except FluxError:
                return ModelLimits()
        return self._limits[model]

    def _keep(self, id: str, transcript: Transcript) -> None:
        self._transcripts[id] = transcript
        while len(self._transcripts) > KEPT_TRANSCRIPTS:
            self._transcripts.popitem(last=False)


class Process:
    """An open database, the services on it, and a worker."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        models: ModelRegistry,
        lock: WorkerLock,
        *,
        workspace: Path,
        environment: Mapping[str, str],
        tools: Mapping[str, Tool] | None = None,
    ) -> None:
        self.settings = settings
        self.worker_id = lock.id
        self.database = database
        self.models = models
        self.binder = Binder(models, workspace, environment, tools)
        self.feed = Feed(database)
        self.dispatch = EmbeddedDispatch(database)
        self.agents = Agents(database, self.binder)
        self.sessions = Sessions(
            database,
            self.feed,
            Admission(database, self.feed, self.dispatch),
            self.agents,
            settings.max_message_bytes,
        )
        executor = SessionExecutor(database, self.binder, models, settings)
        self.runner = Runner(database, self.feed, self.dispatch, {"session": executor}, lock.id)
        self.feed.on_foreign_write = self.runner.all_changed
        self.recovery = Recovery(
            database, self.dispatch, lock, heartbeat=settings.heartbeat, dead_after=settings.dead_after
        )

    async def work(self) -> None:
        """Run what has work until cancelled; then finish or hand over within the grace period."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.recovery.beat_while_busy(self.runner))
            tasks.create_task(self.recovery.watch(self.feed))
            tasks.create_task(
                self.dispatch.work(POOL, self.runner, concurrency=self.settings.concurrency, grace=self.settings.grace)
            )


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
) -> AsyncIterator[Process]:
    """Open everything, work while the context is open, close everything.

    `factories` make models of further prefixes; `tools` made in code can be named by definitions.

    :raises DatabaseUnavailable, DatabaseLocked, DatabaseTooNew: the database cannot be used
    """
    async with AsyncExitStack() as stack:
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
        process = Process(settings, database, models, lock, workspace=workspace, environment=environment, tools=tools)
        stack.push_async_callback(process.feed.close)
        if worker:
            task = asyncio.create_task(process.work(), name="worker")
            stack.push_async_callback(_stop, task)
        yield process


async def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
