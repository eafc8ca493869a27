"""The composition root: everything one process needs to serve and run agents. Nothing is global."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

from flux import tracing
from flux.agents.binding import Binder
from flux.agents.contract import Contract
from flux.agents.executor import SessionExecutor
from flux.agents.inline import EXECUTOR
from flux.agents.sessions import Agents, Sessions
from flux.agents.task_tools import TaskTools
from flux.engine.admission import Admission
from flux.engine.configs import Configs
from flux.engine.dispatch import Dispatch, EmbeddedDispatch
from flux.engine.execution import WorkflowExecutor
from flux.engine.executions import Executions
from flux.engine.pools import Offer, pools_of, resources_here
from flux.engine.recovery import TICK_SECONDS, Recovery, WorkerLock
from flux.engine.registration import Workflows
from flux.engine.retention import Retention
from flux.engine.run import Executor
from flux.engine.runner import Runner
from flux.engine.scheduling import Schedules
from flux.engine.secrets import Secrets
from flux.engine.services import Services
from flux.engine.source import CatalogCode, SourceLoader
from flux.engine.ticker import Starter, Ticker
from flux.engine.upkeep import keep_up
from flux.errors import MissingPackage
from flux.models.bundled import scripted
from flux.models.registry import ModelFactory, ModelRegistry, provider_settings
from flux.settings import Settings
from flux.store.database import CommitObserver, Database
from flux.store.feed import Feed
from flux.store.opening import open_database
from flux.tools.base import Tool

#: Seconds between two looks for dead workers where no lock tells of them at once.
SHARED_TICK = 0.5


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
        self.workflows = Workflows(database)
        self.executions = Executions(database, self.feed, admission, self.workflows.found)
        self.sessions = Sessions(
            database,
            self.feed,
            admission,
            self.agents,
            settings.max_message_bytes,
            self.executions.cancel_children,
        )
        self.contract = Contract(database, self.sessions, self.executions)
        starter = Starter(self.dispatch, self.workflows.found, self.agents.workspace)
        self.ticker = Ticker(database, self.feed, self.dispatch, starter)
        self.workflows.on_registered = self.ticker.changed
        self.schedules = Schedules(database, self.ticker, self.workflows.found, settings.max_message_bytes)
        services = self._services()
        sessions = SessionExecutor(database, self.binder, models, settings, [TaskTools(services)])
        services.kept.put(EXECUTOR, sessions)
        executors: dict[str, Executor] = {
            "session": sessions,
            "workflow": WorkflowExecutor(CatalogCode(database, SourceLoader()), services, settings.run_failures),
        }
        self.runner = Runner(database, self.feed, self.dispatch, executors, lock.id, offer)
        self.feed.on_foreign_write = self.runner.all_changed
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

    def _services(self) -> Services:
        return Services(
            self.database,
            self.executions.start_child,
            self.executions.cancel_children,
            self.secrets.requested,
            self.configs.requested,
        )

    async def work(self) -> None:
        """Run what has work until cancelled; then finish or hand over within the grace period."""
        upkeep = (
            self.recovery.beat_while_busy(),
            self.recovery.watch(),
            self.retention.watch(),
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
