"""The composition root: everything one process needs to serve and run agents. Nothing is global."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from flux import tracing
from flux.agents.asking import EXECUTOR
from flux.agents.define.named import Registry
from flux.agents.executor import SessionExecutor
from flux.agents.mcp.doorman import Doorman
from flux.agents.mcp.kit import McpKits, mcp_pool
from flux.agents.mcp.logins import Logins
from flux.agents.mcp.tasks import POOL, SECRETS
from flux.agents.memory.kit import memory_kits
from flux.agents.memory.providers import MemoryStores
from flux.agents.memory.service import Memories
from flux.agents.parts.artifacts import Artifacts
from flux.agents.parts.rights import Rights
from flux.agents.parts.skills import SkillsKit
from flux.agents.parts.task_tools import TaskTools
from flux.agents.parts.tool_files import ToolFilesKit
from flux.agents.parts.tools_apart import ToolsApart
from flux.agents.parts.typed_plan import PlanKits
from flux.agents.project.agents import ProjectAgents
from flux.agents.project.code import code_of, found_in
from flux.agents.project.discovery import Project
from flux.agents.project.instances import Instances
from flux.agents.service.contract import Contract
from flux.agents.service.sessions import Agents, Sessions
from flux.agents.turn.binding import Binder
from flux.agents.webhooks.deliverer import Deliverer
from flux.agents.webhooks.sender import Sender
from flux.agents.webhooks.service import Webhooks
from flux.engine.configuration.configs import Configs
from flux.engine.configuration.key_source import KeySource
from flux.engine.configuration.secrets import Secrets
from flux.engine.dispatching.dispatch import CallerDispatch, Dispatch, Duty, EmbeddedDispatch
from flux.engine.dispatching.limits import Limits
from flux.engine.dispatching.pools import DEFAULT_OFFER, Offer, pools_of, resources_here
from flux.engine.dispatching.presence import presence
from flux.engine.dispatching.upkeep import PAUSE_SECONDS, keep_up, stopped_by, survive
from flux.engine.intake.admission import Admission
from flux.engine.running.recovery import TICK_SECONDS, Recovery, WorkerLock
from flux.engine.running.run import Executor
from flux.engine.running.runner import Runner
from flux.engine.service.executions import Executions
from flux.engine.service.fleet import Fleet
from flux.engine.service.identity import Identities, to_start
from flux.engine.service.principals import Principals
from flux.engine.service.registration import Workflows
from flux.engine.service.retention import Retention
from flux.engine.service.scheduling import Schedules
from flux.engine.service.ticker import Starter, Ticker
from flux.engine.sources.source import CatalogCode, SourceLoader
from flux.engine.workflows.execution import WorkflowExecutor
from flux.engine.workflows.services import Services
from flux.errors import MissingPackage
from flux.models.bundled import scripted_in
from flux.models.registry import ModelFactory, ModelRegistry, provider_settings
from flux.redaction import Known, passwords_of
from flux.settings import Settings
from flux.store import executions
from flux.store.database import LOCAL, CommitObserver, Database, Scope
from flux.store.executions import CALLER
from flux.store.feed import Feed
from flux.store.opening import open_database
from flux.store.workers import Presence
from flux.tools.apart.process import ToolProcesses
from flux.tools.base import Tool
from flux.tools.web import WebFetch

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
        offer: Offer = DEFAULT_OFFER,
        who: Presence | None = None,
        project: Project | None = None,
        registry: Registry | None = None,
    ) -> None:
        self.offer = offer
        #: On whose behalf requests act while nobody says who they are.
        self.operator = LOCAL
        self.project = project
        self.settings = settings
        self.worker_id = lock.id
        self.who = who or Presence(lock.id)
        self.database = database
        self.models = models
        self.binder = Binder(models, workspace, environment, {**_web_tools(settings), **(tools or {})}, registry)
        self.feed = Feed(database)
        self.dispatch = dispatch
        self.tool_processes = ToolProcesses(environment)
        self.mcp = mcp_pool(settings, environment, self.binder.workspace)
        #: The worker of this process has stopped for good: somebody asked it to drain.
        self.drained = asyncio.Event()
        self._keep_secrets()
        self._open_services()
        self._open_worker(lock)

    @property
    def _shared(self) -> bool:
        """Whether other processes may work on this database."""
        return not self.settings.database.startswith("sqlite:")

    def _keep_secrets(self) -> None:
        self.known = Known()
        self.known.add(*_given(self.settings), *self.models.keys())
        self.secrets = Secrets(self.database, KeySource.of(self.settings), self.known)
        self.models.secret = lambda name: self.secrets.get(self.operator, name)
        self.configs = Configs(self.database)
        auth = self.settings.auth
        self.identities = Identities(self.database, enabled=auth.enabled, default_roles=auth.default_user_roles)
        self.principals = Principals(self.database, self.identities)

    def _open_services(self) -> None:
        """What surfaces ask for, each with the caller's scope."""
        database, limit = self.database, self.settings.max_message_bytes
        self.memory_stores = MemoryStores(database, self.secrets.requested, self.settings, self.known)
        self.agents = Agents(database, self.binder, (self.memory_stores.prepared,))
        self.memories = Memories(self.memory_stores, self.agents)
        self.workflows = Workflows(database)
        admission = Admission(database, self.feed, self.dispatch, Limits.of(self.settings))
        find = found_in(self.project, self.workflows.found)
        self.executions = Executions(database, self.feed, admission, find)
        self.sessions = Sessions(database, self.feed, admission, self.agents, limit, self.executions.cancel_children)
        self.instances = Instances(self.project, admission, self.sessions)
        self.logins = Logins(self.secrets, self.sessions)
        self.doorman = Doorman(self.logins, self.mcp.callback)
        if not self._shared and self.settings.public_url is None:
            self.mcp.on_login = self.doorman.open
        self.artifacts = Artifacts(database, self.sessions)
        self.contract = Contract(database, self.sessions, self.executions)
        self.starter = Starter(self.dispatch, find, self.agents.workspace, self.identities.require)
        self.ticker = Ticker(database, self.feed, self.dispatch, self.starter)
        self.workflows.on_registered = self.ticker.changed
        self.schedules = Schedules(database, self.ticker, find, limit)
        self._tell_webhooks()

    def _open_worker(self, lock: WorkerLock) -> None:
        """What runs executions here, and what watches over that."""
        database, settings = self.database, self.settings
        self.workers = Fleet(database, lock, settings.dead_after, always=self._shared, drain_here=self.drain)
        self.session_executor, executors = self._executors()
        self.runner = self._runner(executors)
        self.recovery = self._recovery(lock, self._shared)
        self.retention = Retention(database, settings.retention_days * 86_400)

    def _tell_webhooks(self) -> None:
        sender = Sender(self.settings.webhook_hosts, self.settings.webhook_timeout)
        self.deliverer = Deliverer(self.database, self.secrets, sender, self.settings.webhook_timeout)
        self.webhooks = Webhooks(self.database, self.secrets, sender, self.deliverer)
        self.feed.on_hooked = self.deliverer.changed

    def _executors(self) -> tuple[SessionExecutor, dict[str, Executor]]:
        services, sources = self._services(), SourceLoader()
        sessions = SessionExecutor(
            self.database,
            self.binder,
            self.models,
            self.settings,
            project=ProjectAgents(self.project, self.project.env) if self.project else None,
            before=(TaskTools(services), self._tool_files(sources, services), SkillsKit(self.binder)),
            after=(
                PlanKits(self.binder.named, services),
                memory_kits(self.memory_stores),
                McpKits(self.mcp, self.secrets),
            ),
            rights=Rights(self.identities),
        )
        services.kept.put(EXECUTOR, sessions)
        code = code_of(self.project, CatalogCode(self.database, sources))
        workflows = WorkflowExecutor(code, services, self.settings.run_failures, self.workers.has_others)
        return sessions, {"session": sessions, "workflow": workflows}

    def _tool_files(self, sources: SourceLoader, services: Services) -> ToolFilesKit:
        """Where people are told apart, what they bring along does not run beside the keys of all."""
        apart = ToolsApart(self.tool_processes, services) if self.settings.auth.enabled else None
        return ToolFilesKit(sources, services, apart)

    def _runner(self, executors: Mapping[str, Executor]) -> Runner:
        settle = self.session_executor.settle
        runner = Runner(self.database, self.feed, self.dispatch, executors, self.who, self.offer, settle)
        if isinstance(self.dispatch, CallerDispatch):
            self.dispatch.worker = runner
        self.feed.on_foreign_write = runner.changed_elsewhere
        return runner

    def _services(self) -> Services:
        services = Services(
            self.database,
            self._start_child,
            self.executions.cancel_children,
            self.secrets.requested,
            self.configs.requested,
        )
        services.kept.put(POOL, self.mcp)
        services.kept.put(SECRETS, self.secrets)
        return services

    async def _start_child(self, scope: Scope, workflow: str, input: Any, *, id: str, parent: str) -> None:
        """Start what a workflow calls, which acts as whoever started the workflow."""
        if await self.database.read(executions.get(scope, id)) is None:
            await self.identities.require(scope, *to_start(workflow=workflow))
        await self.executions.start_child(scope, workflow, input, id=id, parent=parent)

    def _recovery(self, lock: WorkerLock, shared: bool) -> Recovery:
        return Recovery(
            self.database,
            self.dispatch,
            self.runner,
            lock,
            pools=self.offer.pools,
            heartbeat=self.settings.heartbeat,
            dead_after=self.settings.dead_after,
            tick=SHARED_TICK if shared else TICK_SECONDS,
            always=shared,
        )

    def drain(self) -> None:
        """Let the worker of this process take nothing new, finish or hand over, and stop."""
        self.recovery.draining.set()

    async def work(self) -> None:
        """Work, again after a pause where that broke, until somebody asks this worker to drain."""
        while not self.recovery.draining.is_set():
            if not await survive("the worker broke", self._work()):
                await asyncio.sleep(PAUSE_SECONDS)
        self.drained.set()

    async def _work(self) -> None:
        """Run what has work until cancelled or drained; then finish or hand over within the grace period."""
        upkeep = (
            self.recovery.keep_beating(),
            self.recovery.watch(),
            self.retention.watch(),
            keep_up("deltas are not tidied up", self.feed.tidy),
            self.ticker.run(),
            self.deliverer.run(),
        )
        keeping = [asyncio.create_task(work) for work in upkeep]
        try:
            await self.recovery.show()
            async with stopped_by(self.recovery.draining):
                duty = Duty(
                    pools=self.offer.pools,
                    concurrency=self.settings.concurrency,
                    grace=self.settings.grace,
                    fits=self.offer.fits,
                )
                await self.dispatch.work(self.runner, duty)
        finally:
            await self.deliverer.finish()
            # Until here: who still finishes its runs is alive.
            for task in keeping:
                task.cancel()
            await asyncio.wait(keeping)
            await self.recovery.leave()


def _web_tools(settings: Settings) -> dict[str, Tool]:
    """`web_fetch` where it may do more than by default."""
    return {"web_fetch": WebFetch(settings.web_fetch_hosts).tool()} if settings.web_fetch_hosts else {}


def _given(settings: Settings) -> tuple[str | None, ...]:
    """What the settings hold that nobody must see."""
    return settings.auth_token, settings.secret_key, *passwords_of(settings.database)


@asynccontextmanager
async def open_process(  # noqa: PLR0913 - all that differs between processes
    settings: Settings,
    *,
    environment: Mapping[str, str],
    workspace: Path,
    factories: Mapping[str, ModelFactory] | None = None,
    tools: Mapping[str, Tool] | None = None,
    observer: CommitObserver | None = None,
    worker: bool = True,
    caller: bool = False,
    labels: Mapping[str, str] | None = None,
    name: str | None = None,
    project: Project | None = None,
    registry: Registry | None = None,
) -> AsyncIterator[Process]:
    """Open everything, work while the context is open, close everything.

    `factories` make models of further prefixes; `tools` made in code can be named by definitions; `labels`
    say which pools the worker serves; `name` is what the worker is to be called; the agents and workflows of
    `project` run here too; `registry` has what else the application gives by name. `caller`: no worker, but a
    program that runs sessions for its own code.

    :raises DatabaseUnavailable, DatabaseLocked, DatabaseTooNew: the database cannot be used
    :raises WorkerExists: a living worker has this name
    """
    async with AsyncExitStack() as stack:
        traced = tracing.configure(environment)
        if traced is not None:
            stack.push_async_callback(asyncio.to_thread, traced.shutdown)
        database = await open_database(settings.database, synchronous=settings.synchronous, observer=observer)
        stack.push_async_callback(database.close)
        lock = WorkerLock(settings.home / "workers")
        stack.callback(lock.release)
        models = _models(settings, environment, workspace, factories or {})
        stack.push_async_callback(models.aclose)
        offer = await _offered(worker and not caller, caller, labels or {}, project)
        dispatch = await _dispatch(database, settings, caller)
        process = Process(
            settings,
            database,
            models,
            lock,
            dispatch,
            workspace=workspace,
            environment=environment,
            tools=tools,
            offer=offer,
            who=presence(lock.id, name, labels or {}, offer.resources, settings.concurrency),
            project=project,
            registry=registry,
        )
        stack.callback(process.known.forget)
        for part in (process.memory_stores, process.feed, process.mcp, process.doorman, process.tool_processes):
            stack.push_async_callback(part.close)
        if name is not None:
            await process.workers.join(process.who)
        if worker and not caller:
            task = asyncio.create_task(process.work(), name="worker")
            stack.push_async_callback(_stop, task)
        yield process


def _models(
    settings: Settings, environment: Mapping[str, str], workspace: Path, factories: Mapping[str, ModelFactory]
) -> ModelRegistry:
    return ModelRegistry(
        environment,
        provider_settings(settings.providers),
        {"scripted": scripted_in(workspace), **factories},
        stalled_after=settings.model_stall,
        keys=settings.keys,
    )


async def _offered(worker: bool, caller: bool, labels: Mapping[str, str], project: Project | None) -> Offer:
    if caller:
        return Offer((CALLER,))
    if not worker:
        return DEFAULT_OFFER
    pools = (*pools_of(labels), *((project.pool,) if project else ()))
    return Offer(pools, await asyncio.to_thread(resources_here))


async def _dispatch(database: Database, settings: Settings, caller: bool = False) -> Dispatch:
    """Between processes on Postgres; inside this one on SQLite."""
    if caller:
        return CallerDispatch(await _dispatch(database, settings))
    if settings.database.startswith("sqlite:"):
        return EmbeddedDispatch(database)
    try:
        module = importlib.import_module("flux.engine.dispatching._procrastinate")
    except ImportError as error:
        raise MissingPackage("Postgres needs an extra package: pip install 'flux-harness[postgres]'") from error
    between = module.ProcrastinateDispatch(database, heartbeat=settings.heartbeat, dead_after=settings.dead_after)
    opened: Dispatch = await between.open()
    return opened


async def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
